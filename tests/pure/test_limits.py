"""The pace: even, fair between calls and looks, halved at a refusal. Exact instants, no loop."""

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenios_async import Rate
from tenios_async._limits import SLOW_DOWN, Errand, Pace, is_number

CALL, LOOK = Errand.CALL, Errand.LOOK
MOST = int(sys.float_info.max)


def turns(pace, until, now=0.0):
    """Who goes when, of those that wait; nobody joins in between."""
    gone = []
    while (ticket := pace.first()) is not None and (at := pace.turn_at(now)) <= until:
        pace.go(at)
        gone.append((round(at, 6), ticket))
        now = at
    return gone


def queue(pace, errand, *tickets, now=0.0):
    for ticket in tickets:
        pace.join(ticket, errand, now)


def test_turns_are_evenly_spaced_and_in_order():
    pace = Pace(Rate(20), 0.0)
    queue(pace, LOOK, *range(5))
    assert turns(pace, 10) == [(0.0, 0), (0.05, 1), (0.1, 2), (0.15, 3), (0.2, 4)]


def test_turns_that_nobody_wanted_are_not_saved_up():
    pace = Pace(Rate(2), 0.0)
    queue(pace, LOOK, "a", "b", now=100.0)
    assert turns(pace, 200, now=100.0) == [(100.0, "a"), (100.5, "b")]


def test_who_wakes_a_little_late_does_not_lower_the_rate():
    pace = Pace(Rate(1), 0.0)
    queue(pace, LOOK, *range(4))
    for ticket in range(3):
        assert pace.first() == ticket
        pace.go(ticket + 0.4)
    assert pace.turn_at(2.4) == 3.0


def test_a_loop_that_was_held_up_catches_up_by_one_turn_at_most():
    pace = Pace(Rate(1), 0.0)
    queue(pace, LOOK, *range(5))
    pace.go(0.0)
    assert turns(pace, 100, now=50.0) == [(50.0, 1), (50.0, 2), (51.0, 3), (52.0, 4)]


def test_calls_go_first_but_take_no_more_than_half_while_looks_wait():
    pace = Pace(Rate(1), 0.0)
    queue(pace, LOOK, "l1", "l2")
    queue(pace, CALL, "c1", "c2", "c3", "c4")
    assert [ticket for _, ticket in turns(pace, 10)] == ["c1", "l1", "c2", "l2", "c3", "c4"]


def test_whoever_leaves_is_passed_over():
    pace = Pace(Rate(1), 0.0)
    queue(pace, LOOK, "a", "b", "c")
    pace.leave("a")
    pace.leave("nobody")
    assert turns(pace, 10) == [(0.0, "b"), (1.0, "c")]


def test_nobody_goes_where_nobody_waits():
    with pytest.raises(ValueError, match="nobody"):
        Pace(Rate(1), 0.0).go(0.0)


def test_a_refusal_halves_the_rate_and_it_recovers_by_a_tenth_a_second():
    pace = Pace(Rate(20), 0.0)
    pace.refused(10.0, None, sent_at=10.0)
    assert [pace.rate(at) for at in (10.0, 11.0, 14.0, 15.0, 99.0)] == [10.0, 12.0, 18.0, 20.0, 20.0]
    assert pace.turn_at(10.0) == 10.1


def test_refusals_in_a_row_slow_it_down_but_not_for_good():
    pace = Pace(Rate(64), 0.0)
    for _ in range(20):
        pace.refused(0.0, None, sent_at=0.0)
    assert pace.rate(0.0) == 1.0
    assert pace.rate(10.0) == 64.0


@pytest.mark.parametrize("rate", [Rate(10), None])
def test_a_retry_after_holds_everybody(rate):
    pace = Pace(rate, 0.0)
    queue(pace, LOOK, "a")
    pace.refused(0.0, 30.0, sent_at=0.0)
    pace.refused(1.0, 2.0, sent_at=1.0)
    assert turns(pace, 100) == [(30.0, "a")]


def test_what_asks_for_fewer_requests():
    assert SLOW_DOWN == (429, 503)


