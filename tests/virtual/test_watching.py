"""The client and its watch, in virtual time, on asyncio and on trio."""

import gc
import logging
import math
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from itertools import pairwise

import anyio
import httpx
import pytest

from tenios_async import (
    BadCredentials,
    Callback,
    CallbackStatus,
    ClientMisuse,
    Ended,
    Placed,
    Polled,
    Polling,
    Transitioned,
    WatchInterrupted,
    WatchTimeout,
)

pytestmark = pytest.mark.anyio
TALK = [
    (0, "REQUESTED"),
    (0.6, "ACCEPTED"),
    (1.2, "CALLING_A"),
    (7, "CALLING_B"),
    (15, "CONNECTED"),
    (60, "DISCONNECTED"),
]
STATES = [state for _, state in TALK]


async def collect(watch):
    return [str(transition.status) async for transition in watch]


@pytest.mark.parametrize(
    ("ending", "states"),
    [
        ("DISCONNECTED", STATES),
        ("CALL_A_FAILED", [*STATES[:3], "CALL_A_FAILED"]),
        ("CALL_B_FAILED", [*STATES[:4], "CALL_B_FAILED"]),
    ],
)
async def test_every_ending(vendor, ending, states):
    timeline = [(begins, state) for begins, state in TALK if state in states]
    service = vendor([*timeline, (70, ending)])
    async with service.client() as tenios:
        assert await collect(tenios.watch_callback(10)) == states
        asked = len(service.polls)
    assert len(service.polls) == asked


async def test_exact_instants(vendor):
    """Each look is due when the schedule says so, counted from the look before."""
    service = vendor([(0, "CALLING_A"), (5, "CONNECTED"), (30, "DISCONNECTED")])
    async with service.client() as tenios:
        await collect(tenios.watch_callback(10))
    polling, expected = Polling(jitter=0), [0.0]
    began_within, since = 0.0, 0.0
    while (now := expected[-1]) < 30:
        state = CallbackStatus.CALLING_A if now < 5 else CallbackStatus.CONNECTED
        if now >= 5 > expected[-2]:
            began_within, since = now - expected[-2], now
        wait = polling.next_look(state, seen_for=now - since, began_within=began_within, delay_left=None, chance=0.5)
        expected.append(now + wait)
    assert service.polls == pytest.approx(expected, abs=1e-4)
    assert 4 < len(expected) < 8


async def test_asleep_through_a_known_delay(vendor):
    service = vendor([(0, "REQUESTED"), (300, "CALLING_A"), (310, "CALL_A_FAILED")])
    async with service.client() as tenios:
        callback = await tenios.init_callback("config", "+4912", delay=300)
        await collect(tenios.watch_callback(callback))
    assert service.polls[0] == 0
    assert service.polls[1] == pytest.approx(300, abs=0.5)


async def test_a_ten_hour_talk(vendor):
    service = vendor([(0, "CONNECTED"), (36_000, "DISCONNECTED")])
    async with service.client() as tenios:
        assert await collect(tenios.watch_callback(10, timeout=math.inf)) == ["CONNECTED", "DISCONNECTED"]


async def test_the_default_time_is_the_delay_and_two_hours(vendor):
    service = vendor([(0, "CONNECTED")])
    async with service.client() as tenios:
        began = anyio.current_time()
        with pytest.raises(WatchTimeout) as caught:
            await collect(tenios.watch_callback(Callback(10, delay=100)))
        assert anyio.current_time() - began == pytest.approx(7300)
    assert caught.value.callback.status == "CONNECTED"


async def test_waiting_polls_less_and_says_how_it_went(vendor):
    watched, waited = vendor(TALK), vendor(TALK)
    async with watched.client() as tenios:
        await collect(tenios.watch_callback(10))
    async with waited.client() as tenios:
        result = await tenios.wait_for_callback(10)
    assert (result.status, result.connected, result.failed_party) == ("DISCONNECTED", True, None)
    assert result.transitions[-1].is_terminal
    assert len(waited.polls) < len(watched.polls)


async def test_resumed_elsewhere_without_repeating(vendor):
    service = vendor(TALK)
    async with service.client() as tenios:
        watch = tenios.watch_callback(10)
        while (await anext(watch)).status != "CALLING_A":
            pass
        token = watch.callback.to_json()
    async with service.client() as tenios:
        rest = await collect(tenios.watch_callback(Callback.from_json(token)))
    assert rest == ["CALLING_B", "CONNECTED", "DISCONNECTED"]


