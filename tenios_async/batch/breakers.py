"""When placing stops by itself: too many calls of which nobody knows what became of them."""

from __future__ import annotations

from collections import deque

from tenios_async.batch.arguments import check_max_unknown

IN_A_ROW = 10
"""Calls in doubt, one after another."""
WINDOW = 500
"""The calls that the share is taken of."""


class Breaker:
    """Counts calls that are in doubt.

    Args:
        max_unknown: the share of the last 500 calls that may be in doubt, from 0 to 1.

    Raises `ValueError` for a share that is none.
    """

    def __init__(self, max_unknown: float = 0.05) -> None:
        check_max_unknown(max_unknown)
        self._allowed = max_unknown * WINDOW
        self._last: deque[bool] = deque(maxlen=WINDOW)
        self._in_a_row = 0

    def note(self, *, is_unknown: bool) -> str | None:
        """Counts one more call; gives what is wrong once placing should stop."""
        self._last.append(is_unknown)
        self._in_a_row = self._in_a_row + 1 if is_unknown else 0
        if self._in_a_row >= IN_A_ROW:
            return f"nobody knows what became of the last {self._in_a_row} calls"
        if (unknown := sum(self._last) if is_unknown else 0) > self._allowed:
            return f"nobody knows what became of {unknown} of the last {len(self._last)} calls"
        return None
