"""When a phone may begin to ring, by the wall clock of a place. Pure."""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = 24 * 60
_RANGE = re.compile(r"(\d{1,2})(?::(\d{2}))?\s*-\s*(\d{1,2})(?::(\d{2}))?")
_PART = re.compile(r"(?:(?P<days>[a-z][a-z,\s-]*?)\s+)?(?P<ranges>\d[\d:,\s-]*)")
_LOOK_AHEAD = 15
"""Days: two weeks, since the one hour a week that is open may be the one that the clocks skip."""


@attrs.frozen
class Hours:
    """Hours of the week, in one time zone. Made by `parse`.

    Attributes:
        windows: day of the week (0 is Monday), first minute of that day, and the minute after the last; a window over
            midnight ends beyond 1440.
        zone: where.
        text: as they were written.
    """

    windows: frozenset[tuple[int, int, int]]
    zone: ZoneInfo
    text: str = attrs.field(eq=False)

    @classmethod
    def parse(cls, text: str, *, tz: str) -> Hours:
        """Hours such as `9-18`, `9:30-12,13-18`, `22-6` or `Mon-Fri 9-18; Sat 10-14`.

        Args:
            text: the hours; without days they hold on all of them.
            tz: a zone of the time zone database, for instance `Europe/Berlin`.

        Raises `ValueError` for what cannot be read.
        """
        windows = frozenset(window for part in text.lower().split(";") for window in _windows(part))
        return cls(windows, time_zone(tz), text)

    def is_open(self, at: datetime) -> bool:
        """Whether a phone may begin to ring at that moment (aware)."""
        local = at.astimezone(self.zone)
        minute = local.hour * 60 + local.minute
        return any(
            first <= minute + ago * _DAY < end
            for day, first, end in self.windows
            for ago in (0, 1)
            if day == (local.weekday() - ago) % 7
        )

    def opens_at(self, at: datetime) -> datetime:
        """The first moment from `at` on that is open, to the minute, in the zone of the hours."""
        moment = at.astimezone(UTC)
        if not self.is_open(moment):
            moment = _next_opening(self, moment.replace(second=0, microsecond=0))
        return moment.astimezone(self.zone)


@functools.lru_cache(maxsize=256)
def _next_opening(hours: Hours, minute: datetime) -> datetime:
    """The first minute of UTC, from this one on, that is open. Whoever waits for it asks again and again."""
    end = minute + timedelta(days=_LOOK_AHEAD)
    while not hours.is_open(minute):
        minute += timedelta(minutes=1)
        if minute > end:
            raise ValueError("these hours are never open")
    return minute


def _windows(part: str) -> Iterator[tuple[int, int, int]]:
    found = _PART.fullmatch(part.strip())
    if not found:
        raise ValueError(f"{part.strip()!r} are no hours; write for instance 9-18, or Mon-Fri 9-18; Sat 10-14")
    for text in found["ranges"].split(","):
        ends = _RANGE.fullmatch(text.strip())
        if not ends:
            raise ValueError(f"{text.strip()!r} is no time from-to, such as 9-18 or 9:30-18:00")
        first, last = _minute(ends[1], ends[2]), _minute(ends[3], ends[4])
        if first in (last, _DAY):
            raise ValueError(f"{text.strip()!r} has no beginning, or ends as it begins; 0-24 is the whole day")
        for day in _days(found["days"]):
            yield day, first, last if last > first else last + _DAY


def _minute(hour: str, minute: str | None) -> int:
    total = int(hour) * 60 + int(minute or 0)
    if int(minute or 0) >= 60 or total > _DAY:  # noqa: PLR2004
        raise ValueError(f"there is no time {hour}:{minute or '00'}")
    return total


def _days(text: str | None) -> list[int]:
    if text is None:
        return list(range(7))
    days: list[int] = []
    for item in text.split(","):
        first, _, last = (name.strip() for name in item.partition("-"))
        if first not in _DAYS or (last or first) not in _DAYS:
            raise ValueError(f"{item.strip()!r} is no day; days are {', '.join(day.title() for day in _DAYS)}")
        begin = _DAYS.index(first)
        days += [(begin + offset) % 7 for offset in range((_DAYS.index(last or first) - begin) % 7 + 1)]
    return days


def time_zone(tz: str) -> ZoneInfo:
    """The zone of this name. Raises `ValueError` where there is none."""
    try:
        return ZoneInfo(tz)
    except (KeyError, ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError
        raise ValueError(
            f"there is no time zone {tz!r}; write for instance Europe/Berlin (Windows needs `pip install tzdata`)"
        ) from None
