"""examples/worker on a real Redis, with real processes that are killed: the simulator counts who was rung."""

import asyncio
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import attrs
import pytest

from tenios_async.batch import RowState
from tenios_async.batch.ledger_file import LedgerFile
from tenios_async.simulator import Fault, Script, Service, SimulatorServer

pytest.importorskip("taskiq_redis", reason="taskiq-redis is not installed")

from redis.asyncio import Redis
from taskiq.receiver import Receiver

from worker.programs import EXAMPLES, Program, Worker, kill_group, redis_server
from worker.stream import Stream

README = EXAMPLES / "worker" / "README.md"
NUMBER = "+49221123456"
FULL_AFTER = 160
"""Blocks that a file may have: more than an empty ledger, less than one with sixty calls."""
pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.timeout(90),  # each starts several programs
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed"),
]


class Tenios(Service):
    """Keeps calls in a state until it is told to let them go on, and kills who asks for a call, if told to."""

    def __init__(self):
        super().__init__(script=Script((("DISCONNECTED", 0.0),)))
        self.held = None
        self.polled = asyncio.Event()
        self.ended = asyncio.Event()
        self.killed = asyncio.Event()
        self.victim = None

    def state(self, callback_id):
        return self.held or super().state(callback_id)

    def handle(self, method, path, body):
        answer = super().handle(method, path, body)
        if path.endswith("/status"):
            self.polled.set()
            if b"DISCONNECTED" in answer.body:
                self.ended.set()
        elif self.victim is not None:
            os.kill(self.victim, signal.SIGKILL)
            self.victim = None
            self.killed.set()
        return answer


@pytest.fixture(autouse=True)
def nothing_is_left():
    """Also where a test hangs, and is ended without being unwound."""
    yield
    for pid in Program.alive:  # where a promise is broken
        kill_group(pid)
    Program.alive.clear()


@attrs.define
class World:
    """A Redis, a TENIOS and a ledger; and programs that are started as they are needed."""

    service: Tenios
    env: dict
    folder: Path
    stack: AsyncExitStack
    redis: AsyncExitStack

    async def start(self, program):
        await self.stack.enter_async_context(program)
        if isinstance(program, Worker):
            await program.listens()
        return program

    def worker(self, queue):
        return self.start(Worker(queue, env=self.env))

    def web(self, *options):
        return self.start(Program(sys.executable, "-m", "worker.web", *options, env=self.env))

    async def order(self, *keys, number=NUMBER):
        """What a web process does with requests; it ends when they are in Redis."""
        web = await self.web()
        for key in keys:
            web.tell(f"{key} {number}")
        assert await web.end() == 0
        assert all(line.endswith(": accepted") for line in web.lines)

    def rows(self):
        with LedgerFile.read(self.env["CALLBACK_LEDGER"]) as ledger:
            return {row.key: (row.standing.state, row.standing.status) for row in ledger.rows()}

    def check_nobody_was_called_twice(self, numbers=1):
        self.service.assert_nobody_called_twice()
        assert len(self.service.inits) == numbers


@asynccontextmanager
async def made(tmp_path, redeliver_after):
    service = Tenios()
    async with SimulatorServer(service) as server, AsyncExitStack() as redis, AsyncExitStack() as stack:
        env = {
            "REDIS_URL": await redis.enter_async_context(redis_server(tmp_path)),
            "TENIOS_BASE_URL": server.base_url,
            "TENIOS_ACCESS_KEY": "key",
            "TENIOS_CALLBACK_CONFIG_ID": "config",
            "CALLBACK_LEDGER": str(tmp_path / "calls.db"),
            "CALLBACK_REDELIVER_AFTER": str(redeliver_after),
            "NO_PROXY": "127.0.0.1",
        }
        LedgerFile.create(env["CALLBACK_LEDGER"], {"kind": "keyed"})
        yield World(service, env, tmp_path, stack, redis)


@pytest.fixture
def world(tmp_path):
    return made(tmp_path, redeliver_after=1)


FINISHED = (RowState.FINISHED, "DISCONNECTED")


async def test_placed_in_one_worker_and_followed_in_two(world):
    """Each order is sent twice and queued twice; each number is called once, and each end is written down."""
    async with world as here:
        here.service.held = "CALLING_A"
        calls, one, other = await asyncio.gather(*map(here.worker, ("calls", "watches", "watches")))
        web = await here.web()
        keys = [f"order-{n}" for n in range(20)]
        for n, key in enumerate(keys):
            web.tell(f"{key} +4922112345{n:02}")
            web.tell(f"{key} +4922112345{n:02}")
        assert await web.end() == 0
        for key in keys:
            await calls.says(f"{key}: CALLING_A")
        assert sum(len([line for line in worker.lines if "tasks:follow" in line]) for worker in (one, other)) == 20
        here.service.held = None
        for key in keys:
            await calls.says(f"{key}: DISCONNECTED")
        assert here.rows() == dict.fromkeys(keys, FINISHED)
        here.check_nobody_was_called_twice(numbers=20)


