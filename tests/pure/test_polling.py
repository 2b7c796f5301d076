"""The schedule as numbers: the square-root law, what the model of lifetimes makes of it, and its bounds."""

import math
from itertools import accumulate, pairwise, product
from statistics import NormalDist

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenios_async import CallbackStatus, Polling
from tenios_async._lifecycle import BEFORE_DIALLING
from tenios_async._lifetimes import exits

STATES = ["REQUESTED", "ACCEPTED", "CALLING_A", "CALLING_B", "CONNECTED", "ON_HOLD"]


def look(polling, state, seen_for=0.0, began_within=0.0, delay_left=None, chance=0.5, **options):
    status = None if state is None else CallbackStatus(state)
    return polling.next_look(
        status, seen_for=seen_for, began_within=began_within, delay_left=delay_left, chance=chance, **options
    )


def exact(**options):
    return Polling(jitter=0, **options)


def talk_lasts(seconds):
    """Log-normal, mean 190 s, sigma 1.05: the chance that a talk takes longer."""
    return 1 - NormalDist(math.log(190) - 1.05**2 / 2, 1.05).cdf(math.log(seconds)) if seconds else 1.0


@pytest.mark.parametrize("cost", [0.1, 0.3, 1])
@pytest.mark.parametrize("seen_for", [60.0, 300.0, 900.0])
def test_the_square_root_law(cost, seen_for):
    """For a rate `h` that changes slowly: exp(h x) = 1 + h x + h c, close to sqrt(2 c / h)."""
    rate = math.log(talk_lasts(seen_for) / talk_lasts(seen_for + 10)) / 10
    low, high = 0.0, 1000.0
    for _ in range(60):
        x = (low + high) / 2
        low, high = (x, high) if math.expm1(rate * x) < rate * x + rate * cost else (low, x)
    assert look(exact(cost=cost), "CONNECTED", seen_for) == pytest.approx(low, rel=0.07)
    assert low == pytest.approx(math.sqrt(2 * cost / rate), rel=0.1)


@pytest.mark.parametrize("cost", [0.1, 0.3, 1, 3])
def test_the_odds_of_news_add_up_to_the_cost(cost):
    """Also where the rate changes fast: nobody hangs up in the first seconds of a talk."""
    interval, steps = look(exact(cost=cost), "CONNECTED"), 2000
    lasts = [talk_lasts(interval * (n + 0.5) / steps) for n in range(steps)]
    assert sum((1 - s) / s for s in lasts) * interval / steps == pytest.approx(cost, rel=0.2)


def news(state, weights, step, steps=60, seen_for=0.0):
    """After each step: the weights of what has begun, as expected; and the chance of any. As fine as the steps."""
    much, chance, lasts = [0.0] * (steps + 1), [0.0] * (steps + 1), 1.0
    for follower, cdf in exits(state, 15.0).items():
        weight, later = weights.get(follower, 1.0), None
        begun = [cdf(seen_for + n * step) for n in range(steps + 1)]
        lasts -= begun[0]
        if not follower.is_terminal and (state in BEFORE_DIALLING or not weight):
            later = news(follower, weights, step, steps)
        for cell, (before, after) in enumerate(pairwise(begun)):
            for n in range(cell + 1, steps + 1):
                much[n] += (after - before) * (weight + (later[0][n - cell - 1] if later else 0.0))
                chance[n] += (after - before) * (1.0 if weight else later[1][n - cell - 1] if later else 0.0)
    return [value / lasts for value in much], [value / lasts for value in chance]


