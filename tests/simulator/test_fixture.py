"""What the fixture offers beside the model: clients of others, a server, and an outage."""

import asyncio
import os
import subprocess
import sys
import threading

import anyio
import httpx
import pytest

from tenios_async import (
    BadCredentials,
    CallbackOutcomeUnknown,
    ConnectionFailed,
    InvalidRequest,
    TeniosClient,
    WatchInterrupted,
)
from tenios_async.simulator import Fault, Script, Simulator, SimulatorServer

NUMBER = "+491234567890"
INIT = {"access_key": "key", "callback_config_id": "config", "callback_number": NUMBER, "delay": 0}


@pytest.mark.anyio
async def test_a_client_that_others_make_is_answered(tenios_simulator):
    """Also one that was made before, and only until the end of the block."""
    before = TeniosClient("key")
    with tenios_simulator.intercept() as same:
        assert same is tenios_simulator
        async with TeniosClient("key") as tenios:
            result = await tenios.wait_for_callback(await tenios.init_callback("config", NUMBER, delay=180))
        await before.init_callback("config", "+491234567891")
    await before.aclose()
    assert result.connected
    tenios_simulator.assert_called_once(NUMBER, delay=180)
    tenios_simulator.assert_called_once("+491234567891")
    tenios_simulator.assert_followed_to_the_end(NUMBER)
    assert httpx.AsyncHTTPTransport.handle_async_request.__module__.startswith("httpx.")


@pytest.mark.anyio
async def test_only_one_address_is_intercepted():
    ours, theirs = Simulator(), Simulator()
    with theirs.intercept("https://elsewhere.example"), ours.intercept():
        async with TeniosClient("key", base_url="https://elsewhere.example/base") as tenios:
            await tenios.init_callback("config", NUMBER)
    ours.assert_nobody_called()
    theirs.assert_called_once(NUMBER)


@pytest.mark.anyio
async def test_out_of_reach_nobody_is_called(tenios_simulator):
    async with tenios_simulator.client() as tenios:
        with tenios_simulator.unreachable():
            began = anyio.current_time()
            with pytest.raises(ConnectionFailed):
                await tenios.init_callback("config", NUMBER)
            assert 2.6 <= anyio.current_time() - began <= 4.4, (
                "0.5, 1 and 2 s between four tries, a quarter more or less"
            )
        tenios_simulator.assert_nobody_called()
        callback = await tenios.init_callback("config", NUMBER)
        tenios_simulator.assert_called_once(NUMBER)
        with tenios_simulator.unreachable():
            began = anyio.current_time()
            with pytest.raises(WatchInterrupted) as interrupted:
                await tenios.wait_for_callback(callback)
            assert anyio.current_time() - began > 100, "an outage is sat out for a while"
        assert (await tenios.wait_for_callback(interrupted.value.callback)).connected


@pytest.mark.anyio
async def test_a_refusal_has_the_code_that_was_asked_for(tenios_simulator):
    tenios_simulator.fail_init(Fault.refused("BAD_CREDENTIALS"), Fault.refused("ODD", 422), Fault.refused())
    async with tenios_simulator.client() as tenios:
        with pytest.raises(BadCredentials):
            await tenios.init_callback("config", NUMBER)
        for status_code, error_code in ((422, "ODD"), (400, "SIMULATED")):
            with pytest.raises(InvalidRequest) as refused:
                await tenios.init_callback("config", NUMBER)
            assert (refused.value.status_code, refused.value.error_code) == (status_code, error_code)
    tenios_simulator.assert_nobody_called()


@pytest.mark.anyio
async def test_a_stall_ends_in_doubt(tenios_simulator):
    tenios_simulator.fail_init(Fault.stalled(), number=NUMBER)
    async with tenios_simulator.client() as tenios:
        with pytest.raises(CallbackOutcomeUnknown):
            await tenios.init_callback("config", NUMBER)
    tenios_simulator.assert_called_once(NUMBER)