async def test_a_watcher_that_is_killed_is_replaced(world):
    """The token in its job resumes the watch, in another worker."""
    async with world as here:
        here.service.held = "CALLING_A"
        calls, watcher = await asyncio.gather(*map(here.worker, ("calls", "watches")))
        await here.order("order")
        await calls.says("order: CALLING_A")
        await watcher.kill()
        other = await here.worker("watches")
        await asyncio.wait(
            [asyncio.ensure_future(worker.says("tasks:follow", n)) for worker, n in ((other, 1), (watcher, 2))],
            return_when=asyncio.FIRST_COMPLETED,
        )
        here.service.held = None
        await calls.says("order: DISCONNECTED")
        assert here.rows() == {"order": FINISHED}
        here.check_nobody_was_called_twice()


async def test_a_worker_that_is_killed_while_it_places(world):
    """TENIOS has the request, and the answer finds nobody: the job comes again, the call does not."""
    async with world as here:
        calls = await here.worker("calls")
        here.service.victim = await calls.worker_pid()
        await here.order("order")
        await calls.says("order may have been called, and is not called again")
        assert here.rows() == {"order": (RowState.UNKNOWN, None)}
        await here.order("order")
        await calls.says("order may have been called", 2)
        here.check_nobody_was_called_twice()


async def test_a_worker_that_is_killed_once_it_has_placed(world):
    """The answer was there and perhaps written down, and its job perhaps done: whatever it is, the call ends once."""
    async with world as here:
        calls, _ = await asyncio.gather(*map(here.worker, ("calls", "watches")))
        await here.order("order")
        await here.service.polled.wait()
        await calls.kill()
        await calls.says("order: DISCONNECTED")
        assert here.rows() == {"order": FINISHED}
        here.check_nobody_was_called_twice()


async def test_a_job_that_is_delivered_again_calls_nobody(world):
    """The same entry of the stream, byte for byte, long after its call has ended."""
    async with world as here:
        await here.order("order")
        async with Redis.from_url(here.env["REDIS_URL"]) as redis:
            ((_, job),) = await redis.xrange("calls")
            calls, _ = await asyncio.gather(*map(here.worker, ("calls", "watches")))
            await calls.says("order: DISCONNECTED")
            for _ in range(3):
                await redis.xadd("calls", job)
            await calls.says("tasks:place", 4)
            calls.stop()
            assert await calls.end() == 0
        assert here.rows() == {"order": FINISHED}
        here.check_nobody_was_called_twice()


async def test_a_worker_that_hangs_and_comes_back(world):
    """Its watch has been taken over by then; two follow, one call was placed."""
    async with world as here:
        here.service.held = "CALLING_A"
        calls, watcher = await asyncio.gather(*map(here.worker, ("calls", "watches")))
        await here.order("order")
        await calls.says("order: CALLING_A")
        os.kill(await watcher.worker_pid(), signal.SIGSTOP)
        other = await here.worker("watches")
        await other.says("tasks:follow")
        os.kill(await watcher.worker_pid(), signal.SIGCONT)
        here.service.held = None
        await calls.says("order: DISCONNECTED", 2)
        assert here.rows() == {"order": FINISHED}
        here.check_nobody_was_called_twice()


async def test_a_worker_that_is_told_to_stop_hands_its_watches_over(tmp_path):
    """At once, and not when it is missed: here that would be in ten hours."""
    async with made(tmp_path, redeliver_after=36_000) as here:
        here.service.held = "CALLING_A"
        calls, watcher = await asyncio.gather(*map(here.worker, ("calls", "watches")))
        await here.order("order")
        await calls.says("order: CALLING_A")
        watcher.stop()
        assert await watcher.end() == 0
        assert not any("Traceback" in line for line in watcher.lines)
        here.service.held = None
        await here.worker("watches")
        await calls.says("order: DISCONNECTED")
        assert len([line for line in calls.lines if "order: CALLING_A" in line]) == 1, "no transition is repeated"
        assert here.rows() == {"order": FINISHED}
        here.check_nobody_was_called_twice()


async def test_redis_loses_everything(world):
    """The workers wait for it, and what the ledger knows is followed again."""
    async with world as here:
        here.service.held = "CALLING_A"
        calls, watcher = await asyncio.gather(*map(here.worker, ("calls", "watches")))
        await here.order("order")
        await calls.says("order: CALLING_A")
        watcher.stop()
        await watcher.end()
        await here.redis.aclose()
        port = int(here.env["REDIS_URL"].rpartition(":")[2])
        await here.redis.enter_async_context(redis_server(here.folder, port))
        here.service.held = None
        _, again = await asyncio.gather(calls.listens(2), here.worker("watches"))
        command = "import asyncio; from worker.tasks import *; asyncio.run(follow_all.kiq())"
        await (await here.start(Program(sys.executable, "-c", command, env=here.env))).end()
        await again.says("tasks:follow")
        await calls.says("order: DISCONNECTED")
        assert here.rows() == {"order": FINISHED}
        here.check_nobody_was_called_twice()


