# pyright: reportUnnecessaryTypeIgnoreComment=true
"""The face of `tenios_async.simulator` and its fixture, as type checkers see it. Checked by `make check`, never run."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any, assert_type

import httpx

from tenios_async import TeniosClient
from tenios_async.simulator import (
    Answer,
    Fault,
    Manner,
    Script,
    Service,
    SimulatedCallback,
    SimulatorApp,
    SimulatorServer,
    SimulatorTransport,
)
from tenios_async.simulator.fixture import Simulator


def scripting() -> None:
    assert_type(Script((("CALLING_A", 0.5), ("CALL_A_FAILED", 30.0))).steps, tuple[tuple[str, float], ...])
    assert_type(Script.talk(ringing=6, seconds=30), Script)
    assert_type(Script.agent_silent(ring_duration=30), Script)
    assert_type(Script.customer_silent(ringing=6, ring_duration=30), Script)
    assert_type(Script.sampled(random.Random(1)), Script)
    assert_type(Script(()).state(1.0, 0.0), str)


def failing() -> None:
    assert_type(Fault(500, before=True, body=b"", headers=(("Retry-After", "1"),), manner=Manner.WHOLE), Fault)
    assert_type(Fault.busy(retry_after=None), Fault)
    assert_type(Fault.error(503, accepted=True), Fault)
    assert_type(Fault.garbage(b"<html>"), Fault)
    assert_type(Fault.lost(Manner.STALL), Fault)
    assert_type([Manner.DROP, Manner.RESET], list[Manner])


def serving() -> None:
    service = Service(
        clock=lambda: 0.0,
        seed=1,
        speed=10,
        access_key="key",
        config_ids=["config"],
        script=Script.talk(),
        latency=0.1,
    )
    service.script("+491234567890", Script.talk())
    service.fail_init(Fault.lost(), number="+491234567890")
    service.fail_status(Fault.busy(), Fault.busy())
    service.assert_nobody_called_twice()
    assert_type(service.inits, Counter[str])
    assert_type(service.polls, Counter[int])
    assert_type(service.callbacks, dict[int, SimulatedCallback])
    assert_type(service.state(10), str)
    answer = service.handle("POST", "/callback/init", b"{}")
    assert_type(answer, Answer)
    assert_type(answer.status_code, int)
    assert_type(answer.body, bytes)
    assert_type(answer.headers, tuple[tuple[str, str], ...])
    assert_type(answer.manner, Manner)
    SimulatorApp(service)
    transport: httpx.AsyncBaseTransport = SimulatorTransport(service)
    httpx.AsyncClient(transport=transport)


def placed(callback: SimulatedCallback) -> None:
    assert_type([callback.id, callback.delay], list[int])
    assert_type(callback.number, str)
    assert_type(callback.request, Mapping[str, Any])
    assert_type(callback.accepted_at, float)
    assert_type(callback.script, Script)


async def listening(service: Service) -> None:
    async with SimulatorServer(service, host="127.0.0.1", port=0, allow_remote=False) as server:
        assert_type(server, SimulatorServer)
        assert_type(server.base_url, str)


def in_a_test(tenios_simulator: Simulator) -> None:
    assert_type(tenios_simulator.client(timeout=3), TeniosClient)
    assert_type(tenios_simulator.http_client(), httpx.AsyncClient)
    assert_type(tenios_simulator.base_url, str)
    assert_type(tenios_simulator.service, Service)
    tenios_simulator.script("+491234567890", Script.talk())
    tenios_simulator.fail_init(Fault.lost(), number=None)
    tenios_simulator.fail_status(Fault.busy())
    assert_type(tenios_simulator.times_called("+491234567890"), int)
    tenios_simulator.assert_nobody_called_twice()
