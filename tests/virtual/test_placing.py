"""What becomes of a call that is cancelled, retried or refused, in virtual time."""

import asyncio
import gc
import math
import os
import sys

import anyio
import httpx
import pytest
import trio

from tenios_async import (
    AttemptOutcome,
    CallbackAttempt,
    CallbackOutcomeUnknown,
    CallbackRequest,
    ClientMisuse,
    ConnectionFailed,
    TeniosClient,
)

anyio_test = pytest.mark.anyio


def run(coroutine):
    """As asyncio.run, but leaves the loop that pytest-asyncio has set where it is."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(coroutine)


@anyio_test
@pytest.mark.parametrize(
    ("latency", "outcome", "seconds"), [(1.0, "PLACED", 1.0), (2.5, "PLACED", 2.5), (9.0, "UNKNOWN", 3.5)]
)
async def test_cancelled_after_it_left(vendor, latency, outcome, seconds):
    """The scope ends at 1.5 s; the grace is 2 s."""
    service = vendor(latency=latency)
    attempt = CallbackAttempt()
    async with service.client() as tenios:
        began = anyio.current_time()
        with anyio.move_on_after(1.5):
            await tenios.init_callback("config", "+4912", attempt=attempt)
        assert anyio.current_time() - began == pytest.approx(seconds)
    assert attempt.outcome == outcome
    assert (attempt.callback is not None) is (outcome == "PLACED")
    assert service.inits == 1


@anyio_test
async def test_cancelled_at_every_moment(vendor):
    """However it is cut, the attempt knows, and the vendor was asked at most once."""
    for hundredth in range(0, 120, 3):
        service = vendor(latency=0.5)
        attempt = CallbackAttempt(lambda: anyio.sleep(0.4))
        async with service.client(cancel_grace=0.2) as tenios:
            with anyio.move_on_after(hundredth / 100):
                await tenios.init_callback("config", "+4912", attempt=attempt)
        expected = "NOT_SENT" if hundredth < 40 else "UNKNOWN" if hundredth < 70 else "PLACED"
        assert attempt.outcome == expected, hundredth
        assert service.inits <= 1
        assert service.open == 0


@anyio_test
async def test_before_send_is_awaited_once(vendor):
    calls = []

    async def before_send():
        calls.append(service.inits)

    service = vendor()
    async with service.client() as tenios:
        callback = await tenios.init_callback("config", "+4912", attempt=(attempt := CallbackAttempt(before_send)))
        with pytest.raises(ClientMisuse):
            await tenios.init_callback("config", "+4912", attempt=attempt)
    assert attempt.callback == callback
    assert (calls, service.inits) == ([0], 1)


@anyio_test
async def test_a_request_says_it_all(vendor):
    service = vendor()
    async with service.client() as tenios:
        callback = await tenios.init_callback(CallbackRequest("config", "+4912", 30))
        assert (callback.callback_config_id, callback.delay) == ("config", 30)
        with pytest.raises(ValueError, match="CallbackRequest"):
            await tenios.init_callback(CallbackRequest("config", "+4912"), "+4912")
        with pytest.raises(ValueError, match="CallbackRequest"):
            await tenios.init_callback(CallbackRequest("config", "+4912"), delay=3)
    assert service.inits == 1


class Unreachable(httpx.AsyncBaseTransport):
    """Tells what httpcore tells, and never connects."""

    def __init__(self):
        self.tries = []

    async def handle_async_request(self, request):
        self.tries.append(anyio.current_time())
        await request.extensions["trace"]("connection.connect_tcp.started", {})
        raise httpx.ConnectError("refused")


@anyio_test
@pytest.mark.parametrize(("timeout", "tries"), [(0.1, 1), (1.0, 2), (30.0, 4)])
async def test_what_was_not_sent_is_tried_again_within_the_deadline(timeout, tries):
    transport = Unreachable()
    http_client = httpx.AsyncClient(transport=transport)
    async with TeniosClient("KEY", base_url="https://x.test", http_client=http_client) as tenios:
        began = anyio.current_time()
        with pytest.raises(ConnectionFailed):
            await tenios.init_callback("config", "+4912", timeout=timeout, attempt=(attempt := CallbackAttempt()))
        assert anyio.current_time() - began <= timeout
    assert len(transport.tries) == tries
    assert attempt.outcome is AttemptOutcome.NOT_SENT


@pytest.mark.asyncio
@pytest.mark.looptime
async def test_natively_cancelled(vendor):
    service = vendor(latency=2)
    attempt = CallbackAttempt()
    async with service.client() as tenios:
        loop = asyncio.get_running_loop()
        began = loop.time()
        task = asyncio.create_task(tenios.init_callback("config", "+4912", attempt=attempt))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert loop.time() - began == pytest.approx(2)
    assert attempt.callback.id == 10
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.asyncio
@pytest.mark.looptime
async def test_closing_waits_for_the_grace_and_no_longer(vendor):
    service = vendor(latency=100)
    tenios = service.client()
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(tenios.init_callback("config", "+4912"))
    await asyncio.sleep(1)
    began = loop.time()
    await tenios.aclose()
    assert loop.time() - began == pytest.approx(2)
    with pytest.raises(CallbackOutcomeUnknown):
        await task


def test_the_end_of_the_loop_settles_the_attempt(vendor):
    attempt = CallbackAttempt()

    async def main():
        tenios = vendor(latency=100).client(cancel_grace=0.01)
        task = asyncio.create_task(tenios.init_callback("config", "+4912", attempt=attempt))
        for _ in range(50):
            await asyncio.sleep(0)
        return task

    run(main())
    assert attempt.outcome is AttemptOutcome.UNKNOWN


def test_another_event_loop_is_refused(vendor):
    tenios = vendor([(0, "CONNECTED")]).client()
    run(tenios.callback_status(10))
    for misuse in (
        tenios.callback_status(10),
        tenios.init_callback("config", "+4912"),
        anext(tenios.watch_callback(10)),
    ):
        with pytest.raises(ClientMisuse, match="another event loop"):
            run(misuse)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_is_refused(vendor):
    service = vendor([(0, "CONNECTED")])

    async def main():
        async with service.client() as tenios:
            await tenios.callback_status(10)
            child = os.fork()
            if child == 0:
                refused = 0
                for use in (
                    lambda: tenios.init_callback("config", "+4912").send(None),
                    lambda: tenios.watch_callback(10),
                    tenios.monitor,
                    lambda: tenios.aclose().send(None),
                ):
                    try:
                        use()
                    except ClientMisuse as error:
                        refused += "fork" in str(error)
                os._exit(refused)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])  # the child ends at once

    assert run(main()) == 4


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"access_key": ""}, "access key"), ({"base_url": "http://api.tenios.com"}, "plain http"), ({"timeout": 0}, "timeout"),
        ({"max_connections": 0}, "max_connections"), ({"polling": 2}, "polling"), ({"cancel_grace": -1}, "cancel_grace"),
        ({"http_client": object()}, "http_client"), ({"http_client": httpx.AsyncClient(), "max_connections": 5}, "belong"),
        ({"cancel_grace": "2"}, "cancel_grace"), ({"cancel_grace": None}, "cancel_grace"), ({"cancel_grace": 10**400}, "cancel_grace"), ({"cancel_grace": math.inf}, "cancel_grace"), ({"timeout": 10**400}, "timeout"), ({"ssl_context": "x"}, "ssl_context"),
        ({"allow_insecure_http": "false"}, "True or False"), ({"allow_insecure_http": "0"}, "True or False"), ({"allow_insecure_http": 1}, "True or False"),
        ({"observers": 5}, "observers"), ({"observers": [5]}, "observers"), ({"observers": [anyio.sleep]}, "observers"),
    ],
)  # fmt: skip
def test_a_client_is_not_made_of_bad_arguments(options, match):
    with pytest.raises(ValueError, match=match):
        TeniosClient(**{"access_key": "KEY", **options})


def test_an_argument_that_there_is_not_is_one_error_and_no_more(monkeypatch):
    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    with pytest.raises(TypeError, match="bogus"):
        TeniosClient("KEY", bogus=1)
    gc.collect()
    assert not ignored


def test_the_environment_says_key_and_url(monkeypatch):
    monkeypatch.setenv("TENIOS_ACCESS_KEY", "KEY")
    assert TeniosClient().base_url == "https://api.tenios.com"
    monkeypatch.setenv("TENIOS_BASE_URL", "https://x.test/api/")
    assert TeniosClient().base_url == "https://x.test/api"
    assert TeniosClient(base_url="https://y.test").base_url == "https://y.test"
    monkeypatch.setenv("TENIOS_BASE_URL", "")
    with pytest.raises(ValueError, match="base_url"):  # what is set and empty was meant to lead elsewhere
        TeniosClient()
    monkeypatch.delenv("TENIOS_ACCESS_KEY")
    with pytest.raises(ValueError, match="TENIOS_ACCESS_KEY"):
        TeniosClient()


def test_a_room_that_was_asked_for_before_there_was_a_loop_is_not_settled():
    """On trio there is no pool."""
    tenios = TeniosClient("key", base_url="http://127.0.0.1:9")
    assert tenios.transport == "pool"

    async def ask():
        async with tenios:
            assert tenios.transport == "httpx"
            with pytest.raises(ConnectionFailed):
                await tenios.callback_status(1, timeout=5)

    trio.run(ask)
