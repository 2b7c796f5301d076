"""The watch machine and the schedule: exact instants, no clock."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenios_async import (
    BadCredentials,
    Callback,
    CallbackStatus,
    ConnectionFailed,
    NotFound,
    Polling,
    ProtocolError,
    RateLimited,
    RequestTimeout,
    ServerError,
    WatchInterrupted,
    WatchTimeout,
)
from tenios_async._watch import Emit, Poll, Sleep, Stop, WatchMachine

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
STATES = [
    "REQUESTED",
    "ACCEPTED",
    "CALLING_A",
    "CALL_A_FAILED",
    "CALLING_B",
    "CALL_B_FAILED",
    "CONNECTED",
    "DISCONNECTED",
]


def machine(callback=None, polling=None, *, age=None, timeout=7200.0, chance=0.5):
    return WatchMachine(
        callback or Callback(1),
        polling or Polling(jitter=0),
        now=0.0,
        age=age,
        timeout=timeout,
        poll_timeout=10.0,
        chance=lambda: chance,
        utc_now=lambda: EPOCH,
    )


def run(watch, answer, *, until=100_000.0):
    """Drives the machine by a function from the instant to what a poll brings; gives polls and what was emitted."""
    now, came, polls, emitted = 0.0, None, [], []
    while True:
        action = watch.step(now, came)
        came = None
        match action:
            case Poll():
                assert now not in polls, "two polls in one instant"
                polls.append(now)
                got = answer(now)
                came = CallbackStatus(got) if isinstance(got, str) else got
            case Sleep(instant):
                assert instant > now
                now = instant
            case Emit(transition):
                emitted.append(transition)
            case Stop(error):
                return polls, emitted, error
            case _:
                pytest.fail(f"{action!r} is nothing to do")
        assert now <= until, "it never ends"


def states(emitted):
    return [str(transition.status) for transition in emitted]


def test_a_jump_is_one_transition_with_what_was_skipped():
    _, emitted, error = run(
        machine(), lambda now: "REQUESTED" if now < 0.5 else "CONNECTED" if now < 9 else "DISCONNECTED"
    )
    assert error is None
    assert states(emitted) == ["REQUESTED", "CONNECTED", "DISCONNECTED"]
    first, jump, last = emitted
    assert (first.previous, first.skipped, first.not_before) == (None, (), None)
    assert jump.previous == "REQUESTED"
    assert jump.skipped == ("ACCEPTED", "CALLING_A", "CALLING_B")
    assert jump.observed_at - jump.not_before == timedelta(seconds=jump.elapsed)
    assert jump.polls == 2
    assert last.is_terminal
    assert last.callback.status == "DISCONNECTED"


def test_not_before_is_the_look_before():
    _, emitted, _ = run(machine(polling=Polling.fixed(2)), lambda now: "CALLING_A" if now < 7 else "CALL_A_FAILED")
    assert emitted[-1].observed_at - emitted[-1].not_before == timedelta(seconds=2)
    assert emitted[-1].elapsed == 8


def test_the_first_sight_is_relative_to_requested():
    _, emitted, _ = run(machine(), lambda _: "CALL_B_FAILED")
    assert emitted[0].skipped == ("ACCEPTED", "CALLING_A", "CALLING_B")
    assert emitted[0].previous is None


@attrs.frozen
class Told(Polling):
    """Looks every two seconds, or as often as it is made to, and writes down what it was told about the state."""

    told: list = attrs.field(factory=list, eq=False)
    every: float = 2.0

    def next_look(self, status, *, seen_for, began_within, delay_left, **_):
        self.told.append((str(status), seen_for, began_within, delay_left))
        return self.every


def test_the_schedule_is_told_the_state_its_time_and_how_closely_its_beginning_is_known():
    timeline = [(0.0, "REQUESTED"), (3.5, "CALLING_A"), (7.0, "CONNECTED"), (9.5, "DISCONNECTED")]
    polling = Told()
    run(machine(polling=polling, age=0.5), lambda now: [state for begins, state in timeline if begins <= now][-1])
    assert polling.told == [
        ("REQUESTED", 0, 0.5, None),
        ("REQUESTED", 2, 0.5, None),
        ("CALLING_A", 0, 2, None),
        ("CALLING_A", 2, 2, None),
        ("CONNECTED", 0, 2, None),
        ("DISCONNECTED", 0, 2, None),
    ]


def test_no_phone_rings_before_the_delay_is_over():
    polling = Told()
    callback = Callback(1, delay=3, placed_at=EPOCH)
    run(
        machine(callback, polling, age=0.0),
        lambda now: "ACCEPTED" if now < 3 else "CALLING_A" if now < 6 else "CALL_A_FAILED",
    )
    assert polling.told[:3] == [("ACCEPTED", 0, 0, 3), ("ACCEPTED", 2, 0, 1), ("CALLING_A", 0, 1, -1)]


def test_a_state_that_was_known_before_the_watch_may_be_as_old_as_the_callback():
    polling = Told()
    token = Callback(1, status=CallbackStatus.CONNECTED, placed_at=EPOCH)
    run(machine(token, polling, age=100.0), lambda now: "CONNECTED" if now < 4 else "DISCONNECTED")
    assert polling.told[:2] == [("CONNECTED", 0, 100, None), ("CONNECTED", 2, 100, None)]


def test_a_fixed_interval_is_the_vendors_loop():
    polls, _, _ = run(machine(polling=Polling.fixed(2)), lambda now: "CALLING_A" if now < 7 else "CALL_A_FAILED")
    assert polls == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(("age", "wakes"), [(0.0, 300.0), (200.0, 100.0)])
def test_one_look_and_then_asleep_through_a_known_delay(age, wakes):
    callback = Callback(1, delay=300, placed_at=EPOCH)
    polls, _, _ = run(machine(callback, age=age), lambda now: "ACCEPTED" if now < wakes else "CALL_A_FAILED")
    assert polls == [0, pytest.approx(wakes + 0.4, abs=0.2)]


def test_where_calls_go_faster_than_in_life_so_do_delays():
    callback = Callback(1, delay=300, placed_at=EPOCH)
    watch = machine(callback, Polling(jitter=0, speed=10), age=0.0)
    polls, _, _ = run(watch, lambda now: "ACCEPTED" if now < 30 else "CALL_A_FAILED")
    assert polls == [0, pytest.approx(30.25, abs=0.25)]


def test_a_delay_of_unknown_beginning_is_not_slept_through():
    polls, _, _ = run(machine(Callback(1, delay=300)), lambda now: "ACCEPTED" if now < 2 else "CALL_A_FAILED")
    assert len(polls) > 3


def test_a_delay_is_not_slept_through_once_a_phone_rings():
    callback = Callback(1, delay=300, placed_at=EPOCH)
    polls, _, _ = run(machine(callback, age=0.0), lambda now: "CALLING_A" if now < 9 else "CALL_A_FAILED")
    assert max(polls) < 15


def test_jitter_keeps_a_fleet_apart():
    seconds = {run(machine(polling=Polling(), chance=chance / 10), lambda now: "CONNECTED" if not now else "DISCONNECTED")[0][1]
               for chance in range(10)}  # fmt: skip
    assert len(seconds) == 10


@pytest.mark.parametrize(
    "error", [ConnectionFailed("x"), RequestTimeout("x"), RateLimited(429), ServerError(503), ProtocolError("x")]
)
def test_an_outage_is_sat_out_for_120_s_and_five_polls(error):
    polls, emitted, ended = run(machine(), lambda now: "CALLING_A" if now == 0 else error)
    assert type(ended) is WatchInterrupted
    assert ended.cause is error
    assert ended.last is emitted[-1]
    assert ended.callback.status == "CALLING_A"
    row = polls[1:]
    assert len(row) >= 5
    assert row[-1] - row[0] >= 120
    assert row[-2] - row[0] < 120


def test_five_failures_are_needed_however_long_they_take():
    polls, _, ended = run(machine(polling=Polling.fixed(15)), lambda _: RateLimited(429, retry_after=100.0))
    assert polls == [0, 100, 200, 300, 400]
    assert type(ended) is WatchInterrupted


@pytest.mark.parametrize(
    ("apart", "polls"), [(30.0, [0, 30, 60, 90, 120]), (29.75, [0, 29.75, 59.5, 89.25, 119, 148.75])]
)
def test_an_outage_that_lasts_exactly_120_s_is_long_enough(apart, polls):
    asked, _, _ = run(machine(polling=Polling.fixed(1)), lambda _: RateLimited(429, retry_after=apart))
    assert asked == polls


def test_failed_polls_are_doubled_apart_from_a_second_to_15():
    polls, _, _ = run(machine(polling=Polling.fixed(0.5)), lambda _: ServerError(500))
    assert polls[:7] == [0, 1, 3, 7, 15, 30, 45]


@pytest.mark.parametrize(("chance", "first"), [(0.0, 1.0), (0.5, 0.875), (1.0, 0.75)])
def test_jitter_brings_the_next_poll_a_quarter_nearer_at_most(chance, first):
    watch = machine(polling=Told(every=0.25), chance=chance)
    assert watch.step(0.0, ServerError(500)) == Sleep(first)


def test_a_failed_poll_is_made_again_within_15_s_however_slow_the_schedule_is():
    answers = iter(["CALLING_A", ServerError(500), "DISCONNECTED"])
    polls, _, _ = run(machine(polling=Polling.fixed(60)), lambda _: next(answers))
    assert polls == [0, 60, 75]


def test_one_success_begins_a_new_row():
    def answer(now):
        return ServerError(500) if now < 100 or 115 < now < 200 else "DISCONNECTED" if now > 200 else "CALLING_A"

    _, emitted, ended = run(machine(polling=Polling.fixed(5)), answer)
    assert ended is None
    assert states(emitted) == ["CALLING_A", "DISCONNECTED"]


def test_a_stretch_moves_the_next_look():
    watch = machine(polling=Polling.fixed(10))
    watch.step(0.0, CallbackStatus.CALLING_A)
    assert [watch.restretch(stretch) for stretch in (3.0, 1.5, 1.0)] == [30, 15, 10]
    assert watch.wait == 10
    watch.restretch(4.0)
    assert watch.step(40.0, CallbackStatus.CALLING_A) == Sleep(80.0), "it holds for the looks to come too"
    assert watch.restretch(4.0) == 80
    assert watch.wait == 10


def test_a_stretch_is_not_of_the_delay():
    watch = machine(Callback(1, delay=100, placed_at=EPOCH), age=0.0)
    watch.step(0.0, CallbackStatus.ACCEPTED)
    assert 100 < watch.wait < 105
    assert watch.restretch(5.0) == pytest.approx(100 + 5 * (watch.wait - 100))


def test_a_stretch_is_of_all_of_the_wait_once_the_delay_is_over_or_where_delays_mean_nothing():
    watch = machine(Callback(1, delay=3, placed_at=EPOCH), Told(every=8.0), age=0.0)
    watch.step(10.0, CallbackStatus.ACCEPTED)
    assert watch.restretch(2.0) == 26
    watch = machine(Callback(1, delay=100, placed_at=EPOCH), Polling.fixed(10), age=0.0)
    watch.step(0.0, CallbackStatus.ACCEPTED)
    assert watch.restretch(3.0) == 30


def test_what_is_left_of_a_delay_counts_from_the_last_look():
    watch = machine(Callback(1, delay=100, placed_at=EPOCH), Told(every=95.0), age=0.0)
    watch.step(10.0, CallbackStatus.ACCEPTED)
    assert watch.restretch(3.0) == 10 + 90 + 3 * 5


def test_a_look_may_come_early_by_three_tenths_of_what_is_neither_delay_nor_fixed_nor_after_a_failure():
    watch = machine(Callback(1, delay=100, placed_at=EPOCH), Told(every=110.0), age=0.0)
    assert (watch.wait, watch.slack) == (0, 0), "before the first look there is none"
    watch.step(0.0, CallbackStatus.ACCEPTED)
    assert watch.slack == pytest.approx(3)
    watch.step(110.0, ServerError(500))
    assert watch.slack == 0
    watch = machine(polling=Polling.fixed(10))
    watch.step(0.0, CallbackStatus.CALLING_A)
    assert watch.slack == 0


def test_no_look_comes_so_early_that_the_interval_is_below_the_shortest():
    for every, slack in ((4.0, 0.0), (5.0, 1.0), (10.0, 3.0)):
        watch = machine(polling=Told(every=every, min_interval=4.0))
        watch.step(0.0, CallbackStatus.CALLING_A)
        assert watch.slack == slack


def test_a_first_look_waits_two_seconds_for_each_one_above_a_stretch_of_one():
    watch = machine(polling=Polling.fixed(10))
    assert [watch.restretch(stretch) for stretch in (1.0, 1.5, 4.0)] == [0, 1, 6]


def test_which_stretch_would_make_a_look_due():
    watch = machine(Callback(1, delay=100, placed_at=EPOCH), Told(every=95.0), age=0.0)
    assert watch.due_at_stretch(5.0) == 0, "there was no look yet"
    watch.step(10.0, CallbackStatus.ACCEPTED)
    assert [watch.due_at_stretch(now) for now in (100.0, 105.0, 115.0)] == [0, 1, 3]
    watch.step(105.0, ServerError(500))
    assert watch.due_at_stretch(115.0) == 0, "what follows a failure is not stretched"
    watch = machine(Callback(1, delay=100, placed_at=EPOCH), Told(every=90.0), age=0.0)
    watch.step(10.0, CallbackStatus.ACCEPTED)
    assert watch.due_at_stretch(115.0) == 0, "it is all delay"


def test_a_look_that_would_be_beyond_the_end_does_not_come_early():
    for timeout, slack in ((20.0, 0.0), (20.5, 6.0)):
        watch = machine(polling=Told(every=20.0), timeout=timeout)
        watch.step(0.0, CallbackStatus.CALLING_A)
        assert watch.slack == slack


def test_nor_of_what_follows_a_failure():
    watch = machine(polling=Polling.fixed(10))
    watch.step(0.0, CallbackStatus.CALLING_A)
    watch.step(10.0, ServerError(503, retry_after=42.0))
    assert [watch.restretch(stretch) for stretch in (3.0, 1.0)] == [52, 52]
    assert watch.wait == 10


def test_retry_after_is_honoured():
    polls, _, _ = run(machine(), lambda now: ServerError(503, retry_after=42.0) if now == 0 else "DISCONNECTED")
    assert polls == [0, 42]


@pytest.mark.parametrize(("age", "last"), [(None, 30), (0.0, 30), (20.0, 10), (31.0, 0)])
def test_not_found_passes_for_30_s_after_placing(age, last):
    placed = None if age is None else EPOCH
    polls, _, ended = run(machine(Callback(1, placed_at=placed), Polling.fixed(2), age=age), lambda _: NotFound(404))
    assert isinstance(ended.cause, NotFound)
    assert polls[-1] >= last
    assert len(polls) == 1 or polls[-2] < last


@pytest.mark.parametrize(("age", "passes"), [(29.75, True), (30.0, False)])
def test_not_found_ends_it_from_the_very_30th_second_on(age, passes):
    watch = machine(Callback(1, placed_at=EPOCH), Polling.fixed(2), age=age)
    assert isinstance(watch.step(0.0, NotFound(404)), Sleep if passes else Stop)


def test_any_other_refusal_ends_it_at_once():
    polls, _, ended = run(machine(), lambda _: BadCredentials(400, "BAD_CREDENTIALS"))
    assert polls == [0]
    assert type(ended) is WatchInterrupted


def test_regressions_and_strange_states_end_nothing():
    seen = iter(["CONNECTED", "CALLING_A", "ON_HOLD", "CONNECTED", "DISCONNECTED"])
    _, emitted, error = run(machine(), lambda _: next(seen))
    assert error is None
    assert states(emitted) == ["CONNECTED", "CALLING_A", "ON_HOLD", "CONNECTED", "DISCONNECTED"]
    assert [transition.is_regression for transition in emitted] == [False, True, False, False, False]
    after_strange = emitted[3]
    assert after_strange.previous == "ON_HOLD"
    assert after_strange.skipped == ("CALLING_B",), "relative to the last state that was known"


def test_the_time_is_up():
    polls, emitted, ended = run(machine(timeout=25), lambda _: "CONNECTED")
    assert type(ended) is WatchTimeout
    assert ended.last is emitted[0]
    assert max(polls) < 25


@pytest.mark.parametrize(
    ("answers", "known"),
    [
        ([], "no poll was answered in it"),
        (["CALLING_A"], "the callback is still under way"),
        ([ServerError(500)], "no poll has succeeded; the last failed with: TENIOS failed to answer (HTTP 500)"),
        (["CALLING_A", ServerError(500)], "its last poll failed with: TENIOS failed to answer (HTTP 500)"),
        ([ServerError(500), "CALLING_A"], "the callback is still under way"),
    ],
)
def test_when_the_time_is_up_the_error_says_what_is_known(answers, known):
    watch = machine(timeout=25)
    for at, answer in enumerate(answers):
        watch.step(at, CallbackStatus(answer) if isinstance(answer, str) else answer)
    stop = watch.step(25.0)
    assert known in str(stop.error)
    assert stop.error.cause is (answers[-1] if answers and isinstance(answers[-1], ServerError) else None)


def test_an_outage_that_ends_it_is_told_in_polls_and_seconds():
    _, _, ended = run(
        machine(polling=Polling.fixed(100)), lambda now: "CALLING_A" if not now else RateLimited(429, retry_after=100.0)
    )
    assert "5 polls in a row have failed in 400 s" in str(ended)


def test_a_millisecond_is_too_short_to_sleep_and_no_time_to_poll_in():
    assert machine(timeout=0.001).step(0.0) == Poll(0.001, 0.001)
    assert isinstance(machine(timeout=0.0009).step(0.0), Stop)
    for every, action in ((0.001, Sleep(0.001)), (0.0009, Poll(10.0, 7200.0))):
        watch = machine(Callback(1, status=CallbackStatus.CALLING_A), Told(every=every))
        assert watch.step(0.0, CallbackStatus.CALLING_A) == action


def test_a_watch_that_was_closed_wants_nothing_more():
    watch = machine()
    watch.close()
    assert watch.step(0.0) == watch.step(1.0, CallbackStatus.CONNECTED) == Stop(None)


def test_a_poll_gets_no_more_time_than_is_left():
    watch = machine(timeout=4)
    assert watch.step(0.0) == Poll(4.0, 4.0)
    assert watch.step(3.0) == Poll(1.0, 1.0)


def test_a_cancelled_poll_or_sleep_is_repeated():
    watch = machine()
    assert watch.step(0.0) == Poll(10.0, 7200.0)
    assert watch.step(0.1) == Poll(10.0, 7199.9)
    watch.step(0.2, CallbackStatus("CALLING_A"))
    assert watch.step(0.3) == watch.step(0.4)
    assert isinstance(watch.step(0.5), Sleep)


def test_a_token_repeats_nothing():
    callback = Callback.from_json(Callback(1, status="CALLING_B").to_json())
    _, emitted, _ = run(machine(callback), lambda now: "CALLING_B" if now < 9 else "DISCONNECTED")
    assert states(emitted) == ["DISCONNECTED"]
    assert (emitted[0].previous, emitted[0].skipped) == ("CALLING_B", ("CONNECTED",))


@pytest.mark.parametrize("state", ["DISCONNECTED", "CALL_A_FAILED", "CALL_B_FAILED"])
def test_an_ended_token_asks_nothing(state):
    assert run(machine(Callback(1, status=state)), lambda _: pytest.fail("polled")) == ([], [], None)


def test_elapsed_counts_from_placing_where_that_is_known():
    _, emitted, _ = run(machine(Callback(1, placed_at=EPOCH), age=7.0), lambda _: "DISCONNECTED")
    assert emitted[0].elapsed == 7.0


answers = st.lists(
    st.sampled_from([*STATES, "ON_HOLD", ServerError(500), RateLimited(429, retry_after=300.0), ConnectionFailed("x")]),
    max_size=30,
)


@given(answers, st.floats(0, 1), st.floats(1, 10_000), st.none() | st.integers(0, 500), st.none() | st.floats(0, 1000))
def test_whatever_comes_back(script, chance, timeout, delay, age):
    """Nothing after a terminal state, nothing twice in a row, no sleep past the deadline, an end."""
    coming = iter(script)
    watch = machine(Callback(1, delay=delay), Polling(), age=age, timeout=timeout, chance=chance)
    polls, emitted, ended = run(watch, lambda _: next(coming, "CONNECTED"), until=timeout)
    assert polls[-1] < timeout
    seen = states(emitted)
    assert all(a != b for a, b in pairwise(seen))
    terminal = [transition.is_terminal for transition in emitted]
    assert not any(terminal[:-1])
    assert (ended is None) is bool(terminal and terminal[-1])
    assert watch.step(10.0**9) == Stop(ended)