def test_a_second_refusal_halves_what_is_left_and_recovers_from_there():
    pace = Pace(Rate(20), 0.0)
    pace.refused(0.0, None, sent_at=0.0)
    pace.refused(2.0, None, sent_at=1.0)
    assert [pace.rate(at) for at in (2.0, 3.0, 8.5)] == [7.0, 9.0, 20.0]


def test_calls_leave_the_rest_to_looks_and_half_at_least():
    pace = Pace(Rate(10), 0.0)
    assert pace.rate_for_looks(0.0) == 10
    queue(pace, CALL, *range(100))
    pace.go(0.0)
    assert pace.rate_for_looks(0.0) == pytest.approx(10 - 1 / 10), "one call in the ten seconds that count"
    assert pace.rate_for_looks(10.0) == pytest.approx(10 - math.exp(-1) / 10), "it counts the less the older it is"
    pace.go(10.0)
    assert pace.rate_for_looks(10.0) == pytest.approx(10 - (1 + math.exp(-1)) / 10)
    turns(pace, 100, now=10.0)
    assert pace.rate_for_looks(19.7) == 5
    assert pace.rate_for_looks(1000.0) == pytest.approx(10)


def test_where_there_is_no_limit_looks_have_none():
    pace = Pace(None, 0.0)
    queue(pace, CALL, "a", "b")
    turns(pace, 0)
    assert pace.rate_for_looks(0.0) == math.inf


def test_no_limit():
    pace = Pace(None, 0.0)
    queue(pace, LOOK, "a", "b")
    pace.refused(0.0, None, sent_at=0.0)
    assert pace.rate(0.0) == math.inf
    assert turns(pace, 0) == [(0.0, "a"), (0.0, "b")]


@pytest.mark.parametrize(
    "figures",
    [
        (0,),
        (-1,),
        (True,),
        (math.inf,),
        (math.nan,),
        ("5",),
        (5, 0),
        (5, math.inf),
        (10**400,),
        (5, 10**400),
        (5e-324, 10),
        (1e308, 0.1),
    ],
)
def test_a_rate_is_a_number_above_0(figures):
    with pytest.raises(ValueError, match="above 0"):
        Rate(*figures)


@pytest.mark.parametrize(
    ("value", "is_one"),
    [(0, True), (-1.5, True), (math.inf, True), (MOST, True), (-MOST, True), (MOST + 1, False), (-MOST - 1, False),
     (True, False), ("1", False), (None, False)],
)  # fmt: skip
def test_what_can_be_reckoned_with(value, is_one):
    assert is_number(value) is is_one


def test_a_rate_per_minute():
    assert Rate(30, per=60.0).a_second == 0.5


@given(
    rate=st.floats(0.1, 1000),
    comings=st.lists(st.tuples(st.floats(0, 10), st.sampled_from(Errand), st.booleans()), max_size=40),
)
def test_never_more_than_the_rate_over_any_time(rate, comings):
    """In any stretch of time no more turns than its length allows, and one."""
    pace, now, gone = Pace(Rate(rate), 0.0), 0.0, []
    for number, (later, errand, is_refused) in enumerate(comings):
        gone += [at for at, _ in turns(pace, now + later, now=now)]
        now += later
        pace.join(number, errand, now)
        if is_refused:
            pace.refused(now, None, sent_at=now)
    gone += [at for at, _ in turns(pace, math.inf, now=now)]
    assert len(gone) == len(comings)
    for first in range(len(gone)):
        for last in range(first + 1, len(gone)):
            assert last - first <= rate * (gone[last] - gone[first] + 1e-5) + 1e-6


def test_the_refusals_of_one_flight_halve_once():
    """Ten requests are under way when the first is refused: that is one sign that this was too fast, and not ten."""
    pace = Pace(Rate(64), 0.0)
    for _ in range(10):
        pace.refused(1.0, None, sent_at=0.5)
    assert pace.rate(1.0) == 32
    pace.refused(1.0, None, sent_at=1.0)
    assert pace.rate(1.0) == 16
