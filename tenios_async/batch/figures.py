"""What is known of a campaign at one moment: values that a ledger fills and a report shows. Pure.

A ledger fills most of them from counts. A *group* is how many rows stand in one state with one last state of their
call: one line of `SELECT state, status, COUNT(*) ... GROUP BY state, status`.
"""

from __future__ import annotations

import enum
import itertools
import math
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import attrs

from tenios_async import CallbackStatus, mask_number

Group: TypeAlias = tuple[str, str | None, int]
"""The state of a row, the last state of its call that was seen (None: none was), and how many such rows there are."""

_NUMBER = re.compile(r"(?:\+|00)[1-9][0-9]{5,14}")


def mask_numbers(text: str) -> str:
    """The text with every international phone number in it masked. Servers may repeat a number in what they say."""
    return _NUMBER.sub(lambda found: mask_number(found[0]), text)


def _aware(_: object, field: attrs.Attribute[Any], value: datetime | None) -> None:
    if value is not None and value.utcoffset() is None:
        raise ValueError(f"{field.name} must have a time zone")


class Outcome(enum.StrEnum):
    """What has become of a contact. Every contact has exactly one."""

    TALKED = "TALKED"
    """Customer and agent were connected, and the call is over: what the campaign is for."""
    CUSTOMER_NOT_REACHED = "CUSTOMER_NOT_REACHED"
    """The agent answered and the customer was not reached."""
    AGENT_NOT_REACHED = "AGENT_NOT_REACHED"
    """The agent was not reached, so the customer was never rung."""
    REFUSED = "REFUSED"
    """TENIOS said no. No phone rang."""
    UNOBSERVED = "UNOBSERVED"
    """The customer's callback was placed, and nobody saw how it ended."""
    UNKNOWN = "UNKNOWN"
    """A callback may have been placed. It is never placed again until a person decides."""
    UNDER_WAY = "UNDER_WAY"
    """Being placed, or being followed."""
    QUEUED = "QUEUED"
    """Not dialled yet."""


_ENDED_BY: Mapping[str | None, Outcome] = {
    CallbackStatus.DISCONNECTED: Outcome.TALKED,
    CallbackStatus.CALL_B_FAILED: Outcome.CUSTOMER_NOT_REACHED,
    CallbackStatus.CALL_A_FAILED: Outcome.AGENT_NOT_REACHED,
}
_STANDS_FOR = {
    "QUEUED": Outcome.QUEUED,
    "SENDING": Outcome.UNDER_WAY,
    "PLACED": Outcome.UNDER_WAY,
    "REFUSED": Outcome.REFUSED,
    "UNKNOWN": Outcome.UNKNOWN,
}


def outcome_of(state: str, status: str | None) -> Outcome:
    """What a row in this state stands for, whose call was last seen in `status`. Raises `KeyError` for no row state."""
    return _ENDED_BY.get(status, Outcome.UNOBSERVED) if state == "FINISHED" else _STANDS_FOR[state]


@attrs.frozen
class Rows:
    """How many rows of the ledger, which are the contacts, are in each state."""

    queued: int = 0
    sending: int = 0
    placed: int = 0
    refused: int = 0
    unknown: int = 0
    finished: int = 0

    @classmethod
    def of(cls, groups: Iterable[Group]) -> Rows:
        """The counts of a ledger's groups."""
        counts = Counter[str]()
        for state, _, count in groups:
            counts[state.lower()] += count
        return cls(**counts)

    @property
    def total(self) -> int:
        """All contacts."""
        return self.queued + self.sending + self.placed + self.refused + self.unknown + self.finished


_LAST_STAGE: Mapping[str | None, str] = {
    CallbackStatus.CALL_A_FAILED: CallbackStatus.CALLING_A,
    CallbackStatus.CALL_B_FAILED: CallbackStatus.CALLING_B,
    CallbackStatus.DISCONNECTED: CallbackStatus.CONNECTED,
}
_STAGES: tuple[str, ...] = (
    CallbackStatus.REQUESTED,
    CallbackStatus.ACCEPTED,
    CallbackStatus.CALLING_A,
    CallbackStatus.CALLING_B,
    CallbackStatus.CONNECTED,
)
"""What every callback passes in this order as far as it gets: FACTS, callback page."""


