"""`tenios demo`, and what it looks like on a terminal."""

import asyncio
import importlib.util
import io
from pathlib import Path

import looptime
import pytest
from rich.console import Console

from tenios_async import Callback, Polling
from tenios_async.cli import calls, demo
from tenios_async.cli.output import Output
from tenios_async.simulator import Fault, Script, Service
from tenios_async.simulator.fixture import Simulator


@pytest.fixture
def screen():
    """An output on a terminal, and what was written to it."""
    file = io.StringIO()
    return Output(console=Console(file=file, force_terminal=True, width=100, highlight=False)), file


def test_the_demo_shows_each_way_a_call_can_end(environment, tenios):
    """Without a terminal, in plain lines; a proxy in the environment is not asked."""
    environment.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    done = tenios("demo", "--speed", 50)
    assert (done.code, done.err) == (0, "")
    assert "\x1b" not in done.out
    for status in ("DISCONNECTED", "CALL_A_FAILED", "CALL_B_FAILED"):
        assert status in done.out
    assert "5 calls, each placed once" in done.out


def test_the_demo_on_a_terminal(screen):
    output, file = screen
    assert asyncio.run(demo.play(output, speed=50)) == 0
    assert "\x1b" in file.getvalue()
    assert "CALL_B_FAILED" in file.getvalue()


def test_the_demo_fails_when_a_call_ends_otherwise(environment, tenios):
    environment.setattr("tenios_async.cli.demo.Script.agent_silent", Script.talk)
    done = tenios("demo", "--speed", 50, "--json")
    assert done.code == 1
    assert done.events[-1]["wrong"] == ["the agent is away: DISCONNECTED"]
    assert "not as expected: the agent is away" in done.err


def test_the_demo_fails_when_a_call_is_not_placed(environment, tenios):
    class Losing(Service):
        def __init__(self, **options):
            super().__init__(**options)
            self.fail_init(Fault.lost())

    environment.setattr("tenios_async.cli.demo.Service", Losing)
    done = tenios("demo", "--speed", 50, "--json")
    assert done.code == 1
    assert "a phone may ring" in done.err


def run_in_no_time(main):
    """In virtual time, by which a simulator in this process goes too."""
    with asyncio.Runner(
        loop_factory=lambda: looptime.patch_event_loop(asyncio.new_event_loop(), start=0.0, noop_cycles=0)
    ) as runner:
        return runner.run(main)


def test_a_watch_on_a_terminal_spins_below_its_lines(screen):
    """And a state nobody knows is shown as itself, whatever it holds."""
    output, file = screen

    async def follow():
        simulator = Simulator()
        simulator.script("+498005556677", Script((("[red]NEW[/]", 0.0), ("DISCONNECTED", 0.05))))
        async with simulator.client() as client:
            callback = await client.init_callback("config-id", "+498005556677")
        return await calls.follow(
            simulator.client(polling=Polling.fixed(0.03)), Callback(callback.id), output, timeout=None
        )

    assert run_in_no_time(follow()) == 0
    assert "[red]NEW[/]" in file.getvalue()
    assert "a state this version does not know" in file.getvalue()


def test_a_step_back_is_said():
    output = Output(console=Console(file=(file := io.StringIO())))

    async def follow():
        simulator = Simulator()
        simulator.script("+498005556677", Script((("CALLING_A", 0.0), ("DISCONNECTED", 0.05))))
        async with simulator.client() as client:
            await client.init_callback("config-id", "+498005556677")
        callback = Callback(10, status="CONNECTED")
        return await calls.follow(simulator.client(polling=Polling.fixed(0.03)), callback, output, timeout=None)

    assert run_in_no_time(follow()) == 0
    assert "after CONNECTED" in file.getvalue()


def test_the_picture_is_the_same_each_time():
    path = Path(__file__).parents[2] / "docs" / "render_watch.py"
    spec = importlib.util.spec_from_file_location("render_watch", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    picture = module.render()
    assert picture == module.render()
    assert "DISCONNECTED" in picture
