"""One rate over a whole client, in virtual time, on asyncio and trio."""

import anyio
import httpx
import pytest

from tenios_async import CallbackAttempt, ConnectionFailed, Rate, RateLimited, TeniosClient

pytestmark = pytest.mark.anyio
STATE = [(0, "CALLING_A")]


async def at_once(*requests):
    async with anyio.create_task_group() as group:
        for request in requests:
            group.start_soon(request)


async def test_requests_are_evenly_spaced(vendor):
    service = vendor(STATE)
    async with service.client(rate_limit=Rate(2)) as tenios:
        await at_once(*[lambda: tenios.callback_status(10)] * 5)
        assert service.polls == [0, 0.5, 1.0, 1.5, 2.0]
        await anyio.sleep(100)
        await at_once(*[lambda: tenios.callback_status(10)] * 2)
    assert service.polls[5:] == [102, 102.5]


async def test_calls_go_first_and_take_every_second_turn(vendor):
    asked = []

    async def poll():
        await tenios.callback_status(10)
        asked.append("look")

    async def call():
        await tenios.init_callback("config", "+491234567890")
        asked.append("call")

    async with vendor(STATE).client(rate_limit=Rate(1)) as tenios:
        await at_once(poll, poll, poll, poll, call, call, call)
    assert asked == ["look", "call", "look", "call", "look", "call", "look"]


async def test_a_turn_that_comes_too_late_is_not_waited_for(vendor):
    """Nothing was sent, and the place goes to the next."""
    service = vendor(STATE)
    async with service.client(rate_limit=Rate(1, per=10)) as tenios:
        await tenios.callback_status(10)
        attempt = CallbackAttempt()
        with pytest.raises(ConnectionFailed, match="rate limit"):
            await tenios.init_callback("config", "+491234567890", timeout=3, attempt=attempt)
        assert attempt.outcome == "NOT_SENT"
        assert anyio.current_time() == 3
        await tenios.callback_status(10)
    assert service.polls == [0, 10]
    assert service.inits == 0


async def test_whoever_is_cancelled_gives_the_place_up(vendor):
    service = vendor(STATE)
    async with service.client(rate_limit=Rate(1)) as tenios, anyio.create_task_group() as group:
        await tenios.callback_status(1)
        with anyio.move_on_after(0.5):
            group.start_soon(tenios.callback_status, 2)
            await tenios.callback_status(3)
    assert service.polls == [0, 1]


@pytest.mark.parametrize("code", [429, 503])
async def test_a_refusal_slows_everybody_down(vendor, code):
    """To half at once, then by a tenth of the full rate a second back to it."""
    refusals = iter([httpx.Response(code)])
    service = vendor([(0, lambda: next(refusals, httpx.Response(200, json={"status": "CALLING_A"})))])
    async with service.client(rate_limit=Rate(10)) as tenios:
        with pytest.raises(Exception, match=str(code)):
            await tenios.callback_status(10)
        await at_once(*[lambda: tenios.callback_status(10)] * 60)
    gaps = [round(later - sooner, 5) for sooner, later in zip(service.polls, service.polls[1:], strict=False)]
    assert gaps[0] == 0.2
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] == 0.1
    assert 0.1 not in gaps[:35]  # it takes five seconds


async def test_a_retry_after_holds_everybody(vendor):
    refusals = iter([httpx.Response(429, headers={"Retry-After": "30"})])
    service = vendor([(0, lambda: next(refusals, httpx.Response(200, json={"status": "CALLING_A"})))])
    async with service.client(rate_limit=Rate(10)) as tenios:
        with pytest.raises(RateLimited):
            await tenios.callback_status(10)
        await tenios.callback_status(10, timeout=60)
    assert service.polls == [0, 30]


async def test_a_refused_call_slows_the_polls_too(vendor):
    body = {"error_code": "TOO_MANY", "error_message": "slow down", "fields": []}
    service = vendor(STATE, init=lambda: httpx.Response(429, json=body, headers={"Retry-After": "5"}))
    async with service.client(rate_limit=Rate(10)) as tenios:
        with pytest.raises(RateLimited):
            await tenios.init_callback("config", "+491234567890")
        await tenios.callback_status(10)
        assert anyio.current_time() == 5


async def test_what_is_no_rate():
    with pytest.raises(ValueError, match="rate_limit"):
        TeniosClient("key", rate_limit=20)