async def test_redis_goes_away_in_the_middle_of_a_watch(world):
    """The end of the call is seen meanwhile, and told once Redis is back."""
    async with world as here:
        here.service.held = "CALLING_A"
        calls, _ = await asyncio.gather(*map(here.worker, ("calls", "watches")))
        await here.order("order")
        await calls.says("order: CALLING_A")
        await here.redis.aclose()
        here.service.held = None
        await here.service.ended.wait()
        port = int(here.env["REDIS_URL"].rpartition(":")[2])
        await here.redis.enter_async_context(redis_server(here.folder, port))
        await calls.says("order: DISCONNECTED")
        assert here.rows() == {"order": FINISHED}
        here.check_nobody_was_called_twice()


async def test_a_web_process_that_places_itself(world):
    """And is killed while it does; the next one knows, and ends as it should."""
    async with world as here:
        here.service.held = "CALLING_A"
        web = await here.web("--placing")
        web.tell(f"first {NUMBER}")
        await web.says("first: accepted")
        await here.worker("watches")
        await here.service.polled.wait()
        here.service.victim = web.pid
        web.tell("second +49221123457")
        await here.service.killed.wait()
        other = await here.web("--placing")
        other.tell(f"first {NUMBER}")
        await other.says("second may have been called, and is not called again")
        here.service.held = None
        await other.says("first: DISCONNECTED")
        assert await other.end() == 0
        assert here.rows() == {"first": FINISHED, "second": (RowState.UNKNOWN, None)}
        here.check_nobody_was_called_twice(numbers=2)


async def test_what_rang_nobody_is_tried_again_unless_it_was_refused_for_good(world):
    async with world as here:
        here.service.fail_init(Fault.busy("1"), number=NUMBER)
        here.service.fail_init(Fault.refused("INVALID_FIELDS"), number="+49221123457")
        calls, _ = await asyncio.gather(*map(here.worker, ("calls", "watches")))
        await here.order("busy")
        await here.order("wrong", number="+49221123457")
        await calls.says("busy was not called, and will be")
        await calls.says("busy: DISCONNECTED")
        await calls.says("wrong was not called: ")
        assert here.rows() == {"busy": FINISHED, "wrong": (RowState.QUEUED, None)}
        here.service.assert_called_once(NUMBER)
        here.service.assert_not_called("+49221123457")
        assert here.service.inits == {NUMBER: 2, "+49221123457": 1}


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits on Windows")
async def test_a_ledger_that_cannot_be_written_loses_nothing(world):
    """Its disk is full in the middle; once there is room again, all is placed that was not."""
    async with world as here:
        calls = Worker("calls", env=here.env)
        limited = f"ulimit -f {FULL_AFTER}; exec {shlex.join(calls.command)}"
        full = await here.start(Program("sh", "-c", limited, env=here.env))
        await full.says("Listening started")
        web, keys = await here.web(), [f"order-{n}" for n in range(60)]
        for n, key in enumerate(keys):
            web.tell(f"{key} +4922112345{n:02}")
        assert await web.end() == 0
        await full.says("the ledger failed")
        full.stop()
        await full.end()
        calls, _ = await asyncio.gather(*map(here.worker, ("calls", "watches")))
        for key in keys:
            await calls.says(f"{key}: DISCONNECTED|{key} may have been called")
        here.check_nobody_was_called_twice(numbers=60)
        states = {state for state, _ in here.rows().values()}
        assert len(here.rows()) == 60
        assert states <= {RowState.FINISHED, RowState.UNKNOWN}


async def test_a_second_placing_worker_is_refused(world):
    async with world as here:
        await here.worker("calls")
        second = await here.stack.enter_async_context(Worker("calls", env=here.env))
        await second.says(r"LedgerInUse: .*calls\.db is in use")


async def test_what_is_no_number_is_not_queued(world):
    async with world as here:
        web = await here.web()
        web.tell("order 110")
        assert await web.end() == 0
        assert "not accepted" in web.lines[-1]
        async with Redis.from_url(here.env["REDIS_URL"]) as redis:
            assert await redis.xlen("calls") == 0


