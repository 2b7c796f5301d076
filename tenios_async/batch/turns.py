"""When this worker may place its next call, by the one rate limit of all workers: turns are drawn a few at a time."""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio

from tenios_async.batch.controls import given_back

if TYPE_CHECKING:
    from tenios_async.batch.shared import Shared

LATE: Final = 0.02
"""Seconds after its moment in which a turn may be taken; later it is void, or whoever stalled would catch up in a
burst."""
LATE_OF_GAP: Final = 0.05
"""Of the seconds between two turns, likewise where that is more: at one call a minute nobody minds."""
ASK_AGAIN: Final = 0.1
"""Seconds after which somebody who got no turn may ask again."""
LONGEST_LEAD: Final = 0.4
"""Seconds before its moment at which a call is begun at the most: the intent must be written when the moment comes."""
FADING: Final = 0.95
"""Of the lead, with each call whose intent took less."""
TRUSTED: Final = 60.0
"""Seconds for which it is remembered how far the clock of the database is ahead."""
AFTER_INTENT: Final = 3.0
"""Seconds for which a call whose intent is written waits for another turn, if its own has passed meanwhile."""


class Turn(NamedTuple):
    """When a call may be placed.

    Attributes:
        moment: when it must be begun, on the clock here; infinite where it may be at any time.
        limit: the number of the limit it counts towards.
    """

    moment: float
    limit: int


class Turns:
    """The turns of one worker.

    Args:
        shared: gives them out.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._queue = anyio.Lock()
        self._drawn: deque[Turn] = deque()
        self._waiting = 0
        self._voided: Counter[int] = Counter()
        self._is_handing_out = False
        self._lead = 0.0
        self._late = LATE
        self._clock = _Clock()

    @property
    def is_holding(self) -> bool:
        """Whether there are turns that are drawn, or about to be, and were neither handed out nor given back."""
        return self._is_handing_out or bool(self._drawn) or bool(self._voided)

    async def take(self) -> Turn | None:
        """This caller's turn, when its call must be begun. None some time later: there was no turn, look why."""
        self._waiting += 1
        try:
            async with self._queue:
                turn = await self._hand_out()
                if turn is None:
                    await anyio.sleep(ASK_AGAIN)
                return turn
        finally:
            self._waiting -= 1

    async def arrive(self, turn: Turn, began: float) -> Turn | None:
        """Returns at the moment of that turn, or where it has passed of another; None where there was none.

        Args:
            turn: what `take` gave.
            began: when the call was begun whose intent is written now.
        """
        now = anyio.current_time()
        give_up = now + AFTER_INTENT
        self._lead = min(max(now - began, self._lead * FADING), LONGEST_LEAD)
        found: Turn | None = turn
        while found is None or not await self._is_at(found.moment):
            if found is not None:
                self._void(found)
            if anyio.current_time() > give_up:
                await self._give_back()
                return None
            async with self._queue:
                if (found := await self._next()) is None:
                    await anyio.sleep(ASK_AGAIN)
        return found

    async def tidy(self) -> None:
        """Gives back what nobody waits for any more."""
        if not self._waiting:
            self._void(*self._drawn)
            self._drawn.clear()
        await self._give_back()

    def _void(self, *turns: Turn) -> None:
        self._voided.update(turn.limit for turn in turns)

    async def _hand_out(self) -> Turn | None:
        self._is_handing_out = True
        try:
            turn = await self._next()
            if turn is not None and turn.moment < math.inf:
                await self._lead_up_to(turn)
            return turn
        finally:
            self._is_handing_out = False

    async def _lead_up_to(self, turn: Turn) -> None:
        try:
            await anyio.sleep_until(turn.moment - self._lead)
        except BaseException:  # whoever waited is gone
            self._void(turn)
            raise

    async def _is_at(self, moment: float) -> bool:
        """Waits for it; whether it was not missed."""
        if math.isinf(moment):
            return True
        await anyio.sleep_until(moment)
        return anyio.current_time() - moment <= self._late

    async def _next(self) -> Turn | None:
        """The next whose moment is not over; None where there is none for now."""
        while True:
            while self._drawn:
                if (turn := self._drawn.popleft()).moment >= anyio.current_time() - self._late:
                    return turn
                self._void(turn)
            await self._give_back()
            asked = anyio.current_time()
            if (drawn := await self._shared.draw(max(1, self._waiting))) is None:
                return None
            count, first, gap, now, limit = drawn
            self._clock.told(asked, anyio.current_time(), now)
            if not gap:  # there is a limit and no rate: one moment is as good as another
                self._drawn.extend([Turn(math.inf, limit)] * count)
                continue
            self._late = max(LATE, LATE_OF_GAP * gap)
            began = self._clock.here(first)
            self._drawn.extend(Turn(began + number * gap, limit) for number in range(count))

    async def _give_back(self) -> None:
        """What was not used does not count towards a limit."""
        while self._voided:
            limit, count = self._voided.popitem()
            await self._shared.change(given_back(count, limit))


class _Clock:
    """That of the database, as seen from here: as it was when the answer came fastest, as NTP does it (RFC 5905)."""

    def __init__(self) -> None:
        self._took = math.inf
        self._at = -math.inf
        self._ahead = 0.0

    def told(self, asked: float, answered: float, theirs: float) -> None:
        """The database said `theirs` at some moment between the question and the answer.

        Whatever contradicts that is believed no more: a clock was set, or this machine was suspended.
        """
        is_wrong = not asked <= self.here(theirs) <= answered
        if is_wrong or answered - asked <= self._took or answered - self._at > TRUSTED:
            self._took, self._at, self._ahead = answered - asked, answered, theirs - (asked + answered) / 2

    def here(self, theirs: float) -> float:
        """A moment of the database's clock on the one here."""
        return theirs - self._ahead