@pytest.mark.parametrize("seen_for", [0.0, math.expm1(2.5)])
@pytest.mark.parametrize("cost", [0.3, 1.0])
@pytest.mark.parametrize(
    "weights",
    [{}, {"CALLING_B": 7}, dict.fromkeys(STATES[1:5], 0.0), {"CALL_A_FAILED": 0, "CALL_B_FAILED": 0}],
    ids=["usual", "B", "end", "no failures"],
)
@pytest.mark.parametrize("state", STATES)
def test_what_is_far_off_counts_as_much_as_is_to_be_expected(state, weights, cost, seen_for):
    """For who waits for the end only, and of what is weighed and what is not: one state after another."""
    polling = exact(cost=cost, weights=weights, ring_duration=15, min_interval=0.001)
    interval = look(polling, state, seen_for)
    step = interval / 40
    odds = [
        much / (1 - some) for much, some in zip(*news(CallbackStatus(state), weights, step, 60, seen_for), strict=True)
    ]
    totals = accumulate((before + after) / 2 * step for before, after in pairwise(odds))
    steps = next(n for n, total in enumerate(totals, start=1) if total >= cost)
    assert steps * step == pytest.approx(interval, rel=0.08)


@pytest.mark.parametrize("end_only", [False, True])
@pytest.mark.parametrize("state", STATES)
def test_the_longest_interval_makes_no_other_shorter_or_longer(state, end_only):
    for within in (0, 5, 60):
        far, near = (
            exact(max_interval=most).for_the_end() if end_only else exact(max_interval=most) for most in (600, 60)
        )
        assert look(near, state, 0, within) == pytest.approx(look(far, state, 0, within), rel=0.12)
    interval = look(far, state)
    assert look(attrs.evolve(far, max_interval=1.06 * interval), state) == pytest.approx(interval, rel=0.04)


def test_an_unknown_beginning_is_waited_for_less_long():
    intervals = [look(exact(), "CONNECTED", 0, within) for within in (0, 5, 20, 60)]
    assert intervals == sorted(intervals, reverse=True)
    assert intervals[-1] < 0.6 * intervals[0]


@pytest.mark.parametrize("max_interval", [0.5, 60.0])
@pytest.mark.parametrize("state", STATES)
def test_a_token_that_is_decades_old_is_reckoned_with_as_fast_as_one_of_today(state, max_interval):
    """Nobody waits for a sum over each second since; and it makes no difference."""
    today, old = (look(exact(max_interval=max_interval), state, 0, within) for within in (7200.0, 2e9))
    assert old == pytest.approx(today, rel=0.05)


@pytest.mark.parametrize("ring_duration", [None, 15, 45, 60])
@pytest.mark.parametrize("state", ["CALLING_A", "CALLING_B"])
def test_a_look_soon_after_the_phone_has_stopped_ringing(state, ring_duration):
    polling, at, looks = exact(ring_duration=ring_duration), 0.0, []
    stops = ring_duration or 30
    while at < stops + 10:
        at += look(polling, state, at)
        looks.append(at)
    assert min(abs(t - stops - 1) for t in looks) < 1.5
    assert len([t for t in looks if t > stops + 3]) < 4  # then it rings longer than was said, and nobody hurries


def test_what_lasts_far_longer_than_expected_is_asked_for_ever_more_seldom():
    """A watch by the bare id knows of no delay: five minutes in REQUESTED must not be five hundred polls."""
    for state in STATES:
        at, polls = 0.0, 0
        while at < 3600:
            at += look(exact(), state, at)
            polls += 1
        assert polls < 500, state
        assert look(exact(), state, 3600.0) > 3
        assert look(exact(), state, 1e18) == 60


def test_a_phone_rings_since_soon_after_the_look_that_saw_it_silent():
    """What comes before is short. A gap in which it would have stopped says nothing of when it began."""
    for within in (20.0, 33.0):
        assert look(exact(), "CALLING_A", 0, within) == look(exact(), "CALLING_A", within - 2, 2)
    assert look(exact(), "CALLING_A", 0, 35) < 0.5 * look(exact(), "CALLING_A", 33, 2)