async def test_who_is_alive_keeps_its_jobs_and_who_is_silent_loses_them(tmp_path):
    """Idle times are set, not waited for."""
    async with redis_server(tmp_path) as url, Redis.from_url(url) as redis:
        alive, silent = (Stream(url, "queue") for _ in range(2))
        await alive.startup()
        await silent.startup()
        for stream in (alive, silent):
            job = await redis.xadd("queue", {"data": stream.consumer_name})
            await redis.xreadgroup("taskiq", stream.consumer_name, {"queue": ">"})
            await redis.xclaim("queue", "taskiq", stream.consumer_name, 0, [job], idle=3_600_000)
        await alive._say_alive(redis)
        await alive._take_from_the_dead(redis)
        (kept,) = await redis.xpending_range("queue", "taskiq", "-", "+", 10)
        assert kept["consumer"].decode() == alive.consumer_name
        ((_, jobs),) = await redis.xreadgroup("taskiq", "another", {"queue": ">"})
        assert [fields for _, fields in jobs] == [{b"data": silent.consumer_name.encode()}]
        await alive.shutdown()
        await silent.shutdown()


def losing(monkeypatch, name):
    """Has that method lose its first cancellation, as `asyncio.wait_for` may; gives what tells that it is waiting."""
    waiting, real = asyncio.Event(), getattr(Stream, name)

    async def lossy(*arguments):
        waiting.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return await real(*arguments)

    monkeypatch.setattr(Stream, name, lossy)
    return waiting


async def test_a_cancellation_that_gets_lost_ends_it_all_the_same(tmp_path, monkeypatch):
    reading, keeping = losing(monkeypatch, "_read"), losing(monkeypatch, "_say_alive")
    async with redis_server(tmp_path) as url:
        stream = Stream(url, "queue")
        stream.is_worker_process = True
        await stream.startup()
        stop = asyncio.Event()
        receiver = asyncio.create_task(Receiver(stream, run_startup=False).listen(stop))
        await asyncio.gather(reading.wait(), keeping.wait())
        stop.set()
        await receiver
        await stream.shutdown()


async def test_only_what_is_done_is_forgotten(tmp_path):
    async with redis_server(tmp_path) as url, Redis.from_url(url) as redis:
        stream = Stream(url, "queue")
        ids = [await redis.xadd("queue", {"data": str(n)}) for n in range(4)]  # before any worker, and not lost
        await stream.startup()

        async def left():
            await stream._forget_what_is_done(redis)
            return [entry for entry, _ in await redis.xrange("queue")]

        assert await left() == ids, "none was delivered"
        await redis.xreadgroup("taskiq", "me", {"queue": ">"}, count=3)
        await redis.xack("queue", "taskiq", ids[0], ids[2])
        assert await left() == ids[1:], "the second is not done"
        await redis.xack("queue", "taskiq", ids[1])
        assert await left() == ids[3:], "the last was not delivered"
        await stream.shutdown()


async def test_the_readme(world):
    """Its commands, with a Redis and a TENIOS of the test's own; and its links."""
    text = README.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("https://") or (README.parent / target).exists(), target
    (shell,) = [block for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) if "pip install" in block]
    pip, *commands = shell.splitlines()
    assert all(map(version, pip.split()[2:]))
    async with world as here:
        env = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        programs = []
        for command in commands:
            words = shlex.split(command)
            if words[0] == "export":
                env.update(word.split("=", 1) for word in words[1:])
                env |= {"REDIS_URL": here.env["REDIS_URL"], "TENIOS_BASE_URL": here.env["TENIOS_BASE_URL"]}
                continue
            line = command.replace("calls.db", str(here.folder / "of-readme.db"))
            env["CALLBACK_LEDGER"] = str(here.folder / "of-readme.db")
            program = await here.start(Program("sh", "-c", line, env=env))
            programs.append(program)
            if words[0] == "taskiq":
                await program.says("Listening started")
            else:
                assert await program.end() == 0, program.lines
        _, calls, _, web = programs
        assert web.lines == ["order-4711: accepted"]
        await calls.says("order-4711: DISCONNECTED")
        here.check_nobody_was_called_twice()


async def test_the_demo():
    async with Program(sys.executable, "-m", "worker.demo") as demo:
        assert await demo.end() == 0
    assert "1 UNKNOWN, 3 FINISHED" in "\n".join(demo.lines) or "3 FINISHED, 1 UNKNOWN" in "\n".join(demo.lines)


async def test_the_demo_leaves_nothing_when_it_is_told_to_stop(tmp_path):
    env = {"TMPDIR": str(tmp_path)}
    async with Program(sys.executable, "-m", "worker.demo", env=env) as demo:
        await demo.says("order-1: accepted")
        (folder,) = tmp_path.iterdir()
        demo.stop()
        await demo.end()
    assert not folder.exists()
    assert not [line for line in demo.lines if "Traceback" in line]


async def test_the_demo_without_redis_says_what_is_missing():
    env = {**os.environ, "PATH": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "-m", "worker.demo"], cwd=EXAMPLES, env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "this example needs redis-server; on Debian and Ubuntu: apt-get install redis-server\n"
