"""Spans and metrics by OpenTelemetry, made of what a client tells its observers. Needs the extra `[otel]`.

One span for each callback's life, from its placing to its end. It is the root of a trace of its own, linked to the span
that was current when the callback was placed: the request that asks for a call is over long before the call is
("Links between spans" in OpenTelemetry's specification). It is never the current span, and nothing is held between two
events. Errors are told as the conventions have it ("Recording errors"): by status and `error.type`, not as exceptions.
"""

from __future__ import annotations

import re
import time
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, assert_never

import attrs

from tenios_async import (
    AttemptOutcome,
    Callback,
    CallbackStatus,
    Connections,
    Ended,
    Event,
    Placed,
    Polled,
    TeniosClient,
    TeniosError,
    Transition,
    Transitioned,
    __version__,
    mask_number,
)

try:
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context
    from opentelemetry.metrics import Observation
    from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
except ModuleNotFoundError as _missing:
    raise ModuleNotFoundError(
        'tenios_async.otel needs OpenTelemetry\'s API: pip install "tenios_async[otel]"', name=_missing.name
    ) from None

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider
    from opentelemetry.trace import TracerProvider

SPAN = "tenios callback"
"""The name of each span."""
MAX_OPEN = 10_000
"""Spans that are open at once; one takes some kilobytes."""
FORGET_AFTER = 3600.0
"""Seconds without a poll after which nobody is thought to follow a callback any more."""
REMEMBERED = 1000
"""Callbacks whose end is remembered, so that a second watch does not tell it again."""

_OTHER = "_OTHER"  # what OpenTelemetry's conventions write for a value that is not on the list
_LIKE_A_NUMBER = re.compile(r"\+?[0-9]{7,}")
_SECONDS_OF_AN_ANSWER = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)  # HTTP's
_SECONDS_OF_A_STATE = (0.5, 1, 2, 5, 10, 15, 20, 30, 45, 60, 120, 300, 600, 1200, 1800, 3600)
_SECONDS_LATE = (0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 30, 60, 120)
_POLLS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 60, 100, 200, 500)


@attrs.define(eq=False)
class _Life:
    """A callback that is followed.

    Attributes:
        span: open until its end is seen.
        heard: when it was last heard of, or its delay ends, on the monotonic clock.
        polls: so far.
        seen: the last state.
        seen_at: when that was first seen, in seconds of its life.
    """

    span: Span
    heard: float
    polls: int = 0
    seen: CallbackStatus | None = None
    seen_at: float = 0.0


