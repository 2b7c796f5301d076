"""When this worker may place its next call, by the one rate limit of all workers: turns are drawn a few at a time."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import anyio

if TYPE_CHECKING:
    from tenios_async.batch.shared import Shared

LATE: Final = 0.02
"""Seconds after its moment in which a turn may be taken; later it is void, or a worker that stalled would catch up in
one burst."""
ASK_AGAIN: Final = 0.1
"""Seconds after which somebody who got no turn may ask again."""


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

    async def take(self) -> bool:
        """Returns at this caller's moment, or some time later with false: there was none, look why."""
        self._waiting += 1
        try:
            async with self._queue:
                moment = await self._next()
                if moment is None:
                    await anyio.sleep(ASK_AGAIN)
                    return False
                await anyio.sleep_until(moment)
                return True
        finally:
            self._waiting -= 1

    async def _next(self) -> float | None:
        """The next moment that is not over; None where there is none for now."""
        while self._drawn:
            if (moment := self._drawn.popleft()) >= anyio.current_time() - LATE:
                return moment
        asked = anyio.current_time()
        if (drawn := await self._shared.draw(self._waiting)) is None:
            return None
        count, first, gap = drawn
        # The database said so at some moment between the question and the answer.
        began = (asked + anyio.current_time()) / 2 + first
        self._drawn.extend(began + number * gap for number in range(count))
        return self._drawn.popleft()