@pytest.mark.parametrize("heartbeat", [0.05, 0.3, 0.7, 1.9, 5.0])
async def test_a_cancelled_anext_is_repeated_and_nothing_is_lost(vendor, heartbeat):
    """A server-sent-events loop with a heartbeat: it cuts through sleeps and through polls that are under way."""
    service = vendor(TALK, latency=0.04)
    seen = []
    async with service.client() as tenios:
        watch = tenios.watch_callback(10)
        while True:
            with anyio.move_on_after(heartbeat):
                try:
                    seen.append(await anext(watch))
                except StopAsyncIteration:
                    break
    assert [transition.status for transition in seen][-1] == "DISCONNECTED"
    chain = [STATES.index(transition.status) for transition in seen]
    assert chain == sorted(set(chain))
    for before, after in pairwise(seen):
        assert after.previous == before.status


@pytest.fixture
def _collected_quickly():
    """What was there before is not gone through each time: in a process that has run many tests that takes a second."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("_collected_quickly")
async def test_abandoned_at_any_moment_leaves_nothing(vendor):
    """Broken off, cancelled and garbage-collected at many moments; warnings are errors, and no request stays open."""
    for tenth in range(40):
        service = vendor(TALK, latency=0.15)
        async with service.client() as tenios:
            watch = tenios.watch_callback(10)
            with anyio.move_on_after(tenth / 10):
                async for _ in watch:
                    if tenth % 3 == 0:
                        break
            del watch
            gc.collect()
            assert service.open == 0
            asked = len(service.polls)
            await anyio.sleep(100)
            assert len(service.polls) == asked


async def test_one_step_at_a_time(vendor):
    service = vendor(TALK, latency=1)
    async with service.client() as tenios:
        watch = tenios.watch_callback(10)
        async with anyio.create_task_group() as group:
            group.start_soon(watch.__anext__)
            await anyio.sleep(0.5)
            for step in (anext(watch), watch.aclose(), watch.athrow(ValueError())):
                with pytest.raises(ClientMisuse):
                    await step
        assert watch.last.status == "REQUESTED"


async def test_it_is_an_async_generator(vendor):
    service = vendor(TALK)
    async with service.client() as tenios:
        watch = tenios.watch_callback(10)
        assert isinstance(watch, AsyncGenerator)
        assert (await watch.asend(None)).status == "REQUESTED"
        with pytest.raises(TypeError):
            await watch.asend(1)
        with pytest.raises(KeyError):
            await watch.athrow(KeyError)
        assert [_ async for _ in watch] == []
        closed = tenios.watch_callback(10)
        await closed.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(closed)


async def test_an_outage_is_sat_out(vendor):
    service = vendor([(0, "CALLING_A"), (3, lambda: httpx.Response(503)), (80, "CALLING_B"), (110, "DISCONNECTED")])
    async with service.client() as tenios:
        assert await collect(tenios.watch_callback(10)) == ["CALLING_A", "CALLING_B", "DISCONNECTED"]


@pytest.mark.parametrize("body", [b"", b'{"message": "no healthy upstream"}', b"<html>"])
async def test_a_refusal_that_is_a_proxys_is_sat_out(vendor, body):
    service = vendor([(0, lambda: httpx.Response(421, content=body)), (3, "DISCONNECTED")])
    async with service.client(polling=Polling.fixed(3)) as tenios:
        assert (await tenios.wait_for_callback(10)).callback.status == "DISCONNECTED"


async def test_an_outage_that_lasts_ends_the_watch(vendor):
    service = vendor([(0, "CALLING_A"), (3, lambda: httpx.Response(502, text="<html>"))])
    async with service.client() as tenios:
        watch = tenios.watch_callback(10)
        with pytest.raises(WatchInterrupted) as caught:
            await collect(watch)
        assert await collect(watch) == []
    error = caught.value
    assert error.__cause__ is error.cause
    assert error.last.status == "CALLING_A"
    assert Callback.from_json(error.callback.to_json()).status == "CALLING_A"


async def test_retry_after_is_obeyed(vendor):
    busy = httpx.Response(429, headers={"Retry-After": "42"})
    service = vendor([(0, lambda: busy), (10, "DISCONNECTED")])
    async with service.client() as tenios:
        await collect(tenios.watch_callback(10))
    assert service.polls == [0, 42]


async def test_wrong_credentials_end_it_at_once(vendor):
    service = vendor([(0, lambda: httpx.Response(400, json={"error_code": "BAD_CREDENTIALS"}))])
    async with service.client() as tenios:
        with pytest.raises(WatchInterrupted) as caught:
            await collect(tenios.watch_callback(10))
    assert isinstance(caught.value.cause, BadCredentials)
    assert len(service.polls) == 1


async def test_a_strange_state_is_passed_on_and_logged_once(vendor, caplog):
    service = vendor([(0, "ON_HOLD"), (50, "CONNECTED"), (60, "ON_HOLD"), (90, "DISCONNECTED")])
    with caplog.at_level(logging.WARNING):
        async with service.client() as tenios:
            assert await collect(tenios.watch_callback(10)) == ["ON_HOLD", "CONNECTED", "ON_HOLD", "DISCONNECTED"]
    assert len(caplog.records) == 1


async def test_observers_are_told_and_cannot_harm(vendor, caplog):
    events = []

    def raising(_):
        raise RuntimeError("observer")

    service = vendor([(0, "CALLING_A"), (2, "CALL_A_FAILED")])
    async with service.client(observers=[raising, events.append]) as tenios:
        callback = await tenios.init_callback("config", "+4912")
        await collect(tenios.watch_callback(callback))
    assert [type(event) for event in events] == [Placed, Polled, Transitioned, Polled, Transitioned, Ended]
    assert events[-1].status == "CALL_A_FAILED"
    assert len([record for record in caplog.records if "observer" in record.message]) == len(events)


async def test_a_closed_client_says_so(vendor):
    service = vendor(TALK)
    tenios = service.client()
    watch = tenios.watch_callback(10)
    await anext(watch)
    await tenios.aclose()
    await tenios.aclose()
    with pytest.raises(ClientMisuse):
        await tenios.callback_status(10)
    with pytest.raises(ClientMisuse):
        await tenios.init_callback("config", "+4912")
    with pytest.raises(ClientMisuse):
        tenios.watch_callback(10)
    with pytest.raises(WatchInterrupted) as caught:
        await anext(watch)
    assert isinstance(caught.value.cause, ClientMisuse)
    assert (service.inits, len(service.polls)) == (0, 1)


@pytest.mark.parametrize("at", [0.5, 5.0], ids=["in a poll", "asleep"])
async def test_a_watch_that_is_awaited_ends_with_its_client(vendor, at):
    """At once, and not at its next look."""
    service = vendor([(0, "CALLING_A")], latency=1)
    tenios, ended = service.client(), []

    async def follow():
        with pytest.raises(WatchInterrupted) as caught:
            await collect(tenios.watch_callback(10, polling=Polling.fixed(50)))
        assert isinstance(caught.value.cause, ClientMisuse)
        ended.append(anyio.current_time())

    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        await anyio.sleep(at)
        closed = anyio.current_time()
        await tenios.aclose()
    assert ended == [closed]


@pytest.mark.parametrize(
    ("timeline", "says"),
    [
        ([(0, "CALLING_A")], "still under way"),
        ([(0, lambda: httpx.Response(503))], "no poll has succeeded; the last failed with: TENIOS failed"),
        ([(0, "CALLING_A"), (1, lambda: httpx.Response(503))], "its last poll failed with: TENIOS failed"),
    ],
)
async def test_a_watch_whose_time_is_up_says_what_it_knows(vendor, timeline, says):
    service = vendor(timeline)
    async with service.client() as tenios:
        with pytest.raises(WatchTimeout, match=says):
            await collect(tenios.watch_callback(10, timeout=20))


@pytest.mark.parametrize("timeout", [0, -1, math.nan, True, "1", pytest.param(10**400, id="10**400")])
async def test_bad_arguments_are_refused_before_anything_is_sent(vendor, timeout):
    service = vendor(TALK)
    async with service.client() as tenios:
        with pytest.raises(ValueError, match="timeout"):
            await tenios.init_callback("config", "+4912", timeout=timeout)
        with pytest.raises(ValueError, match="timeout"):
            await tenios.callback_status(10, timeout=timeout)
        with pytest.raises(ValueError, match="timeout"):
            tenios.watch_callback(10, timeout=timeout)
        with pytest.raises(ValueError, match="id"):
            tenios.watch_callback(1.5)
        with pytest.raises(ValueError, match="delay"):
            await tenios.init_callback("config", "+4912", delay=-1)
        with pytest.raises(ValueError, match="attempt"):
            await tenios.init_callback("config", "+4912", attempt=5)
        with pytest.raises(TypeError, match=r"init_callback\(\) .*'dealy'"):
            await tenios.init_callback("config", "+4912", dealy=30)
        with pytest.raises(ValueError, match="Polling"):
            tenios.watch_callback(10, polling=2)
    assert service.began is None


async def test_elapsed_counts_from_placing(vendor):
    service = vendor([(0, "CALLING_A"), (1, "CALL_A_FAILED")])
    async with service.client(polling=Polling.fixed(2)) as tenios:
        callback = await tenios.init_callback("config", "+4912")
        assert callback.placed_at.utcoffset() == datetime.now(UTC).utcoffset()
        seen = [transition async for transition in tenios.watch_callback(callback)]
    assert seen[1].elapsed - seen[0].elapsed == pytest.approx(2)
    assert seen[0].elapsed < 1
