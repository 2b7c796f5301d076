"""The values that callers hold: what to call, what was placed, what was seen."""

from __future__ import annotations

import enum
import inspect
import json
import re
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Literal, cast

import attrs

from tenios_async._errors import ClientMisuse
from tenios_async._lifecycle import FAILED_PARTY, REACHED_BOTH, CallbackStatus

MAX_DELAY = 2**31 - 1
"""Seconds. TENIOS names no bound; this one (68 years) keeps the arithmetic finite."""

MAX_ANNOUNCEMENT = 16_000
"""Characters. TENIOS names no bound; this one keeps the body under 64 KiB in any language."""

MAX_ID_LENGTH = 64
_LONGEST_CONFIG_ID = 256
_E164 = re.compile(r"\+[1-9][0-9]{1,14}")  # ITU-T E.164, 6.2.1: at most 15 digits, no leading zero
_DTMF = frozenset("0123456789*#")
_SHOWN = 3


def mask_number(number: str) -> str:
    """The number with all but its first and last three characters starred: `+49*******890`."""
    hidden = len(number) - 2 * _SHOWN
    if hidden <= 0:
        return "*" * len(number)
    return number[:_SHOWN] + "*" * hidden + number[-_SHOWN:]


def _text(name: str, value: object, *, longest: int) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a text that is not empty")
    if len(value) > longest:
        raise ValueError(f"{name} must have at most {longest} characters, not {len(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} must be text that UTF-8 can carry (it holds a lone surrogate)") from None


def _config_id(_: object, __: object, value: str) -> None:
    _text("callback_config_id", value, longest=_LONGEST_CONFIG_ID)


def _number(_: object, __: object, value: str) -> None:
    if not isinstance(value, str) or not _E164.fullmatch(value):
        raise ValueError(
            "callback_number must be in E.164 form: '+', the country code and the number, 2 to 15 ASCII digits,"
            " nothing else (for instance +491234567890)"
        )


