"""Sampled lifecycles: determined by the seed, well-formed, and true to the published laws."""

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenios_async.simulator import Script, Service, scripts

TALK = ["ACCEPTED", "CALLING_A", "CALLING_B", "CONNECTED", "DISCONNECTED"]
PATHS = [TALK, [*TALK[:2], "CALL_A_FAILED"], [*TALK[:3], "CALL_B_FAILED"]]
BODY = b'{"access_key":"k","callback_config_id":"c","callback_number":"+4912","delay":"0"}'


def lives(seed, calls):
    service = Service(seed=seed)
    for _ in range(calls):
        service.handle("POST", "/callback/init", BODY)
    return [callback.script for callback in service.callbacks.values()]


@given(seed=st.integers(), calls=st.integers(1, 8))
def test_the_seed_says_it_all(seed, calls):
    """A callback's life does not depend on how many came after it."""
    assert lives(seed, calls) == lives(seed, calls + 2)[:calls]


def test_another_seed_gives_another_life():
    assert lives(1, 3) != lives(2, 3)
    assert len(set(lives(1, 20))) == 20


@given(seed=st.integers())
def test_every_sample_is_a_path_of_the_table(seed):
    script = Script.sampled(random.Random(seed))
    assert [status for status, _ in script.steps] in PATHS
    assert all(seconds >= 0 for _, seconds in script.steps)
    assert all(
        seconds <= scripts.RING_DURATION
        for status, seconds in script.steps
        if status not in ("ACCEPTED", "DISCONNECTED")
    )


@given(seed=st.integers(), delay=st.integers(0, 600), times=st.lists(st.floats(0, 7200), max_size=40))
def test_time_only_goes_forward(seed, delay, times):
    script = Script.sampled(random.Random(seed))
    order = ["REQUESTED", *(status for status, _ in script.steps)]
    seen = [order.index(script.state(elapsed, delay)) for elapsed in sorted(times)]
    assert seen == sorted(seen)
    assert all(script.state(elapsed, delay) in ("REQUESTED", "ACCEPTED") for elapsed in times if elapsed < delay)


def test_the_laws():
    """20,000 calls; the means of ringing are those of gamma laws cut off at the ring duration."""
    chance = random.Random(1)
    drawn = [dict(Script.sampled(chance).steps) for _ in range(20_000)]
    assert statistics.fmean(one["ACCEPTED"] for one in drawn) == pytest.approx(0.5, rel=0.03)
    assert statistics.fmean(one["CALLING_A"] for one in drawn) == pytest.approx(0.4, rel=0.03)
    assert statistics.fmean(one["CALLING_B"] for one in drawn if "CALLING_B" in one) == pytest.approx(7.875, rel=0.03)
    assert statistics.fmean(one["CONNECTED"] for one in drawn if "CONNECTED" in one) == pytest.approx(11.65, rel=0.03)
    assert statistics.median(one["DISCONNECTED"] for one in drawn if "DISCONNECTED" in one) == pytest.approx(
        109.5, rel=0.05
    )
    reached_b = [one for one in drawn if "CALLING_B" in one]
    assert sum("CALL_A_FAILED" in one for one in drawn) / len(drawn) == pytest.approx(0.0843, abs=0.008)
    assert sum("CALL_B_FAILED" in one for one in reached_b) / len(reached_b) == pytest.approx(0.2278, abs=0.012)
    assert {one["CALL_A_FAILED"] for one in drawn if "CALL_A_FAILED" in one} == {30.0}
