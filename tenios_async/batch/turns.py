"""When this worker may place its next call, by the one rate limit of all workers: turns are drawn a few at a time."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

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


class Turns:
    """The turns of one worker.

    Args:
        shared: gives them out.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._queue = anyio.Lock()
        self._drawn: deque[float] = deque()
        self._waiting = 0
        self._voided = 0
        self._is_handing_out = False
        self._lead = 0.0
        self._late = LATE
        self._clock = _Clock()

    @property
    def is_holding(self) -> bool:
        """Whether there are turns that are drawn, or about to be, and were neither handed out nor given back."""
        return self._is_handing_out or bool(self._drawn) or self._voided > 0

    async def take(self) -> float | None:
        """The moment of this caller's turn, when its call must be begun. Infinite: it may leave at once.

        None some time later: there was no turn, look why.
        """
        self._waiting += 1
        try:
            async with self._queue:
                moment = await self._hand_out()
                if moment is None:
                    await anyio.sleep(ASK_AGAIN)
                return moment
        finally:
            self._waiting -= 1

    async def arrive(self, moment: float, began: float) -> bool:
        """Returns at that moment, or where it has passed at that of another turn; false where there was none.

        Args:
            moment: what `take` gave.
            began: when the call was begun whose intent is written now.
        """
        now = anyio.current_time()
        give_up = now + AFTER_INTENT
        self._lead = min(max(now - began, self._lead * FADING), LONGEST_LEAD)
        found: float | None = moment
        while found is None or not await self._is_at(found):
            self._voided += found is not None
            if anyio.current_time() > give_up:
                await self._give_back()
                return False
            async with self._queue:
                if (found := await self._next()) is None:
                    await anyio.sleep(ASK_AGAIN)
        return True

    async def tidy(self) -> None:
        """Gives back what nobody waits for any more."""
        if not self._waiting:
            self._voided += len(self._drawn)
            self._drawn.clear()
        await self._give_back()

    async def _hand_out(self) -> float | None:
        self._is_handing_out = True
        try:
            moment = await self._next()
            if moment is not None and moment < math.inf:
                await self._lead_up_to(moment)
            return moment
        finally:
            self._is_handing_out = False

    async def _lead_up_to(self, moment: float) -> None:
        try:
            await anyio.sleep_until(moment - self._lead)
        except BaseException:  # whoever waited is gone
            self._voided += 1
            raise

    async def _is_at(self, moment: float) -> bool:
        """Waits for it; whether it was not missed."""
        if math.isinf(moment):
            return True
        await anyio.sleep_until(moment)
        return anyio.current_time() - moment <= self._late

    async def _next(self) -> float | None:
        """The next moment that is not over; None where there is none for now."""
        while True:
            while self._drawn:
                if (moment := self._drawn.popleft()) >= anyio.current_time() - self._late:
                    return moment
                self._voided += 1
            await self._give_back()
            asked = anyio.current_time()
            if (drawn := await self._shared.draw(max(1, self._waiting))) is None:
                return None
            count, first, gap, now = drawn
            self._clock.told(asked, anyio.current_time(), now)
            if not gap:  # there is a limit and no rate: one moment is as good as another
                self._drawn.extend([math.inf] * count)
                continue
            self._late = max(LATE, LATE_OF_GAP * gap)
            began = self._clock.here(first)
            self._drawn.extend(began + number * gap for number in range(count))

    async def _give_back(self) -> None:
        """What was not used does not count towards a limit."""
        if self._voided:
            voided, self._voided = self._voided, 0
            await self._shared.change(given_back(voided))


class _Clock:
    """That of the database, as seen from here: as it was when the answer came fastest, as NTP does it (RFC 5905)."""

    def __init__(self) -> None:
        self._took = math.inf
        self._at = -math.inf
        self._ahead = 0.0

    def told(self, asked: float, answered: float, theirs: float) -> None:
        """The database said `theirs` at some moment between the question and the answer."""
        if answered - asked <= self._took or answered - self._at > TRUSTED:
            self._took, self._at, self._ahead = answered - asked, answered, theirs - (asked + answered) / 2

    def here(self, theirs: float) -> float:
        """A moment of the database's clock on the one here."""
        return theirs - self._ahead