class Telemetry:
    """An observer that makes spans and metrics: `TeniosClient(observers=[Telemetry()])`. One for each client.

    A callback of which nothing is heard any more, since nobody watches it to its end, does not stay for ever: its span
    ends with `tenios.callback.forgotten`.

    Args:
        tracer_provider: None is the global one.
        meter_provider: None is the global one.
        max_open: callbacks that have an open span; where there are more, those longest not heard of are forgotten.
        forget_after: seconds without a poll, beyond a callback's delay, after which it is forgotten.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        max_open: int = MAX_OPEN,
        forget_after: float = FORGET_AFTER,
    ) -> None:
        if isinstance(max_open, bool) or not isinstance(max_open, int) or max_open < 1:
            raise ValueError("max_open must be a whole number of 1 or more")
        if not forget_after > 0:
            raise ValueError("forget_after must be a number of seconds above 0")
        self._max_open = max_open
        self._forget_after = forget_after
        self._lives: OrderedDict[str, _Life] = OrderedDict()  # the longest not heard of first
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._clients: list[weakref.ref[TeniosClient]] = []
        self._tracer = trace.get_tracer("tenios_async", __version__, tracer_provider)
        self._make_instruments(metrics.get_meter("tenios_async", __version__, meter_provider))

    def _make_instruments(self, meter: Meter) -> None:
        self._operations = meter.create_histogram(
            "tenios.client.operation.duration",
            unit="s",
            description="How long one init or one status poll took.",
            explicit_bucket_boundaries_advisory=_SECONDS_OF_AN_ANSWER,
        )
        self._placements = meter.create_counter(
            "tenios.callback.placements", unit="{callback}", description="Calls that were to be placed, by outcome."
        )
        self._endings = meter.create_counter(
            "tenios.callback.endings", unit="{callback}", description="Callbacks that ended, or whose watch did."
        )
        self._states = meter.create_histogram(
            "tenios.callback.state.duration",
            unit="s",
            description="From the first sight of a state to that of the next.",
            explicit_bucket_boundaries_advisory=_SECONDS_OF_A_STATE,
        )
        self._lateness = meter.create_histogram(
            "tenios.callback.lateness",
            unit="s",
            description="How long before it was seen a state may have begun, at most.",
            explicit_bucket_boundaries_advisory=_SECONDS_LATE,
        )
        self._polls = meter.create_histogram(
            "tenios.callback.polls",
            unit="{poll}",
            description="Polls that a callback took to its end.",
            explicit_bucket_boundaries_advisory=_POLLS,
        )
        for outcome in AttemptOutcome:
            if outcome is not AttemptOutcome.IN_FLIGHT:
                self._placements.add(0, _outcome(outcome))  # else the first of a kind is no rise of its counter
        for name, unit, tell, what in (
            ("connection.count", "{connection}", self._count, "Connections of the pool, by state."),
            ("connection.max", "{connection}", self._limit, "Connections the pool may have open."),
            ("connection.pending_requests", "{request}", self._pending, "Requests that wait for a connection."),
        ):
            meter.create_observable_up_down_counter(f"tenios.client.{name}", [tell], unit=unit, description=what)

    def __call__(self, event: Event) -> None:
        """Is told an event by the client."""
        now = time.monotonic()
        match event:
            case Placed():
                self._placed(event, now)
            case Polled():
                self._polled(event, now)
            case Transitioned(transition):
                self._transitioned(transition, now)
            case Ended():
                self._over(event)
            case unreachable:  # pyright: ignore[reportUnnecessaryComparison]
                assert_never(unreachable)
        self._forget(now)

    def observe_connections(self, client: TeniosClient) -> None:
        """Measures how much of that client's pool is in use, for as long as it is open."""
        self._clients = [ref for ref in self._clients if ref() is not None] + [weakref.ref(client)]

    def close(self) -> None:
        """Ends all spans that are open, as forgotten: what a tracer provider's shutdown would not do."""
        while self._lives:
            self._forget_first()

    def _placed(self, event: Placed, now: float) -> None:
        self._operations.record(event.seconds, {"tenios.operation.name": "init", **_error(event.error)})
        self._placements.add(1, _outcome(event.outcome))
        began = time.time_ns() - round(event.seconds * 1e9)
        span = self._begin(event.callback, began, _outcome(event.outcome), links=_current())
        if event.callback is None:
            _fail(span, event.error)
            span.end()
            return
        self._ended.pop(event.callback.key, None)
        self._keep(event.callback.key, _Life(span, now + (event.callback.delay or 0)))

    def _polled(self, event: Polled, now: float) -> None:
        self._operations.record(event.seconds, {"tenios.operation.name": "status", **_error(event.error)})
        life = self._lives.get(event.callback.key)
        if life is not None:
            life.polls += 1
            self._hear(event.callback.key, life, now)

    def _transitioned(self, transition: Transition, now: float) -> None:
        key, status = transition.callback.key, transition.status
        if key in self._ended:
            return
        life = self._lives.get(key)
        if life is None:  # placed elsewhere, or before this was an observer
            span = self._begin(transition.callback, time.time_ns(), {}, links=())
            life = self._keep(key, _Life(span, now, transition.polls))
        elif life.seen == status:  # another watch was here first
            return
        self._hear(key, life, now)
        if life.seen is not None and transition.elapsed >= life.seen_at:
            self._states.record(transition.elapsed - life.seen_at, _status(life.seen))
        life.seen, life.seen_at = status, transition.elapsed
        attributes: dict[str, Any] = {**_status(status), "tenios.callback.polls": life.polls}
        if transition.skipped:
            attributes["tenios.callback.skipped"] = [_name(state) for state in transition.skipped]
        if transition.not_before is not None:
            late = (transition.observed_at - transition.not_before).total_seconds()
            self._lateness.record(late, _status(status))
            attributes["tenios.callback.lateness"] = late
        life.span.add_event("tenios.callback.transition", attributes, _nanoseconds(transition.observed_at))

    def _over(self, event: Ended) -> None:
        key = event.callback.key
        if key in self._ended:
            return
        life = self._lives.pop(key, None)
        status = {} if event.status is None else _status(event.status)
        self._endings.add(1, {**status, **_error(event.error)})
        if event.error is None:
            self._ended[key] = None
            if len(self._ended) > REMEMBERED:
                self._ended.popitem(last=False)
        if life is None:
            return
        if event.error is None:
            self._polls.record(life.polls, status)
        life.span.set_attributes({**status, "tenios.callback.polls": life.polls})
        _fail(life.span, event.error)
        life.span.end()

    def _begin(
        self, callback: Callback | None, began: int, attributes: Mapping[str, str], *, links: Iterable[Link]
    ) -> Span:
        """A span that is a root and not the current one."""
        known: dict[str, Any] = dict(attributes)
        if callback is not None:
            if (number := callback.key).isdecimal():  # a text could be anything that somebody has sent back
                known["tenios.callback.id"] = _masked(number)
            if callback.callback_config_id is not None:
                known["tenios.callback.config_id"] = _masked(callback.callback_config_id)
            if callback.delay is not None:
                known["tenios.callback.delay"] = callback.delay
        return self._tracer.start_span(SPAN, Context(), SpanKind.INTERNAL, known, list(links), began)

    def _keep(self, key: str, life: _Life) -> _Life:
        """Remembers it, in place of the one longest not heard of where there are too many."""
        former = self._lives.pop(key, None)
        if former is not None:
            former.span.end()
        elif len(self._lives) >= self._max_open:
            self._forget_first()
        self._lives[key] = life
        return life

    def _hear(self, key: str, life: _Life, now: float) -> None:
        life.heard = max(life.heard, now)
        self._lives.move_to_end(key)

    def _forget(self, now: float) -> None:
        """Lets go of one that has been silent for too long. Each event looks at one: as many come in as can go out."""
        if not self._lives:
            return
        key, life = next(iter(self._lives.items()))
        if life.heard > now:  # its delay: whoever is behind has his turn
            self._lives.move_to_end(key)
        elif now - life.heard >= self._forget_after:
            self._forget_first()

    def _forget_first(self) -> None:
        _, life = self._lives.popitem(last=False)
        life.span.set_attribute("tenios.callback.forgotten", value=True)
        life.span.end()

    def _connections(self) -> list[Connections]:
        """Asked by a thread of the metrics SDK."""
        clients = (ref() for ref in tuple(self._clients))
        found = (client.connections for client in clients if client is not None)
        return [connections for connections in found if connections is not None]

    def _count(self, _: CallbackOptions) -> Iterable[Observation]:
        if found := self._connections():
            state = "tenios.client.connection.state"
            yield Observation(sum(one.in_use for one in found), {state: "used"})
            yield Observation(sum(one.idle for one in found), {state: "idle"})

    def _limit(self, _: CallbackOptions) -> Iterable[Observation]:
        if found := self._connections():
            yield Observation(sum(one.limit for one in found))

    def _pending(self, _: CallbackOptions) -> Iterable[Observation]:
        if found := self._connections():
            yield Observation(sum(one.waiting for one in found))


def _current() -> list[Link]:
    context = trace.get_current_span().get_span_context()
    return [Link(context)] if context.is_valid else []


def _outcome(outcome: AttemptOutcome) -> dict[str, str]:
    return {"tenios.callback.outcome": outcome.value}


def _name(status: CallbackStatus) -> str:
    """A state of the list: metrics have few, and what else is answered could be anything."""
    return str(status) if status.is_known else _OTHER


def _status(status: CallbackStatus) -> dict[str, str]:
    return {"tenios.callback.status": _name(status)}


def _error(error: TeniosError | None) -> dict[str, str]:
    return {} if error is None else {"error.type": type(error).__name__}


def _fail(span: Span, error: TeniosError | None) -> None:
    if error is None:
        return
    span.set_attributes(_error(error))
    status_code = getattr(error, "status_code", None)
    if status_code is not None:
        span.set_attribute("http.response.status_code", status_code)
    span.set_status(Status(StatusCode.ERROR, str(error)))


def _masked(text: str) -> str:
    return _LIKE_A_NUMBER.sub(lambda found: mask_number(found[0]), text)


def _nanoseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1e9)
