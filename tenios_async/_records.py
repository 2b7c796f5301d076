"""What the log is told of a call: records of the logger `tenios_async`, with fields beside the text (`extra`).

DEBUG, but for a call of unknown outcome, which is a WARNING: a cancellation may be all that its caller sees. A poll
that succeeds leaves no record. No field and no text holds the access key, and what looks like a phone number is masked.
"""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Any, assert_never

from tenios_async._events import Ended, Placed, Polled, Transitioned
from tenios_async._models import AttemptOutcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenios_async._events import Event
    from tenios_async._models import Callback

log = logging.getLogger("tenios_async")


def record(event: Event, redact: Callable[[str], str]) -> None:
    """Writes down an event.

    Args:
        event: what happened.
        redact: takes the key and phone numbers out of what TENIOS has said.
    """
    is_in_doubt = isinstance(event, Placed) and event.outcome is AttemptOutcome.UNKNOWN
    level = logging.WARNING if is_in_doubt else logging.DEBUG
    if not log.isEnabledFor(level) or (isinstance(event, Polled) and event.error is None):
        return
    text, values, fields = _told(event, redact)
    _write(level, text, *values, extra=fields)


def record_strange_status(shown: str) -> None:
    """Writes down a state that this version does not know."""
    text = "TENIOS answered a state this version does not know: %r; it is passed on as it is"
    _write(logging.WARNING, text, shown, extra={"tenios_event": "strange_status", "tenios_status": shown})


def record_failed_observer() -> None:
    """Writes down what an observer has just raised."""
    _write(logging.ERROR, "an observer raised", exc_info=True, extra={"tenios_event": "observer_failed"})


def _write(level: int, text: str, *values: object, **options: Any) -> None:
    try:
        log.log(level, text, *values, **options)
    except Exception:  # of a filter: as logging itself has it with what a handler raises, it ends no call
        if logging.raiseExceptions:
            traceback.print_exc()


def _told(event: Event, redact: Callable[[str], str]) -> tuple[str, tuple[object, ...], dict[str, Any]]:
    """The text, what stands in it, and the fields."""
    match event:
        case Placed(outcome, callback, error, seconds):
            key = _key(callback, redact)
            fields = {"tenios_event": "placed", "tenios_outcome": str(outcome), "tenios_seconds": seconds}
            what = key if error is None else redact(str(error))
            text = "init ended as %s: %s" if error else "init ended as %s, callback %s"
            return text, (outcome, what), fields | _common(key, error)
        case Polled(callback, _, error, seconds):
            key = _key(callback, redact)
            fields = {"tenios_event": "polled", "tenios_seconds": seconds}
            return "a poll of callback %s failed: %s", (key, error), fields | _common(key, error)
        case Transitioned(transition):
            key, status = _key(transition.callback, redact), str(redact(transition.status))
            previous = None if transition.previous is None else str(redact(transition.previous))
            fields = {"tenios_event": "transitioned", "tenios_status": status, "tenios_previous": previous}
            return "callback %s is %s, after %s", (key, status, previous), fields | _common(key, None)
        case Ended(callback, status, error):
            key, last = _key(callback, redact), None if status is None else str(redact(status))
            fields = {"tenios_event": "ended", "tenios_status": last}
            text = "the watch of callback %s has ended at %s" + (": %s" if error else "")
            return text, (key, last, error)[: 3 if error else 2], fields | _common(key, error)
        case unreachable:  # pyright: ignore[reportUnnecessaryComparison]
            assert_never(unreachable)


def _key(callback: Callback | None, redact: Callable[[str], str]) -> str | None:
    return None if callback is None else redact(callback.key)


def _common(key: str | None, error: Exception | None) -> dict[str, Any]:
    return {"tenios_callback_id": key, "tenios_error": None if error is None else type(error).__name__}
