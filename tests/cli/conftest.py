"""A simulator on a socket, in a thread of its own, and the `tenios` command in this process or another."""

import asyncio
import contextlib
import json
import subprocess
import sys
import threading

import pytest

from tenios_async.cli import run
from tenios_async.simulator import Script, Service, SimulatorServer

KEY = "s3cret-key-of-the-tests"
NUMBER = "+498005556677"
FAST = Script(
    (("ACCEPTED", 0.02), ("CALLING_A", 0.02), ("CALLING_B", 0.02), ("CONNECTED", 0.02), ("DISCONNECTED", 0.02))
)
LONG = Script((("ACCEPTED", 0.0), ("CALLING_A", 0.0), ("CALLING_B", 3600.0)))


class ObservedService(Service):
    """A service that a test in another thread can wait for."""

    def __init__(self, **options):
        super().__init__(access_key=KEY, config_ids=["config-id"], **options)
        self.asked = threading.Event()

    def handle(self, method, path, body):
        answer = super().handle(method, path, body)
        self.asked.set()
        return answer


@contextlib.contextmanager
def serving(service):
    """The base URL of a server in a thread."""
    ready, box = threading.Event(), {}

    async def serve():
        async with SimulatorServer(service) as server:
            box["url"], box["loop"], box["over"] = server.base_url, asyncio.get_running_loop(), asyncio.Event()
            ready.set()
            await box["over"].wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield box["url"]
    finally:
        box["loop"].call_soon_threadsafe(box["over"].set)
        thread.join(10)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Nothing of this machine's environment reaches a test."""
    for name in (
        *("TENIOS_ACCESS_KEY", "TENIOS_BASE_URL", "TENIOS_CALLBACK_CONFIG_ID", "FORCE_COLOR", "SSL_CERT_DIR"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "NO_PROXY", "no_proxy"),
    ):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def service():
    return ObservedService(script=FAST)


@pytest.fixture
def configured(service, environment):
    """The environment of somebody who has set everything up; gives the base URL."""
    with serving(service) as url:
        environment.setenv("TENIOS_BASE_URL", url)
        environment.setenv("TENIOS_ACCESS_KEY", KEY)
        environment.setenv("TENIOS_CALLBACK_CONFIG_ID", "config-id")
        yield url


class Tenios:
    """What the command did: its exit code, its lines, its events."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def events(self):
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def tenios(capsys):
    """Runs the command in this process. Whatever it does, the key is in none of its output."""

    def call(*arguments):
        code = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert KEY not in out + err
        assert NUMBER not in out + err
        assert "Traceback" not in err
        return Tenios(code, out, err)

    return call


@pytest.fixture
def start():
    """Starts the command in a process of its own; it does not outlive the test."""
    started = []

    def popen(*arguments, **options):
        process = subprocess.Popen(
            [sys.executable, "-m", "tenios_async", *map(str, arguments)],
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8", **options},
        )
        started.append(process)
        return process

    yield popen
    for process in started:
        process.kill()
        process.communicate()