@attrs.frozen
class Funnel:
    """How far the placed callbacks came.

    A callback has reached a stage if it was seen there or at one beyond, since none is left out. One whose last state
    is not documented counts as placed only.

    Attributes:
        placed: callbacks TENIOS took, and calls that a person says were made.
        requested: how many of them reached at least REQUESTED; and so on to `connected`.
        disconnected: ended after a talk.
        call_a_failed: ended because the agent was not reached.
        call_b_failed: ended because the customer was not reached.
        unobserved: ended, and nobody saw how.
    """

    placed: int = 0
    requested: int = 0
    accepted: int = 0
    calling_a: int = 0
    calling_b: int = 0
    connected: int = 0
    disconnected: int = 0
    call_a_failed: int = 0
    call_b_failed: int = 0
    unobserved: int = 0

    @classmethod
    def of(cls, groups: Iterable[Group]) -> Funnel:
        """The funnel of a ledger's groups. Rows that were not placed are left out."""
        counts = Counter[str]()
        for state, status, count in groups:
            if state in ("PLACED", "FINISHED"):
                counts["placed"] += count
                for stage in _passed(status):
                    counts[stage.lower()] += count
            if state == "FINISHED":
                counts[status.lower() if status and status in _ENDED_BY else "unobserved"] += count
        return cls(**counts)

    @property
    def under_way(self) -> int:
        """Callbacks that have not ended."""
        return self.placed - self.disconnected - self.call_a_failed - self.call_b_failed - self.unobserved


def _passed(status: str | None) -> tuple[str, ...]:
    stage = _LAST_STAGE.get(status, status)
    return _STAGES[: _STAGES.index(stage) + 1] if stage in _STAGES else ()


EDGES = tuple(2 ** (half / 2) for half in range(-6, 27))
"""Seconds. Where one bin of a `Histogram` ends and the next begins: two bins a doubling, from 1/8 s to 2 h 16 min."""

BINS = len(EDGES) + 1
"""The first bin holds all that is shorter than the first edge, the last all that is not shorter than the last."""


def bin_of(seconds: float) -> int:
    """The bin of a duration, from 0 to `BINS` - 1. A lower edge belongs to its bin, an upper edge to the next."""
    return bisect_right(EDGES, seconds)


def bounds_of(number: int) -> tuple[float, float]:
    """From where to where (s) a bin goes; the first from 0, the last without end."""
    return (EDGES[number - 1] if number else 0.0), (EDGES[number] if number < len(EDGES) else math.inf)


def _all_bins(_: object, __: object, value: tuple[int, ...]) -> None:
    if len(value) != BINS:
        raise ValueError(f"a histogram has {BINS} bins, not {len(value)}")


@attrs.frozen
class Histogram:
    """How long something lasted, many times. It takes the same room for ten and for ten million.

    Attributes:
        counts: how many durations fell into each bin.
        seconds: the sum of them all.
    """

    counts: tuple[int, ...] = attrs.field(default=(0,) * BINS, validator=_all_bins)
    seconds: float = 0.0

    @classmethod
    def of(cls, durations: Iterable[float]) -> Histogram:
        """The histogram of durations (s)."""
        counts, seconds = [0] * BINS, 0.0
        for duration in durations:
            counts[bin_of(duration)] += 1
            seconds += duration
        return cls(tuple(counts), seconds)

    @property
    def count(self) -> int:
        """How many durations there are."""
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        """Seconds, exact; None where there are none."""
        return self.seconds / self.count if self.count else None

    @property
    def median(self) -> float | None:
        """Seconds, at most one bin (a factor of 1.4) off; a lower bound in the last bin; None where there are none."""
        if not self.count:
            return None
        half = self.count / 2
        below = list(itertools.accumulate(self.counts, initial=0))
        number = bisect_left(below, half) - 1
        low, high = bounds_of(number)
        part = (half - below[number]) / self.counts[number]
        if not low:
            return high * part
        return low if math.isinf(high) else low * (high / low) ** part


MAX_BUCKETS = 60

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_WIDTHS = (
    *(1, 2, 5, 10, 15, 30),
    *(minutes * _MINUTE for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * _HOUR for hours in (1, 2, 3, 6, 12)),
    *(days * _DAY for days in (1, 2, 7)),
)


def round_width(least: float, *, of: int = 1) -> int:
    """Seconds: the shortest width that people count time in, at least `least` (s) and a multiple of `of` (s)."""
    longest = math.lcm(_WIDTHS[-1], of)
    return next((w for w in _WIDTHS if w >= least and w % of == 0), longest * math.ceil(least / longest))


def bucket_width(span: float) -> int:
    """Seconds: the shortest round width by which a span (s) lies in at most 60 buckets, wherever it begins."""
    return round_width(span / (MAX_BUCKETS - 1))  # it may begin within a bucket, and then needs one more