def test_a_known_delay_is_slept_through():
    for state in ("REQUESTED", "ACCEPTED"):
        assert look(exact(), state, delay_left=300.0) == 300 + look(exact(), "ACCEPTED")
        assert look(exact(), state, seen_for=250.0, delay_left=50.0) == pytest.approx(50.3, abs=0.3)
        assert look(exact(), state, seen_for=301.0, delay_left=-1.0) < 1
        assert look(Polling(max_interval=20), state, delay_left=300.0) > 300
    assert look(exact(), "CALLING_A", delay_left=300.0) < 5


def test_what_was_seen_first_after_the_delay_has_a_clock_of_its_own():
    assert look(exact(), "ACCEPTED", 0.2, 5, delay_left=-20.0) == look(exact(), "ACCEPTED", 0.2, 5)
    assert look(exact(), "ACCEPTED", 3.0, 5, delay_left=-20.0) == look(exact(), "ACCEPTED", 3.0, 5)


def test_schedules_of_the_same_figures_are_equal_and_show_no_more_than_those():
    first = Polling(weights={"CONNECTED": 2})
    many = {Polling(cost=cost) for cost in range(1, 300)}
    assert Polling(weights={"CONNECTED": 2}) == first not in many
    assert eval(repr(first), {"Polling": Polling, "CallbackStatus": CallbackStatus}) == first


def test_weights():
    usual, end = exact(), exact().for_the_end()
    assert look(end, "REQUESTED") > 20 * look(usual, "REQUESTED")
    assert look(end, "CALLING_B") > 1.5 * look(usual, "CALLING_B")
    assert look(end, "CONNECTED") == look(usual, "CONNECTED")
    assert look(exact(weights={"CONNECTED": 4}), "CALLING_B") < 0.7 * look(usual, "CALLING_B")
    assert look(exact(weights={"DISCONNECTED": 0.25}), "CONNECTED") > 1.3 * look(usual, "CONNECTED")
    assert exact(weights={"CONNECTED": 2, "ACCEPTED": 1}) == exact(weights={"ACCEPTED": 1, "CONNECTED": 2})


def test_a_simulator_that_is_faster():
    for state in STATES:
        slow, fast = exact(), exact(speed=50, min_interval=0.005, max_interval=1.2)
        assert look(fast, state, 0.1, 0.04) * 50 == pytest.approx(look(slow, state, 5.0, 2.0))


def test_the_larger_the_cost_the_fewer_the_looks():
    for state in STATES:
        intervals = [look(exact(cost=cost, max_interval=600), state) for cost in (0.1, 0.3, 1, 3, 10, 30)]
        assert intervals == sorted(intervals)
        assert intervals[-1] > 2 * intervals[1]


def test_odds_that_only_coarse_steps_add_up_to_the_cost():
    """Where nearly all that stop ringing have stopped: finer steps miss the cost, and coarser ones reach it."""
    schedule = exact(cost=1.5124103081081472, max_interval=200.9677703425731, ring_duration=28.936697394255773)
    assert 1 < look(schedule, "CALLING_A", 30.1, 1.0) < 10


def test_jitter_is_a_phase_and_then_little():
    first = [look(Polling(), "CONNECTED", chance=chance) for chance in (0, 1)]
    later = [look(Polling(), "CONNECTED", 50.0, chance=chance) for chance in (0, 1)]
    assert first[1] - first[0] == pytest.approx(0.3 * look(exact(), "CONNECTED"))
    assert sum(first) / 2 == pytest.approx(look(exact(), "CONNECTED"))
    # What lies evenly between -10 % and 10 % has a coefficient of variation of 0.058.
    assert later[1] - later[0] == pytest.approx(0.2 * look(exact(), "CONNECTED", 50.0))


