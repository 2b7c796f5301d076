"""The `tenios_simulator` fixture, in this run and in pytest runs of its own."""

import subprocess
import sys

import anyio
import pytest

from tenios_async import CallbackOutcomeUnknown, RateLimited
from tenios_async.simulator import Fault, Script

NUMBER = "+491234567890"


@pytest.mark.anyio
async def test_a_call_from_first_to_last(tenios_simulator):
    """What the README promises: a whole call, in no time."""
    async with tenios_simulator.client() as tenios:
        callback = await tenios.init_callback("config", NUMBER, delay=180)
        began = anyio.current_time()
        result = await tenios.wait_for_callback(callback)
    assert result.connected
    assert anyio.current_time() - began > 180
    assert tenios_simulator.times_called(NUMBER) == 1
    tenios_simulator.assert_nobody_called_twice()


@pytest.mark.anyio
@pytest.mark.parametrize(("script", "party"), [(Script.agent_silent(), "A"), (Script.customer_silent(), "B")])
async def test_who_did_not_answer(tenios_simulator, script, party):
    tenios_simulator.script(NUMBER, script)
    async with tenios_simulator.client() as tenios:
        result = await tenios.wait_for_callback(await tenios.init_callback("config", NUMBER))
    assert result.failed_party == party


@pytest.mark.anyio
async def test_faults(tenios_simulator):
    tenios_simulator.fail_init(Fault.busy("2"), Fault.lost())
    async with tenios_simulator.client() as tenios:
        with pytest.raises(RateLimited) as refused:
            await tenios.init_callback("config", NUMBER)
        assert refused.value.retry_after == 2
        with pytest.raises(CallbackOutcomeUnknown):
            await tenios.init_callback("config", "+4912")
    assert len(tenios_simulator.service.callbacks) == 1


@pytest.mark.anyio
async def test_a_poll_that_fails_is_survived(tenios_simulator):
    tenios_simulator.fail_status(Fault.error(), Fault.error(503))
    async with tenios_simulator.client() as tenios:
        result = await tenios.wait_for_callback(await tenios.init_callback("config", NUMBER))
    assert result.connected


@pytest.mark.anyio
async def test_any_http_client(tenios_simulator):
    http = tenios_simulator.http_client()
    answer = await http.post(f"{tenios_simulator.base_url}/callback/init", json={})
    assert answer.status_code == 400


TESTS = """
import pytest

def test_sync(tenios_simulator):
    tenios_simulator.assert_nobody_called_twice()
    assert tenios_simulator.times_called("+4912") == 0

def test_each_has_its_own(tenios_simulator, request):
    assert request.getfixturevalue("tenios_simulator") is tenios_simulator
"""


@pytest.mark.parametrize(
    "without", [[], ["anyio"], ["looptime_plugin", "asyncio"], ["looptime_plugin", "asyncio", "anyio"]]
)
def test_with_and_without_async_plugins(tmp_path, without):
    """Looptime itself does not go without pytest-asyncio."""
    (tmp_path / "test_theirs.py").write_text(TESTS)
    off = [option for name in without for option in ("-p", f"no:{name}")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *off, str(tmp_path)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert "2 passed" in result.stdout, result.stdout + result.stderr