def test_a_program_finds_it(tenios_simulator):
    """And is held to account."""
    tenios_simulator.script(NUMBER, Script.ended("CALL_B_FAILED"))
    command = [sys.executable, "-m", "tenios_async", "init", NUMBER, "--config-id", "config", "--delay", "0", "--watch"]
    env = os.environ | tenios_simulator.environ
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=50, check=False)
    assert "CALL_B_FAILED" in done.stdout, done.stderr
    tenios_simulator.assert_called_once(NUMBER, delay=0)
    tenios_simulator.assert_followed_to_the_end(NUMBER)


def test_a_server_is_in_real_time_and_in_one_place(tenios_simulator):
    tenios_simulator.script(NUMBER, Script((("CALLING_A", 0.0),)))
    url = tenios_simulator.url
    assert tenios_simulator.url == url
    assert httpx.post(f"{url}/callback/init", json=INIT, trust_env=False).json() == {"id": 10}
    tenios_simulator.assert_called_once(NUMBER)
    assert tenios_simulator.service.state(10) == "CALLING_A"
    for way in (tenios_simulator.client, tenios_simulator.http_client, tenios_simulator.intercept().__enter__):
        with pytest.raises(RuntimeError, match="give your client its `url`"):
            way()
    with pytest.raises(RuntimeError, match="is a server now"):
        tenios_simulator.unreachable().__enter__()
    tenios_simulator.close()
    tenios_simulator.close()
    with pytest.raises(httpx.ConnectError):
        httpx.post(f"{url}/callback/init", json=INIT, trust_env=False)
    assert not any(thread.name == "tenios-simulator" for thread in threading.enumerate())


@pytest.mark.anyio
async def test_no_server_after_calls_by_another_clock(tenios_simulator):
    async with tenios_simulator.client() as tenios:
        await tenios.init_callback("config", NUMBER)
    with pytest.raises(RuntimeError, match="before the first"):
        _ = tenios_simulator.url


def test_a_server_that_cannot_be_says_why(tenios_simulator, monkeypatch):
    async def fails(*_):
        raise OSError("no sockets today")

    monkeypatch.setattr(asyncio, "start_server", fails)
    with pytest.raises(OSError, match="no sockets today"):
        _ = tenios_simulator.url


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_proxies_that_are_not_asked_are_still_not_asked(tenios_simulator, monkeypatch, name):
    for each in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(each, raising=False)
    assert tenios_simulator.environ["NO_PROXY"] == "127.0.0.1"
    monkeypatch.setenv(name, "example.org")
    assert tenios_simulator.environ["no_proxy"] == "example.org,127.0.0.1"


@pytest.mark.asyncio
async def test_a_server_of_ones_own_has_the_same_questions():
    """`Service` behind `SimulatorServer` is asked as the fixture is."""
    simulator = Simulator()
    async with SimulatorServer(simulator.service) as server, TeniosClient("key", base_url=server.base_url) as tenios:
        await tenios.init_callback("config", NUMBER)
    simulator.service.assert_called_once(NUMBER)
    simulator.assert_called_once(NUMBER)


ASYNC_TEST = """
import pytest

async def test_a_call(tenios_simulator):
    async with tenios_simulator.client() as tenios:
        await tenios.wait_for_callback(await tenios.init_callback("config", "+491234567890", delay=180))
    tenios_simulator.assert_called_once("+491234567890", delay=180)
    tenios_simulator.assert_followed_to_the_end("+491234567890")
"""


@pytest.mark.parametrize(
    ("mark", "options"),
    [
        ("pytest.mark.looptime", ["-o", "asyncio_mode=auto"]),
        ("[pytest.mark.asyncio, pytest.mark.looptime]", ["-o", "asyncio_mode=strict"]),
        ("[pytest.mark.asyncio, pytest.mark.looptime]", ["-p", "no:anyio"]),
    ],
)
def test_under_pytest_asyncio(tmp_path, mark, options):
    """In virtual time: three minutes and more within the timeout of a minute."""
    (tmp_path / "test_theirs.py").write_text(f"{ASYNC_TEST}\npytestmark = {mark}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