@given(
    st.none() | st.sampled_from(STATES),
    st.floats(0, 10**5),
    st.floats(0, 10**5),
    st.none() | st.floats(-(10**5), 0),
    st.floats(0, 1),
    st.floats(10**-4, 10**4),
    st.sampled_from([0.5, 1, 3]),
    st.sampled_from([{}, {"CONNECTED": 0}, {"ACCEPTED": 0, "CALLING_A": 0, "CALLING_B": 0, "CONNECTED": 0}, {"CALLING_B": 7}]),
)  # fmt: skip
def test_intervals_stay_in_bounds(state, seen_for, began_within, delay_left, chance, cost, stretch, weights):
    polling = Polling(cost=cost, weights=weights)
    assert (
        0.25 * stretch
        <= look(polling, state, seen_for, began_within, delay_left, chance, stretch=stretch)
        <= 60 * stretch
    )


@given(st.sampled_from(STATES), st.floats(0, 100), st.floats(0, 100), st.floats(1, 10))
def test_a_stretched_schedule_is_the_same_one_slower(state, seen_for, began_within, stretch):
    usual = look(exact(), state, seen_for, began_within)
    assert look(exact(), state, seen_for, began_within, stretch=stretch) == pytest.approx(stretch * usual)


@pytest.mark.parametrize(
    "options",
    [{"cost": 0}, {"cost": -1}, {"cost": float("nan")}, {"cost": float("inf")}, {"min_interval": 0}, {"max_interval": 0.1},
     {"jitter": 2}, {"jitter": -0.1}, {"cost": True}, {"cost": "1"}, {"fixed_interval": 0}, {"ring_duration": 0},
     {"speed": 0}, {"weights": {"CONNECTED": -1}}, {"weights": {"CONNECTED": "1"}}, {"weights": {"CONNECTED": True}}, {"weights": {"CONNECTED": math.inf}},
     {"weights": {"": 1}}, {"weights": {5: 1}}, {"weights": {"CONECTED": 4}}, {"weights": None}, {"weights": 4}, {"weights": "x"},
     {"weights": {"CONNECTED": 10**400}}, {"jitter": None}, {"jitter": "1"}, {"jitter": True}, {"jitter": math.nan},
     {"speed": 1.1e6}, {"speed": 0.9e-6}, {"cost": 1e-7}, {"cost": 1e7}, {"weights": {"CONNECTED": 1.1e6}},
     {"speed": 10**400}, {"cost": 10**400}, {"max_interval": 10**400}],
)  # fmt: skip
def test_a_schedule_out_of_range(options):
    with pytest.raises(ValueError, match=r"must|is 1 to 64"):
        Polling(**options)


@pytest.mark.parametrize("figures", [*product([1e-6, 1e6], repeat=3)])
@pytest.mark.parametrize("state", STATES)
def test_a_schedule_at_the_edge_of_its_range(state, figures):
    cost, speed, weight = figures
    weights = dict.fromkeys(["CALLING_A", "CONNECTED", "DISCONNECTED"], weight)
    for seen_for in (0.0, 1.0, 1e5):
        wait = look(exact(cost=cost, speed=speed, weights=weights), state, seen_for, seen_for)
        assert exact().min_interval <= wait <= exact().max_interval


def test_what_is_out_of_range_is_told_with_its_range():
    with pytest.raises(ValueError, match=r"^speed must be a number from 0.000001 to 1,000,000$"):
        Polling(speed=0)
    with pytest.raises(ValueError, match=r"^the weight of CONNECTED must be a number from 0 to 1,000,000$"):
        Polling(weights={"CONNECTED": -1})


def test_the_longest_interval():
    assert Polling(max_interval=20).longest_interval == 20
    assert Polling.fixed(3).longest_interval == 3
    assert Polling(min_interval=5, max_interval=5).longest_interval == 5


@pytest.mark.parametrize("interval", [0, -1.0, math.inf, math.nan, True, "2"])
def test_a_fixed_interval_that_is_none_is_named_as_it_was_given(interval):
    with pytest.raises(ValueError, match=r"^interval must be a number above 0"):
        Polling.fixed(interval)
