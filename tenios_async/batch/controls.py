"""What holds for all workers of a campaign alike: it stands in the ledger, and may be changed while they work."""

from __future__ import annotations

import math
from typing import Any, Final

import attrs

from tenios_async.batch.arguments import check_limit, check_max_unknown, check_rate
from tenios_async.batch.hours import Hours

AHEAD: Final = 0.1
"""Seconds' worth of turns that one worker draws at once."""
HORIZON: Final = 0.5
"""Seconds ahead of the present in which turns are given out; so soon a change is felt."""


@attrs.frozen
class Controls:
    """How a campaign is worked at present.

    Attributes:
        rate: calls placed a second, evenly spaced over all workers.
        turns_left: calls that may be placed yet; infinite without a limit.
        is_paused: nothing is placed for the moment.
        stopped: why nothing is placed any more, or None.
        hours: when a phone may begin to ring; None is always.
        max_unknown: the share of the last 500 calls that may be in doubt.
        pause: seconds for which TENIOS has asked to be left alone.
    """

    rate: float = math.inf
    turns_left: float = math.inf
    is_paused: bool = False
    stopped: str | None = None
    hours: Hours | None = None
    max_unknown: float = 0.05
    pause: float = 0.0

    @property
    def is_metered(self) -> bool:
        """Whether a call needs a turn of its own."""
        return self.rate < math.inf or self.turns_left < math.inf


READ: Final = """
SELECT coalesce(rate, 'Infinity'), coalesce(turns_left, 'Infinity'::float8), is_paused, stopped, hours, zone,
    max_unknown, greatest(0, extract(epoch FROM pause_ends - clock_timestamp()))::float8
FROM controls
"""


def controls_of(columns: tuple[Any, ...]) -> Controls:
    """What `READ` gave."""
    rate, turns_left, is_paused, stopped, hours, zone, max_unknown, pause = columns
    parsed = None if hours is None else Hours.parse(hours, tz=zone)
    return Controls(rate, turns_left, is_paused, stopped, parsed, max_unknown, pause)


_GRANTED: Final = "least(%(wanted)s, greatest(1, trunc(coalesce(rate * %(ahead)s, %(wanted)s))), turns_left)"
_FIRST: Final = "greatest(next_turn, clock_timestamp())"
DRAW: Final = f"""
UPDATE controls SET
    granted = {_GRANTED},
    first_turn = {_FIRST},
    next_turn = {_FIRST} + make_interval(secs => coalesce({_GRANTED} / rate, 0)),
    turns_left = turns_left - {_GRANTED}
WHERE NOT is_paused AND stopped IS NULL AND coalesce(turns_left, 1) > 0 AND pause_ends <= clock_timestamp()
    AND next_turn <= clock_timestamp() + make_interval(secs => %(horizon)s)
RETURNING granted, extract(epoch FROM first_turn)::float8, coalesce(1 / rate, 0)::float8,
    extract(epoch FROM clock_timestamp())::float8, limits
"""  # noqa: S608  # our own words
"""The generic cell rate algorithm (ITU-T I.371) without a burst, over all workers: one row, one statement.

Gives how many turns, when the first is, the seconds between two, the present, by the clock of the database, and the
number of the limit they count towards.
"""


@attrs.frozen
class Setting:
    """A change of the controls.

    Attributes:
        statement: of SQL.
        values: its own.
        adds: whether twice is more than once.
    """

    statement: str
    values: tuple[Any, ...] = ()
    adds: bool = False


def at_rate(rate: float) -> Setting:
    """Calls a second from now on; infinite is without a limit. Raises `ValueError`."""
    check_rate(rate)
    # What an earlier, slower rate has put far ahead does not keep anybody waiting.
    statement = "UPDATE controls SET rate = %s, next_turn = least(next_turn, clock_timestamp())"
    return Setting(statement, (None if math.isinf(rate) else rate,))


def with_limit(limit: float) -> Setting:
    """So many calls may be placed from now on. Raises `ValueError`."""
    check_limit(limit)
    statement = "UPDATE controls SET turns_left = %s, limits = limits + 1"
    return Setting(statement, (None if math.isinf(limit) else int(limit),))


def within_hours(hours: str | None, zone: str | None) -> Setting:
    """When a phone may begin to ring. Raises `ValueError` for what cannot be read."""
    if hours is not None:
        Hours.parse(hours, tz=zone or "")
    return Setting("UPDATE controls SET hours = %s, zone = %s", (hours, zone))


def allowing_doubts(share: float) -> Setting:
    """The share of the last 500 calls that may be in doubt. Raises `ValueError`."""
    check_max_unknown(share)
    return Setting("UPDATE controls SET max_unknown = %s", (share,))


def paused(*, is_paused: bool) -> Setting:
    """Nothing is placed for the moment, or it is again."""
    return Setting("UPDATE controls SET is_paused = %s", (is_paused,))


def stopped(reason: str) -> Setting:
    """Nothing is placed any more; the first reason counts."""
    return Setting("UPDATE controls SET stopped = %s WHERE stopped IS NULL", (reason,))


def going_on() -> Setting:
    """Neither paused nor stopped any longer; doubts of before do not count."""
    since = "extract(epoch FROM clock_timestamp())"
    return Setting(f"UPDATE controls SET stopped = NULL, is_paused = false, since = {since}")  # noqa: S608  # our own words


def left_alone(seconds: float) -> Setting:
    """TENIOS asks for fewer requests: no call by anybody for so long."""
    ends = "greatest(pause_ends, clock_timestamp() + make_interval(secs => %s))"
    return Setting(f"UPDATE controls SET pause_ends = {ends}", (seconds,))  # noqa: S608  # our own words


def given_back(turns: int, limit: int) -> Setting:
    """Turns were not used: they do not count towards the limit under which they were drawn.

    Better they are lost than given back twice.
    """
    return Setting("UPDATE controls SET turns_left = turns_left + %s WHERE limits = %s", (turns, limit), adds=True)


def accepting(timeline: str) -> Setting:
    """A person says that nothing is missing after a failover."""
    return Setting("UPDATE mark SET timeline = %s", (timeline,))
