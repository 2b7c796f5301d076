"""Many callbacks followed at once: one agenda of next looks, no task for each, a bounded number of polls in flight."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import attrs

from tenios_async._agenda import Agenda
from tenios_async._errors import ApiError, ClientMisuse, WatchInterrupted
from tenios_async._events import Ended, Transitioned
from tenios_async._lifecycle import CallbackStatus
from tenios_async._limits import SLOW_DOWN
from tenios_async._models import Transition, as_callback
from tenios_async._rooms import running_asyncio_loop
from tenios_async._watch import RESOLUTION, Emit, Poll, Sleep, WatchMachine

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine, Iterable
    from types import TracebackType
    from typing import Self

    from tenios_async._client import TeniosClient
    from tenios_async._models import Callback
    from tenios_async._polling import Polling
    from tenios_async._watch import CameBack

Result: TypeAlias = Transition | WatchInterrupted
Look: TypeAlias = list[Any]
"""When, and whose. That of a callback is in the agenda or in flight, never both, and is used again: where so much
is new the garbage collector goes through all there is, and a hundred thousand callbacks would wait for that."""

RESTRETCH = 1.25
"""By what factor the stretch must have changed before looks that are waiting are moved: each time moves all of them."""
SOONER = 1.5
"""By what factor they are moved up further than to where the first is due, at most at once: all that are due wait."""
UNKNOWN_COUNTS = 0.5
"""How much a callback that was never looked at counts as, of what the others ask for on average: it asks for one look.

Fewer, and where many are added at once those seen first wait for the others; more, and first looks come too early."""
HEADROOM = 0.95
"""Of the rate limit that is planned with, so that looks which are late catch up."""
QUEUED_AHEAD = 2.0
"""Seconds' worth of looks that may wait for a turn under the rate limit; the others wait here, where order is kept."""
AT_ONCE = 32
"""Looks begun at one moment after which those that are only nearly due wait: a busy monitor needs no more company."""
RECONSIDER = 1.0
"""Seconds after which a stretch is reckoned anew where no look comes back sooner: the rate may have recovered."""


