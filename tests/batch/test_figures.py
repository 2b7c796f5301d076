"""The figures of a campaign: what follows from counts, and that the sums agree."""

import itertools
import math
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenios_async.batch.figures import (
    BINS,
    EDGES,
    MAX_BUCKETS,
    Doubt,
    Figures,
    Funnel,
    Histogram,
    Outcome,
    Rows,
    TimeAxis,
    Timeline,
    bin_of,
    bounds_of,
    bucket_width,
    mask_numbers,
    outcome_of,
    round_width,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
ROW_STATES = ("QUEUED", "SENDING", "PLACED", "REFUSED", "UNKNOWN", "FINISHED")
STATUSES = (
    *("REQUESTED", "ACCEPTED", "CALLING_A", "CALL_A_FAILED", "CALLING_B", "CALL_B_FAILED", "CONNECTED", "DISCONNECTED"),
    *("HELD", None),
)
ENDS = ("CALL_A_FAILED", "CALL_B_FAILED", "DISCONNECTED")

groups_of_a_ledger = st.lists(
    st.tuples(st.sampled_from(ROW_STATES), st.sampled_from(STATUSES), st.integers(1, 10**6)).filter(
        lambda group: group[0] != "PLACED" or group[1] not in ENDS
    )
)


def figures(groups=(), **more) -> Figures:
    fixed = {"name": "n", "ledger": "n.db", "source": "n.csv", "callback_config_id": None}
    times = {"created_at": NOON, "first_placed_at": None, "generated_at": NOON}
    return Figures(**{**fixed, **times, "rows": Rows.of(groups), "funnel": Funnel.of(groups), **more})


@pytest.mark.parametrize(
    ("state", "status", "outcome"),
    [
        ("QUEUED", None, Outcome.QUEUED),
        ("SENDING", None, Outcome.UNDER_WAY),
        ("PLACED", None, Outcome.UNDER_WAY),
        ("PLACED", "CONNECTED", Outcome.UNDER_WAY),
        ("REFUSED", None, Outcome.REFUSED),
        ("UNKNOWN", None, Outcome.UNKNOWN),
        ("FINISHED", "DISCONNECTED", Outcome.TALKED),
        ("FINISHED", "CALL_A_FAILED", Outcome.AGENT_NOT_REACHED),
        ("FINISHED", "CALL_B_FAILED", Outcome.CUSTOMER_NOT_REACHED),
        ("FINISHED", "CONNECTED", Outcome.UNOBSERVED),
        ("FINISHED", "HELD", Outcome.UNOBSERVED),
        ("FINISHED", None, Outcome.UNOBSERVED),
    ],
)
def test_what_a_row_stands_for(state, status, outcome):
    assert outcome_of(state, status) is outcome


def test_a_row_state_nobody_knows_is_not_guessed_at():
    with pytest.raises(KeyError):
        outcome_of("LOST", None)
    with pytest.raises(TypeError):
        Rows.of([("LOST", None, 1)])


@pytest.mark.parametrize(
    ("status", "stages"),
    [
        (None, 0),
        ("HELD", 0),
        ("REQUESTED", 1),
        ("ACCEPTED", 2),
        ("CALLING_A", 3),
        ("CALL_A_FAILED", 3),
        ("CALLING_B", 4),
        ("CALL_B_FAILED", 4),
        ("CONNECTED", 5),
        ("DISCONNECTED", 5),
    ],
)
def test_a_callback_has_reached_every_stage_before_its_last_state(status, stages):
    funnel = Funnel.of([("FINISHED", status, 3)])
    reached = [funnel.requested, funnel.accepted, funnel.calling_a, funnel.calling_b, funnel.connected]
    assert funnel.placed == 3
    assert reached == [3] * stages + [0] * (5 - stages)


@given(groups_of_a_ledger)
def test_the_sums_agree(groups):
    """Whatever the ledger holds: each contact once in the outcomes, each callback once among the ends."""
    rows, funnel = Rows.of(groups), Funnel.of(groups)
    expected = Counter()
    for state, status, count in groups:
        expected[outcome_of(state, status)] += count
    outcomes = figures(groups).outcomes
    assert Counter(outcomes) == expected
    assert list(outcomes) == list(Outcome)
    assert rows.total == sum(count for _, _, count in groups) == sum(outcomes.values())
    assert funnel.placed == rows.placed + rows.finished
    assert funnel.under_way == rows.placed
    stages = [funnel.placed, funnel.requested, funnel.accepted, funnel.calling_a, funnel.calling_b, funnel.connected]
    assert stages == sorted(stages, reverse=True)
    assert funnel.connected >= funnel.disconnected


def test_a_row_that_was_not_placed_is_in_no_funnel():
    assert Funnel.of([("REFUSED", None, 1), ("UNKNOWN", "CONNECTED", 1), ("QUEUED", None, 1)]) == Funnel()


@given(st.floats(0, 1e9))
def test_every_duration_lies_in_its_bin(seconds):
    low, high = bounds_of(bin_of(seconds))
    assert low <= seconds < high


def test_the_bins_partition_the_axis():
    """Each begins where the one before ends, from 0 to infinity, and an edge belongs to the bin above it."""
    bounds = [bounds_of(number) for number in range(BINS)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == math.inf
    assert all(before[1] == after[0] for before, after in itertools.pairwise(bounds))
    assert [bin_of(low) for low, _ in bounds] == list(range(BINS))
    assert bin_of(math.inf) == BINS - 1
    assert bin_of(1.0) == bin_of(1.41) == bin_of(1.42) - 1


@given(st.lists(st.floats(0.001, 8000), min_size=1))
def test_the_median_is_at_most_one_bin_off(durations):
    histogram = Histogram.of(durations)
    low, high = bounds_of(bin_of(sorted(durations)[(len(durations) - 1) // 2]))
    assert histogram.count == len(durations)
    assert histogram.mean == pytest.approx(sum(durations) / len(durations))
    assert low <= histogram.median <= high


def test_a_median_within_a_bin_is_shared_out():
    half, doubled = Histogram.of([1.1] * 50 + [1.5] * 50), Histogram.of([1.5] * 4)
    assert half.median == pytest.approx(2**0.5)
    assert doubled.median == pytest.approx(2**0.75)
    assert Histogram.of([0.01] * 2).median == pytest.approx(EDGES[0] / 2)


def test_beyond_the_last_edge_the_median_is_a_lower_bound():
    assert Histogram.of([10**6]).median == EDGES[-1]


def test_a_histogram_of_nothing_has_no_mean_and_no_median():
    assert Histogram.of([]) == Histogram()
    assert (Histogram().count, Histogram().mean, Histogram().median) == (0, None, None)


def test_a_histogram_has_all_its_bins():
    with pytest.raises(ValueError, match=f"{BINS} bins, not 3"):
        Histogram((1, 2, 3), 6.0)


@pytest.mark.parametrize(
    ("span", "width"),
    [
        (0, 1),
        (59, 1),
        (59.5, 2),
        (3540, 60),
        (8 * 3600, 600),
        (3 * 86_400, 2 * 3600),
        (60 * 86_400, 2 * 86_400),
        (365 * 86_400, 7 * 86_400),
        (10 * 365 * 86_400, 9 * 7 * 86_400),
    ],
)
def test_the_width_of_a_bucket(span, width):
    assert bucket_width(span) == width


@pytest.mark.parametrize(
    ("least", "of", "width"),
    [
        (0, 1, 1),
        (4, 2, 10),
        (59, 10, 60),
        (70 * 60, 600, 7200),
        (6 * 3600, 4 * 3600, 12 * 3600),
        (8 * 86_400, 7 * 86_400, 14 * 86_400),
    ],
)
def test_a_round_width_of_whole_smaller_ones(least, of, width):
    assert round_width(least, of=of) == width


moments = st.datetimes(
    datetime(2020, 1, 1),  # noqa: DTZ001  # hypothesis adds the zone
    datetime(2040, 1, 1),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, ZoneInfo("Europe/Berlin"), timezone(timedelta(hours=5, minutes=45))]),
)


@given(moments, st.floats(0, 10**9))
def test_a_time_axis_holds_its_span_in_few_buckets(first, span):
    last = (first.astimezone(UTC) + timedelta(seconds=span)).astimezone(first.tzinfo)
    axis = TimeAxis.over(first, last)
    assert 1 <= axis.count <= MAX_BUCKETS
    assert axis.bucket(first) == 0
    assert axis.bucket(last) == axis.count - 1
    assert axis.begin(axis.bucket(last)) <= last < axis.begin(axis.count)


def test_buckets_begin_at_round_times_of_the_time_zone():
    first = datetime(2026, 11, 23, 9, 7, 12, tzinfo=timezone(timedelta(hours=5, minutes=45)))
    hours, days = TimeAxis.over(first, first + timedelta(hours=50)), TimeAxis.over(first, first + timedelta(days=40))
    assert hours.begin(0) == first.replace(minute=0, second=0)
    assert days.begin(0) == first.replace(hour=0, minute=0, second=0)
    assert days.begin(1) == days.begin(0) + timedelta(days=1)


def test_a_bucket_lasts_as_long_when_the_clocks_change():
    berlin = ZoneInfo("Europe/Berlin")
    last = datetime(2026, 3, 29, 18, tzinfo=berlin)
    axis = TimeAxis.over(datetime(2026, 3, 28, 12, tzinfo=berlin), last)
    begins = [axis.begin(bucket).timestamp() for bucket in range(axis.count)]
    assert {b - a for a, b in itertools.pairwise(begins)} == {axis.width}
    assert axis.width == bucket_width(29 * 3600) != bucket_width(30 * 3600)
    assert axis.bucket(last) == 29 * 3600 // axis.width


@pytest.mark.parametrize(
    "make",
    [
        lambda at: TimeAxis.over(at, at),
        lambda at: TimeAxis(at, 1, 1),
        lambda at: Doubt(1, "", at, ""),
        lambda at: figures(created_at=at),
        lambda at: figures(first_placed_at=at),
        lambda at: figures(generated_at=at),
    ],
)
def test_every_time_has_a_time_zone(make):
    make(NOON)
    with pytest.raises(ValueError, match="must have a time zone"):
        make(NOON.replace(tzinfo=None))


def test_a_timeline_counts_what_has_ended():
    axis = TimeAxis.over(NOON, NOON + timedelta(seconds=1))
    groups = [(0, "FINISHED", "DISCONNECTED", 2), (0, "FINISHED", "DISCONNECTED", 1), (1, "UNKNOWN", None, 4)]
    open_ones = [(0, "PLACED", "CONNECTED", 1), (1, "QUEUED", None, 1), (1, "SENDING", None, 1)]
    assert Timeline.of(axis, groups + open_ones).buckets == ({Outcome.TALKED: 3}, {Outcome.UNKNOWN: 4})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("+491234567890 is wrong", "+49*******890 is wrong"),
        ("(00491234567890)", "(004********890)"),
        ("+49*******890", "+49*******890"),
        ("callback 123456789 at +7 or 00", "callback 123456789 at +7 or 00"),
    ],
)
def test_numbers_in_what_servers_say_are_masked(text, shown):
    assert mask_numbers(text) == shown


def test_figures_hold_no_number_in_full():
    doubt = Doubt(3, "+491234567890", NOON, "no answer for +491234567890")
    again = Doubt(3, doubt.number, NOON, doubt.reason)
    refusals = figures(refusals={"+491234567890 is barred": 2, "+491234000890 is barred": 3}).refusals
    assert doubt == again
    assert (doubt.number, doubt.reason) == ("+49*******890", "no answer for +49*******890")
    assert refusals == {"+49*******890 is barred": 5}


def test_polls_for_each_callback():
    assert figures(polls=3).polls_per_callback is None
    assert figures([("PLACED", None, 2)], polls=3).polls_per_callback == 1.5
