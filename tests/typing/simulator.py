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
    Init,
    Manner,
    Script,
    Service,
    SimulatedCallback,
    Simulator,
    SimulatorApp,
    SimulatorServer,
    SimulatorTransport,
)


def scripting() -> None:
    assert_type(Script((("CALLING_A", 0.5), ("CALL_A_FAILED", 30.0))).steps, tuple[tuple[str, float], ...])
    assert_type(Script.talk(ringing=6, seconds=30), Script)
    assert_type(Script.agent_silent(ring_duration=30), Script)
    assert_type(Script.customer_silent(ringing=6, ring_duration=30), Script)
    assert_type(Script.ended("DISCONNECTED"), Script)
    assert_type(Script.sampled(random.Random(1)), Script)
    assert_type(Script(()).state(1.0, 0.0), str)


def failing() -> None:
    assert_type(Fault(500, before=True, body=b"", headers=(("Retry-After", "1"),), manner=Manner.WHOLE), Fault)
    assert_type(Fault.busy(retry_after=None), Fault)
    assert_type(Fault.error(503, accepted=True), Fault)
    assert_type(Fault.garbage(b"<html>"), Fault)
    assert_type(Fault.lost(Manner.STALL), Fault)
    assert_type(Fault.refused("BAD_REQUEST", status_code=400), Fault)
    assert_type(Fault.stalled(), Fault)
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
    assert_type(service.requests, dict[str, list[Init]])
    assert_type(service.is_reachable, bool)
    assert_type(service.told, dict[int, str])
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
    tenios_simulator.assert_called_once("+491234567890", delay=30)
    tenios_simulator.assert_not_called("+491234567891")
    tenios_simulator.assert_nobody_called()
    tenios_simulator.assert_followed_to_the_end("+491234567890")
    with tenios_simulator.intercept() as intercepted, tenios_simulator.unreachable():
        assert_type(intercepted, Simulator)


def for_programs(tenios_simulator: Simulator) -> None:
    assert_type(tenios_simulator.url, str)
    assert_type(tenios_simulator.environ, dict[str, str])
    tenios_simulator.close()


def asked(init: Init) -> None:
    assert_type(init.at, float)
    assert_type(init.request, Mapping[str, Any])
    assert_type(init.is_refused, bool)