class CallbackMonitor(AsyncIterator[Result]):
    """Follows many callbacks: `async with tenios.monitor() as monitor`, `add` them, and `async for` over what happens.

    It yields each `Transition`, and a `WatchInterrupted` where a watch would raise it; those of one callback in order.
    It ends once it is sealed and every callback has ended. A slow reader slows the polls and loses nothing. Under the
    client's rate limit all intervals grow by one common factor, so that looks go where they are worth most. For
    asyncio. Made by `TeniosClient.monitor`.
    """

    def __init__(self, client: TeniosClient, polling: Polling, max_in_flight: int) -> None:
        self._client = client
        self._polling = polling
        self._max_in_flight = max_in_flight
        self._open: dict[str, WatchMachine] = {}
        self._looks = Agenda()  # that of a discarded callback is void
        self._voided = 0  # how many were discarded since those were last let go of
        self._results: deque[Result] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._reader: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._time: Callable[[], float]
        self._call_at: Callable[[float, Callable[[], None]], asyncio.TimerHandle]
        self._create_task: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
        self._current_task: Callable[[], Any]
        self._is_sealed = False
        self._is_over = False
        self._failure: BaseException | None = None
        self._stretch = self._stretch_of_all = 1.0
        self._is_limited = False
        self._held_until = -math.inf  # by a Retry-After
        # Of those that were looked at: how many, and how many looks a second at them, were nothing stretched.
        self._known, self._known_demand = 0, 0.0

    def __len__(self) -> int:
        """How many callbacks are followed still."""
        return len(self._open)

    @property
    def callbacks(self) -> tuple[Callback, ...]:
        """The resume tokens of all whose end was not yielded yet, as of the last transition that was."""
        tokens = {key: machine.callback for key, machine in self._open.items()}
        for result in reversed(self._results):
            tokens[result.callback.key] = _before(result)
        return tuple(tokens.values())

    def add(self, callback: Callback | int | str, *, timeout: float | None = None) -> None:
        """Follows one more, from now on.

        Args:
            callback: a `Callback`, its id, or `Callback.from_json(token)` to go on where another watch stopped.
            timeout: seconds; None is the callback's delay and 2 hours; `math.inf` is none.

        Raises `ValueError` for one that is followed already, and `ClientMisuse` once sealed, in another thread, on
        another event loop and in a forked child.
        """
        now = self._home().time()
        machine = self._client._machine(as_callback(callback), self._polling, timeout, now)  # noqa: SLF001
        if self._is_sealed or self._is_over:
            raise ClientMisuse("the monitor is sealed or over; it takes no further callbacks")
        key = machine.callback.key
        if key in self._open:
            raise ValueError(f"callback {key} is followed already")
        self._open[key] = machine
        self._looks.add([now, machine], machine.restretch(self._stretch))
        self._dispatch()

    def discard(self, callback: Callback | int | str) -> Callback | None:
        """Follows it no longer; nothing of it is yielded any more. Gives its resume token, None if it was not followed.

        May be called at any time, also while it is being asked for.
        """
        self._home()
        key = as_callback(callback).key
        unread = [result for result in self._results if result.callback.key == key]
        machine = self._open.pop(key, None)
        if machine is not None:
            machine.close()
            self._voided += 1
            self._sweep()
            self._count(machine, -1)
        if unread:
            self._results = deque(result for result in self._results if result.callback.key != key)
        self._dispatch()
        self._wake()
        return _before(unread[0]) if unread else None if machine is None else machine.callback

    def seal(self) -> None:
        """Says that no callback will be added any more: the iteration ends when the last has ended."""
        if self._loop is not None:
            self._home()
        self._is_sealed = True
        self._wake()

    async def __aenter__(self) -> Self:
        if self._loop is not None:
            raise ClientMisuse("a monitor is for one use; make a new one")
        self._client._open()  # noqa: SLF001
        self._is_limited = self._client._rate() < math.inf  # noqa: SLF001
        self._loop, self._current_task = _asyncio()
        self._time, self._call_at, self._create_task = self._loop.time, self._loop.call_at, self._loop.create_task
        self._client._monitors.add(self)  # noqa: SLF001
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        import asyncio  # noqa: PLC0415  # whose import costs more than all of this library

        self._is_over = True
        self._client._monitors.discard(self)  # noqa: SLF001
        if self._alarm is not None:
            self._alarm.cancel()
        self._wake()
        for worker in self._workers:
            worker.cancel()
        if self._workers:
            with anyio.CancelScope(shield=True):
                await asyncio.wait(self._workers)

    def __aiter__(self) -> CallbackMonitor:
        return self

    async def __anext__(self) -> Result:
        loop = self._home()
        if self._reader is not None:
            raise ClientMisuse("this monitor is being awaited already; one anext at a time")
        while not self._results:
            if self._failure is not None:
                raise self._failure
            if self._is_over or (self._is_sealed and not self._open):
                raise StopAsyncIteration
            self._reader = loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        if self._is_over:
            raise StopAsyncIteration
        result = self._results.popleft()
        if len(self._results) == self._max_in_flight - 1:
            self._dispatch()
        return result

    def _follows(self, machine: WatchMachine) -> bool:
        """Whether it was not discarded, and perhaps added anew."""
        return self._open.get(machine.callback.key) is machine

    def _home(self) -> asyncio.AbstractEventLoop:
        """The loop on which it was opened, for who asks there: from elsewhere nothing would wake it."""
        if self._loop is None:
            raise ClientMisuse("use a monitor as `async with tenios.monitor() as monitor`")
        if running_asyncio_loop() is not self._loop:  # another thread and a forked child have none
            self._client._check_open()  # noqa: SLF001  # says more of a forked child
            raise ClientMisuse(
                "the monitor was opened on another event loop, and this may be another thread; nothing was done."
                " Use it on its loop (from a thread: loop.call_soon_threadsafe)"
            )
        return self._loop

    def _go_on(self, look: Look, now: float, came_back: CameBack = None) -> Poll | None:
        """The next step of one callback, with what a look brought; the poll to make now, or None."""
        machine: WatchMachine = look[1]
        if self._is_limited:
            machine.stretch = self._stretch
            self._count(machine, -1)
        action = machine.step(now, came_back)
        if self._is_limited:
            self._count(machine, +1)  # before anybody is told, who may discard it
        if isinstance(action, Poll):
            return action
        if isinstance(action, Sleep):
            self._looks.add(look, action.until)
            return None
        if isinstance(action, Emit):
            self._tell_of(action.transition)
            return self._go_on(look, now)
        self._end(machine, action.error)
        return None

    def _sweep(self) -> None:
        """Lets go of the looks of discarded callbacks, once they may be most of all."""
        if self._voided > len(self._open) + self._max_in_flight:
            self._voided = 0
            self._file((look, look[0]) for look in self._looks if self._follows(look[1]))

    def _file(self, looks: Iterable[tuple[Look, float]]) -> None:
        """Makes these all there are, due then."""
        agenda = Agenda()
        for look, due in looks:
            agenda.add(look, due)
        self._looks = agenda

    def _tell_of(self, transition: Transition) -> None:
        self._results.append(transition)
        self._client._tell(Transitioned(transition))  # noqa: SLF001
        if transition.is_terminal:
            self._client._tell(Ended(transition.callback, transition.status, None))  # noqa: SLF001
        self._wake()

    def _end(self, machine: WatchMachine, error: WatchInterrupted | None) -> None:
        if not self._follows(machine):
            return
        del self._open[machine.callback.key]
        self._count(machine, -1)
        if error is not None:
            error.__cause__ = error.cause
            self._results.append(error)
            self._client._tell(Ended(machine.callback, machine.callback.status, error))  # noqa: SLF001
        self._wake()

    def _client_closed(self) -> None:
        """Ends all that are open: no look will come back any more."""
        error = ClientMisuse("the client is closed; the token resumes the watch on another")
        for machine in tuple(self._open.values()):
            self._go_on([0.0, machine], self._time(), error)

    def _wake(self) -> None:
        """Lets the reader see what has changed."""
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _set_alarm(self, due: float) -> None:
        if self._stretch_of_all > 1:
            due = min(due, self._time() + RECONSIDER)
        if self._alarm is not None:
            if 0 <= due - self._alarm.when() < RESOLUTION:
                return
            self._alarm.cancel()
        self._alarm = self._call_at(due, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self._is_limited:
            self._adapt()
        self._dispatch()

    def _dispatch(self) -> None:
        """Begins the looks that are due, as far as there is room, and some that are nearly due with them.

        Together they cost little more than one, and are answered together. An answer is no such moment: what it found
        nearly due would go out alone, and the answer to that come alone again.
        """
        begun, now = 0, self._time()
        while len(self._workers) < self._room() and (taken := self._take(now, early=begun < AT_ONCE)) is not None:
            task = self._create_task(self._work(*taken))
            if not task.done():  # as one may be at once by `asyncio.eager_task_factory`
                self._workers.add(task)
            begun += 1

    def _take(self, now: float, *, early: bool = False) -> tuple[Look, Poll] | None:
        """The look that is due first, or where `early` is nearly due; None where nobody reads what comes of one."""
        is_held = self._held_until - now >= RESOLUTION
        early = early and not (is_held or self._is_limited)
        while len(self._results) < self._max_in_flight and not (self._is_over or self._failure):
            if (look := self._looks.first()) is None:
                return None
            due = look[0]
            if due - now >= RESOLUTION and not (early and due - now <= look[1].slack):
                self._set_alarm(due)
                return None
            self._looks.pop()
            due = due if due > now else now  # noqa: FURB136  # max() takes longer, and each look comes here
            if (poll := self._go_on(look, due)) is not None:
                if not is_held:
                    return look, poll
                self._looks.add(look, min(self._held_until, due + poll.patience))
        return None

    async def _work(self, look: Look, poll: Poll) -> None:
        """Makes one look after another for as long as any is due."""
        taken: tuple[Look, Poll] | None = (look, poll)
        try:
            while taken is not None:
                look, poll = taken
                try:
                    came_back = await self._client._look(look[1].callback, poll)  # noqa: SLF001
                except BaseException:  # cancelled, perhaps with the whole loop: the look remains, and no alarm is set
                    self._looks.add(look, self._time())
                    raise
                now = self._time()
                if not isinstance(came_back, CallbackStatus):
                    self._obey(came_back, now)
                if self._go_on(look, now, came_back) is not None:
                    self._looks.add(look, now)  # due again at once, but after those that were due before
                if self._is_limited:
                    self._adapt()
                taken = self._take(now)
        except Exception as failure:  # the reader is told
            self._failure = failure
            self._wake()
        finally:
            # Not by a callback of the task, which would be a turn of the loop for each look.
            self._workers.discard(self._current_task())

    def _obey(self, came_back: CameBack, now: float) -> None:
        """Holds all looks where TENIOS says so. Under a rate limit all requests are held, and not here."""
        if isinstance(came_back, ApiError) and came_back.status_code in SLOW_DOWN and not self._is_limited:
            self._held_until = max(self._held_until, now + (came_back.retry_after or 0.0))

    def _room(self) -> int:
        """How many looks may be under way."""
        if not self._is_limited:
            return self._max_in_flight
        rate = self._client._rate()  # noqa: SLF001
        return max(1, min(self._max_in_flight, math.ceil(rate * QUEUED_AHEAD)))

    @property
    def _demand(self) -> float:
        """Looks a second, were nothing stretched. Those never looked at are reckoned by the others."""
        unknown = len(self._open) - self._known
        return self._known_demand * (1 + UNKNOWN_COUNTS * unknown / self._known) if self._known else 0.0

    def _count(self, machine: WatchMachine, sign: int) -> None:
        """Adds what one callback asks for, or takes it out again."""
        if self._is_limited and machine.wait > RESOLUTION:
            self._known += sign
            self._known_demand += sign / machine.wait

    def _adapt(self) -> None:
        """Stretches all intervals by what the demand is larger than the rate limit allows: its shadow price."""
        rate = self._client._rate(for_looks=True)  # noqa: SLF001
        stretch = max(1.0, self._client._demand() / (HEADROOM * rate))  # noqa: SLF001
        now = self._time()
        look = self._looks.first()
        if stretch < self._stretch and look is not None and look[0] < now - 1 / rate:
            return  # looks are waiting: none is moved up before they had their turn
        if stretch < self._stretch_of_all / RESTRETCH:
            # Not so far at once that many are due long since: those would have to wait for each other.
            first = max((look[1].due_at_stretch(now) for look in self._looks), default=0.0)
            stretch = max(stretch, min(self._stretch, first / SOONER))
        self._stretch = stretch
        if 1 / RESTRETCH < self._stretch / self._stretch_of_all < RESTRETCH:
            return
        self._stretch_of_all = self._stretch
        self._file((look, look[1].restretch(self._stretch)) for look in self._looks)
        if (look := self._looks.first()) is not None:
            self._set_alarm(look[0])


def _before(result: Result) -> Callback:
    """The resume token by which this result would be told again."""
    if isinstance(result, Transition):
        return attrs.evolve(result.callback, status=result.previous)
    return result.callback


def _asyncio() -> tuple[asyncio.AbstractEventLoop, Callable[[], Any]]:
    loop = running_asyncio_loop()
    if loop is None:
        raise ClientMisuse("a monitor needs asyncio; on trio, start a watch for each callback")
    from asyncio import current_task  # noqa: PLC0415  # whose import costs more than all of this library

    return loop, current_task
