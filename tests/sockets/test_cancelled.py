"""Rule 1, the last row: a call cancelled after a byte left is still learned, and the cancellation goes on."""

import asyncio

import anyio
import pytest

from tenios_async import AttemptOutcome, CallbackAttempt

from .misbehaving import PLACED, Server, hold
from .placing import CONFIG, NUMBER

GRACE = {True: 5.0, False: 0.05}


def assert_settled(attempt, server, *, answers):
    assert attempt.outcome is (AttemptOutcome.PLACED if answers else AttemptOutcome.UNKNOWN)
    assert (attempt.callback and attempt.callback.id) == (10 if answers else None)
    assert server.inits == {NUMBER: 1}


@pytest.mark.anyio
@pytest.mark.parametrize("answers", [True, False])
async def test_by_a_cancel_scope(client, answers):
    attempt = CallbackAttempt()
    async with Server(hold(PLACED)) as server, client(server.url, cancel_grace=GRACE[answers]) as tenios:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: tenios.init_callback(CONFIG, NUMBER, attempt=attempt))
                await server.until_request()
                scope.cancel()
                if answers:
                    server.release()
    assert scope.cancelled_caught
    assert_settled(attempt, server, answers=answers)


@pytest.mark.anyio
async def test_by_a_scope_in_the_same_task(client):
    attempt = CallbackAttempt()

    async def stop_it():
        await server.until_request()
        scope.cancel()
        server.release()

    async with Server(hold(PLACED)) as server, client(server.url, cancel_grace=5) as tenios:
        async with anyio.create_task_group() as group:
            with anyio.CancelScope() as scope:
                group.start_soon(stop_it)
                await tenios.init_callback(CONFIG, NUMBER, attempt=attempt)
    assert scope.cancelled_caught
    assert_settled(attempt, server, answers=True)


@pytest.mark.asyncio
@pytest.mark.parametrize("answers", [True, False])
async def test_natively(client, answers):
    attempt = CallbackAttempt()
    async with Server(hold(PLACED)) as server, client(server.url, cancel_grace=GRACE[answers]) as tenios:
        task = asyncio.create_task(tenios.init_callback(CONFIG, NUMBER, attempt=attempt))
        await server.until_request()
        task.cancel()
        if answers:
            server.release()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert_settled(attempt, server, answers=answers)


@pytest.mark.asyncio
@pytest.mark.parametrize("answers", [True, False])
async def test_by_a_timeout_of_asyncio(client, answers):
    attempt = CallbackAttempt()
    limits = []

    async def call():
        async with asyncio.timeout(None) as limit:
            limits.append(limit)
            await tenios.init_callback(CONFIG, NUMBER, attempt=attempt)

    async with Server(hold(PLACED)) as server, client(server.url, cancel_grace=GRACE[answers]) as tenios:
        task = asyncio.create_task(call())
        await server.until_request()
        limits[0].reschedule(0)
        if answers:
            server.release()
        with pytest.raises(TimeoutError):
            await task
        assert_settled(attempt, server, answers=answers)


@pytest.mark.asyncio
async def test_a_second_cancellation_waits_no_longer(client):
    attempt = CallbackAttempt()
    async with Server(hold(PLACED)) as server, client(server.url, cancel_grace=1000) as tenios:
        task = asyncio.create_task(tenios.init_callback(CONFIG, NUMBER, attempt=attempt))
        await server.until_request()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert_settled(attempt, server, answers=False)


@pytest.mark.asyncio
async def test_the_end_of_the_loop_waits_no_longer(client):
    """`asyncio.run` cancels what is left, twice over if need be; the attempt still says what is known."""
    attempt = CallbackAttempt()
    async with Server(hold(PLACED)) as server, client(server.url, cancel_grace=0.05) as tenios:

        async def call():
            await tenios.init_callback(CONFIG, NUMBER, attempt=attempt)

        tasks = [asyncio.create_task(call())]
        await server.until_request()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert_settled(attempt, server, answers=False)