def _delay(_: object, __: object, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_DELAY:
        raise ValueError(f"delay must be a whole number of seconds from 0 to {MAX_DELAY}")


def _announcement(_: object, __: object, value: str | None) -> None:
    if value is not None:
        _text("agent_announcement", value, longest=MAX_ANNOUNCEMENT)


def _dtmf(_: object, __: object, value: str | None) -> None:
    if value is not None and (not isinstance(value, str) or value not in _DTMF):
        raise ValueError("dtmf_key_to_trigger_customer_call must be one of 0-9 * #")


def _masked(value: object) -> str:
    return repr(mask_number(str(value)))


@attrs.frozen
class CallbackRequest:
    """Whom to call, by which configuration. Raises `ValueError` where the API could not accept it.

    Attributes:
        callback_config_id: from the portal's "Callback Configurations" page; it names the agent (A).
        callback_number: the customer (B), in E.164 form (`+491234567890`).
        delay: seconds before calling, 0 or more.
        agent_announcement: read aloud to the agent first, or None.
        dtmf_key_to_trigger_customer_call: the key (one of `0-9 * #`) the agent presses to start the call, or None.
    """

    callback_config_id: str = attrs.field(validator=_config_id)
    callback_number: str = attrs.field(validator=_number, repr=_masked)
    delay: int = attrs.field(default=0, validator=_delay)
    agent_announcement: str | None = attrs.field(
        default=None, validator=_announcement, repr=lambda value: "None" if value is None else "'...'"
    )
    dtmf_key_to_trigger_customer_call: str | None = attrs.field(default=None, validator=_dtmf)


def _id(_: object, __: object, value: int | str) -> None:
    check_id(value)


def check_id(value: object) -> int | str:
    """A callback's id as it may be received and sent back: a JSON integer or a short text. Raises `ValueError`."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**MAX_ID_LENGTH:
        return value
    if isinstance(value, str) and 0 < len(value) <= MAX_ID_LENGTH and value.isascii() and value.isprintable():
        if value != value.strip():
            raise ValueError("a callback's id has no white space around it")
        return value
    raise ValueError(f"a callback's id is an integer or a text of 1 to {MAX_ID_LENGTH} printable ASCII characters")


def _optional_status(value: str | None) -> CallbackStatus | None:
    return None if value is None else CallbackStatus(value)


def _aware(value: datetime) -> None:
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise ValueError("placed_at must be a datetime with a time zone")


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    _aware(instant)  # before it is taken for local time
    return instant.astimezone(UTC)


_TOKEN_VERSION = 1


@attrs.frozen
class Callback:
    """A callback that was placed. `to_json()` is the resume token of a watch: it holds no key and no number.

    A token is not an authorisation: ids are small integers. Give a web page a random handle of your own instead.

    Attributes:
        id: as TENIOS sent it, an integer or a text.
        callback_config_id: the configuration it was placed with, or None where that is not known.
        delay: seconds before calling, or None where that is not known.
        placed_at: when the id arrived (aware, UTC), or None.
        status: the last state seen, or None.
    """

    id: int | str = attrs.field(validator=_id)
    callback_config_id: str | None = None
    delay: int | None = None
    placed_at: datetime | None = None
    status: CallbackStatus | None = attrs.field(default=None, converter=_optional_status)

    def __attrs_post_init__(self) -> None:  # and not by validators: a poll by a bare id would pay for each of them
        if self.callback_config_id is not None:
            _text("callback_config_id", self.callback_config_id, longest=_LONGEST_CONFIG_ID)
        if self.delay is not None:
            _delay(self, None, self.delay)
        if self.placed_at is not None:
            _aware(self.placed_at)

    @property
    def key(self) -> str:
        """The one key for this callback, whether its id came as a number or as a text."""
        return str(self.id)

    def age(self, now: datetime) -> float | None:
        """Seconds since it was placed, 0 or more (wall clocks jump); None where `placed_at` is not known."""
        return None if self.placed_at is None else max(0.0, (now - self.placed_at).total_seconds())

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads, in this process or another."""
        token: dict[str, Any] = {"v": _TOKEN_VERSION, "id": self.id}
        if self.callback_config_id is not None:
            token["callback_config_id"] = self.callback_config_id
        if self.delay is not None:
            token["delay"] = self.delay
        if self.placed_at is not None:
            token["placed_at"] = self.placed_at.astimezone(UTC).isoformat()
        if self.status is not None:
            token["status"] = str(self.status)
        return json.dumps(token)

    @classmethod
    def from_json(cls, token: str | bytes) -> Callback:
        """The callback a token stands for. Raises `ValueError` for what is not one."""
        try:
            fields: Any = json.loads(token)
        except (ValueError, RecursionError, TypeError):
            raise ValueError("this is not a resume token: it is not JSON") from None
        if not isinstance(fields, dict) or "id" not in fields:
            raise ValueError("this is not a resume token: a JSON object with an 'id' was expected")
        known = cast("dict[str, Any]", fields)
        if known.get("v") != _TOKEN_VERSION:
            raise ValueError(f"this resume token is not of version {_TOKEN_VERSION}, which this release reads")
        placed_at = known.get("placed_at")
        try:
            return cls(
                id=known["id"],
                callback_config_id=known.get("callback_config_id"),
                delay=known.get("delay"),
                placed_at=None if placed_at is None else _instant(placed_at),
                status=known.get("status"),
            )
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"this resume token is damaged: {error}") from None


def as_callback(callback: Callback | int | str) -> Callback:
    """A `Callback` for what a caller may hand in: one, or a bare id. Raises `ValueError` for anything else."""
    return callback if isinstance(callback, Callback) else Callback(callback)


@attrs.frozen
class Transition:
    """One change of state that a watch has seen.

    Attributes:
        callback: the resume token as of this transition.
        status: the state seen.
        previous: the state before it, or None at first sight.
        skipped: states that must have been passed since `previous` (at first sight: since REQUESTED).
        observed_at: when it was seen (UTC). The state began at some moment between `not_before` and this.
        not_before: when the last poll still saw `previous` (UTC), or None at first sight.
        elapsed: seconds since the callback was placed, or since the watch began where that is not known.
        polls: how many polls the watch has made so far.
        is_regression: whether this state cannot follow `previous`.
    """

    callback: Callback
    status: CallbackStatus
    previous: CallbackStatus | None
    skipped: tuple[CallbackStatus, ...]
    observed_at: datetime
    not_before: datetime | None
    elapsed: float
    polls: int
    is_regression: bool

    @property
    def is_terminal(self) -> bool:
        """Whether the call has ended and nothing follows."""
        return self.status.is_terminal


