"""The watch machine and the schedule: exact instants, no clock."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

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
from tenios_async._watch import Emit, Poll, Seen, Sleep, Stop, WatchMachine

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
    )


def run(watch, answer, *, until=100_000.0):
    """Drives the machine by a function from the instant to what a poll brings; gives polls and what was emitted."""
    now, came, polls, emitted = 0.0, None, [], []
    while True:
        action = watch.step(now, came)
        came = None
        match action:
            case Poll():
                polls.append(now)
                got = answer(now)
                came = Seen(CallbackStatus(got), EPOCH + timedelta(seconds=now)) if isinstance(got, str) else got
            case Sleep(instant):
                assert instant > now
                now = instant
            case Emit(transition):
                emitted.append(transition)
            case Stop(error):
                return polls, emitted, error
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
    assert jump.not_before == EPOCH
    assert jump.polls == 2
    assert last.is_terminal
    assert last.callback.status == "DISCONNECTED"


def test_the_first_sight_is_relative_to_requested():
    _, emitted, _ = run(machine(), lambda _: "CALL_B_FAILED")
    assert emitted[0].skipped == ("ACCEPTED", "CALLING_A", "CALLING_B")
    assert emitted[0].previous is None


def test_exact_instants_by_state():
    """sqrt(2 c m) for m = 9.8, 16 and 190 s at c = 0.3; half a second while TENIOS accepts; afresh after each change."""
    timeline = [(0.0, "REQUESTED"), (1.2, "CALLING_A"), (5.0, "CALLING_B"), (10.0, "CONNECTED"), (40.0, "DISCONNECTED")]

    def answer(now):
        return [state for begins, state in timeline if begins <= now][-1]

    polls, emitted, _ = run(machine(polling=Polling(jitter=0)), answer)
    a, b, talk, first = (0.6 * 9.8) ** 0.5, (0.6 * 16) ** 0.5, (0.6 * 190) ** 0.5, (0.6 * 0.5) ** 0.5
    calling_a = 3 * first
    calling_b = calling_a + 2 * a
    connected = calling_b + 2 * b
    expected = [0, first, 2 * first, calling_a, calling_a + a, calling_b, calling_b + b, connected]
    expected += [connected + talk * n for n in (1, 2, 3)]
    assert polls == pytest.approx(expected)
    assert states(emitted) == [state for _, state in timeline]


def test_a_fixed_interval_is_the_vendors_loop():
    polls, _, _ = run(machine(polling=Polling.fixed(2)), lambda now: "CALLING_A" if now < 7 else "CALL_A_FAILED")
    assert polls == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(("age", "wakes"), [(0.0, 300.0), (200.0, 100.0)])
def test_one_look_and_then_asleep_through_a_known_delay(age, wakes):
    callback = Callback(1, delay=300, placed_at=EPOCH)
    polls, _, _ = run(machine(callback, age=age), lambda now: "ACCEPTED" if now < wakes else "CALL_A_FAILED")
    assert polls == [0, pytest.approx(wakes)]


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


def test_one_success_begins_a_new_row():
    def answer(now):
        return ServerError(500) if now < 100 or 115 < now < 200 else "DISCONNECTED" if now > 200 else "CALLING_A"

    _, emitted, ended = run(machine(polling=Polling.fixed(5)), answer)
    assert ended is None
    assert states(emitted) == ["CALLING_A", "DISCONNECTED"]


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


def test_a_poll_gets_no_more_time_than_is_left():
    watch = machine(timeout=4)
    assert watch.step(0.0) == Poll(4.0)
    assert watch.step(3.0) == Poll(1.0)


def test_a_cancelled_poll_or_sleep_is_repeated():
    watch = machine()
    assert watch.step(0.0) == watch.step(0.1) == Poll(10.0)
    watch.step(0.2, Seen(CallbackStatus("CALLING_A"), EPOCH))
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


@given(
    st.none() | st.sampled_from(STATES).map(CallbackStatus),
    st.integers(1, 50),
    st.none() | st.floats(-1000, 0),
    st.floats(0, 1),
    st.floats(0.001, 1000),
    st.booleans(),
)
def test_intervals_stay_in_bounds(status, looks, delay_left, chance, cost, only_end):
    polling = Polling(cost=cost, only_end=only_end)
    assert 0.5 <= polling.next_look(status, looks_in_state=looks, delay_left=delay_left, chance=chance) <= 30


@given(st.floats(31, 10**6), st.floats(0, 1), st.sampled_from(["REQUESTED", "ACCEPTED"]))
def test_a_delay_is_nearly_over_at_the_next_look(delay_left, chance, status):
    wait = Polling().next_look(CallbackStatus(status), looks_in_state=1, delay_left=delay_left, chance=chance)
    assert delay_left - 1 <= wait <= delay_left


@pytest.mark.parametrize(
    "options",
    [{"cost": 0}, {"cost": -1}, {"cost": float("nan")}, {"cost": float("inf")}, {"min_interval": 0}, {"max_interval": 0.1},
     {"jitter": 2}, {"jitter": -0.1}, {"cost": True}, {"cost": "1"}, {"fixed_interval": 0}],
)  # fmt: skip
def test_a_schedule_out_of_range(options):
    with pytest.raises(ValueError, match=r"must"):
        Polling(**options)


def test_waiting_for_the_end_looks_less_often():
    both = Polling(jitter=0), Polling(jitter=0).for_the_end()
    every, end = (p.next_look(CallbackStatus.CALLING_A, looks_in_state=1, delay_left=None, chance=0) for p in both)
    assert end > 2 * every
