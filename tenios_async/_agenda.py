"""What is to be done when, in the order of time, for as many entries as there may be.

A heap of a hundred thousand does not fit in a processor's cache, and whatever is taken from it goes through all of its
levels. So time is cut into short pieces, as in a calendar queue (R. Brown, CACM 31, 1988): an entry is only filed
under its piece, and each piece is sorted when its turn comes.
"""

from __future__ import annotations

import math
from bisect import insort_left
from heapq import heappop, heappush
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

Entry: TypeAlias = list[Any]
"""When, in seconds from 0; and whatever belongs to it."""

PIECES = 16
"""In a second: of a hundred thousand that are each due within some ten seconds, a few hundred are in one."""

_due = itemgetter(0)


class Agenda:
    """Entries by when they are due; of those due at one instant, that which was added first comes first."""

    __slots__ = ("_next", "_order", "_pieces", "_sorted")

    def __init__(self) -> None:
        self._pieces: dict[float, list[Entry]] = {}  # none is empty
        self._order: list[float] = []  # a heap, of all of them
        self._sorted: set[float] = set()  # those whose turn has come: what is due first stands last
        self._next: list[Entry] = []  # the first of them, if it is sorted; else empty

    def __iter__(self) -> Iterator[Entry]:
        """All of them, piece by piece; of those due at one instant, that which was added first comes first."""
        for piece in sorted(self._pieces):
            entries = self._pieces[piece]
            yield from reversed(entries) if piece in self._sorted else entries

    def add(self, entry: Entry, due: float) -> None:
        """Files one more, whose first item this becomes and stays."""
        entry[0] = due
        try:
            piece: float = int(due * PIECES)
        except OverflowError:  # never
            piece = math.inf
        if (entries := self._pieces.get(piece)) is None:
            self._pieces[piece] = [entry]
            heappush(self._order, piece)
            if self._order[0] == piece:
                self._next = []
        elif piece in self._sorted:
            insort_left(entries, entry, key=lambda other: -other[0])
        else:
            entries.append(entry)

    def first(self) -> Entry | None:
        """What is due before all others; it stays."""
        if not self._next:
            if not self._order:
                return None
            piece = self._order[0]
            self._next = self._pieces[piece]
            if piece not in self._sorted:
                self._next.sort(key=_due)
                self._next.reverse()
                self._sorted.add(piece)
        return self._next[-1]

    def pop(self) -> None:
        """Takes out what `first` has just given."""
        self._next.pop()
        if not self._next:
            piece = heappop(self._order)
            del self._pieces[piece]
            self._sorted.remove(piece)