@attrs.frozen
class CallbackResult:
    """How a call ended.

    Attributes:
        callback: the resume token, with the final state.
        status: the terminal state.
        transitions: what was seen on the way; empty for a callback already known to have ended.
    """

    callback: Callback
    status: CallbackStatus
    transitions: tuple[Transition, ...]

    @property
    def connected(self) -> bool:
        """Whether A and B talked to each other."""
        return self.status in REACHED_BOTH

    @property
    def failed_party(self) -> Literal["A", "B"] | None:
        """Who was not reached: "A" (the agent), "B" (the customer) or None."""
        return FAILED_PARTY.get(self.status)


@attrs.frozen
class Connections:
    """The connections of a client's pool, at one moment.

    Attributes:
        limit: how many may be open at once.
        in_use: those that are being opened or have a request under way.
        idle: those kept open for the next request.
        waiting: requests that wait for one.
    """

    limit: int
    in_use: int
    idle: int
    waiting: int


class AttemptOutcome(enum.StrEnum):
    """What became of one attempt to place a callback."""

    IN_FLIGHT = "IN_FLIGHT"
    """Under way."""
    NOT_SENT = "NOT_SENT"
    """Nothing left this machine; no phone rings. Trying again is safe."""
    PLACED = "PLACED"
    """TENIOS took it and gave it an id."""
    REFUSED = "REFUSED"
    """TENIOS answered no; no phone rings."""
    UNKNOWN = "UNKNOWN"
    """Something left, and no answer proves what became of it. A phone may ring."""


def is_async(function: Any) -> bool:
    """Whether a call of it would have to be awaited, as far as can be seen without calling it."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004  # callable, but how?


def refuse_awaitable(answer: object, complaint: str) -> None:
    """Raises `ValueError` for an answer that would have to be awaited; a coroutine is closed and warns nobody."""
    if inspect.isawaitable(answer):
        if isinstance(answer, Coroutine):
            answer.close()
        raise ValueError(complaint)


def _hook(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not callable(value):
        raise ValueError(f"{attribute.name} must be a function")
    if attribute.name == "at_send" and is_async(value):
        raise ValueError("at_send must be a plain function, which is called and not awaited")


@attrs.define(eq=False)
class CallbackAttempt:
    """Knows, after any exit of `init_callback(attempt=...)` and also after a cancellation, what became of the call.

    For one use; a second raises `ClientMisuse`.

    Attributes:
        before_send: awaited once, when a connection is in hand and not a byte has left. If it raises, nothing leaves.
        at_send: called in the very step in which the request leaves, which may be on another connection and later, and
            over httpx once more before its body. If it raises, nothing leaves that could ring a phone.
        outcome: None before use.
        callback: the callback, once PLACED.
        error: the error, once REFUSED or UNKNOWN; or why it was NOT_SENT.
    """

    before_send: Callable[[], Awaitable[None]] | None = attrs.field(default=None, repr=False, validator=_hook)
    at_send: Callable[[], None] | None = attrs.field(default=None, repr=False, kw_only=True, validator=_hook)
    outcome: AttemptOutcome | None = attrs.field(default=None, init=False)
    callback: Callback | None = attrs.field(default=None, init=False)
    error: BaseException | None = attrs.field(default=None, init=False)

    def begin(self) -> None:
        """Marks it as used. Raises `ClientMisuse` the second time."""
        if self.outcome is not None:
            raise ClientMisuse("a CallbackAttempt is for one init_callback; make a new one for each")
        self.outcome = AttemptOutcome.IN_FLIGHT

    def settle(
        self, outcome: AttemptOutcome, *, callback: Callback | None = None, error: BaseException | None = None
    ) -> None:
        """Records what became of it."""
        self.outcome, self.callback, self.error = outcome, callback, error