@attrs.frozen
class TimeAxis:
    """Time in buckets of one width.

    Attributes:
        start: when the first bucket begins (UTC).
        width: seconds.
        count: how many buckets there are.
    """

    start: datetime = attrs.field(validator=_aware)
    width: int
    count: int

    @classmethod
    def over(cls, first: datetime, last: datetime) -> TimeAxis:
        """Buckets that hold both moments and all between. They begin at round times of the time zone of `first`."""
        offset = first.utcoffset()
        if offset is None:
            raise ValueError("first and last must have a time zone")
        width = bucket_width(last.timestamp() - first.timestamp())
        local = first.timestamp() + offset.total_seconds()
        start = math.floor(local / width) * width - offset.total_seconds()
        count = math.floor((last.timestamp() - start) / width) + 1
        return cls(datetime.fromtimestamp(start, UTC), width, count)

    def begin(self, bucket: int) -> datetime:
        """When a bucket begins (UTC)."""
        return self.start + timedelta(seconds=self.width * bucket)

    def bucket(self, at: datetime) -> int:
        """The bucket of a moment, from 0 to `count` - 1 where the axis reaches."""
        return math.floor((at - self.start).total_seconds() / self.width)


@attrs.frozen
class Timeline:
    """What became of contacts, and when.

    Attributes:
        axis: the buckets of time.
        buckets: the outcomes in each. A call counts where it ended, a refusal where it came, a doubt where it began.
    """

    axis: TimeAxis
    buckets: tuple[Mapping[Outcome, int], ...]

    @classmethod
    def of(cls, axis: TimeAxis, groups: Iterable[tuple[int, str, str | None, int]]) -> Timeline:
        """The timeline of groups that each name their bucket first. What is yet to end is left out."""
        buckets = [Counter[Outcome]() for _ in range(axis.count)]
        for bucket, state, status, count in groups:
            outcome = outcome_of(state, status)
            if outcome not in (Outcome.UNDER_WAY, Outcome.QUEUED):
                buckets[bucket][outcome] += count
        return cls(axis, tuple(buckets))


@attrs.frozen
class Doubt:
    """A contact that may have been called.

    Attributes:
        line: in the contacts file, or None.
        number: masked, also where it was handed in in full.
        at: when the call was about to leave, or None where that is not known.
        reason: why it is in doubt.
        source: the contacts file, where there were several.
    """

    line: int | None
    number: str = attrs.field(converter=mask_number)
    at: datetime | None = attrs.field(validator=_aware)
    reason: str = attrs.field(converter=mask_numbers)
    source: str = ""


def _masked_keys(counts: Mapping[str, int]) -> Mapping[str, int]:
    masked = Counter[str]()
    for reason, count in counts.items():
        masked[mask_numbers(reason)] += count
    return masked


@attrs.frozen
class Figures:
    """What is known of a campaign at one moment. Read it in one transaction, so that the sums agree.

    Attributes:
        name: what people call it.
        ledger: the path of its file, as one would type it.
        source: the contacts file it was made from.
        callback_config_id: the configuration of contacts that name none of their own, or None.
        created_at: when the ledger was made (aware, like all times here).
        first_placed_at: when the first callback was placed, or None.
        generated_at: the moment. Its time zone is the one a report is written in.
        rows: how many contacts there are, by where they stand.
        rejected: rows of the contacts file that were not taken over.
        funnel: how far the placed callbacks came.
        time_in_state: how long calls were seen in each state, by its name.
        timeline: what became of contacts and when, or None while nothing has.
        refusals: how many calls TENIOS refused, by its reason.
        doubts: some of the contacts that may have been called; `rows.unknown` is how many there are in all.
        polls: status polls spent.
    """

    name: str
    ledger: str
    source: str
    callback_config_id: str | None
    created_at: datetime = attrs.field(validator=_aware)
    first_placed_at: datetime | None = attrs.field(validator=_aware)
    generated_at: datetime = attrs.field(validator=_aware)
    rows: Rows = Rows()
    rejected: int = 0
    funnel: Funnel = Funnel()
    time_in_state: Mapping[str, Histogram] = attrs.field(factory=dict[str, Histogram])
    timeline: Timeline | None = None
    refusals: Mapping[str, int] = attrs.field(factory=dict[str, int], converter=_masked_keys)
    doubts: tuple[Doubt, ...] = ()
    polls: int = 0

    @property
    def outcomes(self) -> Mapping[Outcome, int]:
        """How many contacts have each outcome, all of them in the order of the enumeration. They sum up to all."""
        return {
            Outcome.TALKED: self.funnel.disconnected,
            Outcome.CUSTOMER_NOT_REACHED: self.funnel.call_b_failed,
            Outcome.AGENT_NOT_REACHED: self.funnel.call_a_failed,
            Outcome.REFUSED: self.rows.refused,
            Outcome.UNOBSERVED: self.funnel.unobserved,
            Outcome.UNKNOWN: self.rows.unknown,
            Outcome.UNDER_WAY: self.rows.sending + self.rows.placed,
            Outcome.QUEUED: self.rows.queued,
        }

    @property
    def polls_per_callback(self) -> float | None:
        """Polls spent on each placed callback on average; None where none was placed."""
        return self.polls / self.funnel.placed if self.funnel.placed else None
