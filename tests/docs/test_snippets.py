"""Every code block of README and docs is executed."""

import asyncio
import inspect
import logging
import re
import shlex
import subprocess
from importlib.metadata import metadata

import anyio
import httptools  # noqa: F401  # pytester forgets what is first imported under it, and an extension cannot be imported twice
import looptime
import psycopg  # noqa: F401  # as httptools
import pytest
import respx
import trustme

from tenios_async.__main__ import main as command
from tenios_async.simulator import Script, Service, SimulatorServer, SimulatorTransport

from .pages import FENCE, PAGES, ROOT, TUTORIAL, read

BLOCKS = [
    pytest.param(language, code, id=f"{page.name}-{number}-{language}")
    for page in PAGES
    if page != TUTORIAL  # which test_tutorial.py does as a whole
    for number, (language, code) in enumerate(FENCE.findall(read(page)))
]


def blocks(*languages):
    return [block for block in BLOCKS if block.values[0] in languages]


def test_every_block_is_of_a_kind_that_is_executed():
    assert {block.values[0] for block in BLOCKS} <= {"python", "bash", ""}
    assert len(blocks("python")) >= 4


def virtually(coroutine):
    loop = looptime.patch_event_loop(asyncio.new_event_loop(), start=0.0, noop_cycles=0)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(coroutine)


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """Where the files are that the pages speak of."""
    (tmp_path / "contacts.csv").write_text("callback_number,name\n+49221123456,A\n+49221123457,B\n")
    (tmp_path / "opt-out.txt").write_text("+49221123457\n")
    trustme.CA().cert_pem.write_to_path(tmp_path / "company-ca.pem")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def logger(monkeypatch):
    """What a page does to the library's logger is undone."""
    log = logging.getLogger("tenios_async")
    monkeypatch.setattr(log, "handlers", [])
    level = log.level
    yield
    log.setLevel(level)


DATABASE = re.compile(r"postgresql://tenios@db\.example\.com/(\w+)(?:\?schema=(\w+))?")


@pytest.fixture
def here(request):
    """The code with a database of these tests instead of the one that it names, where it names one."""

    def put(code):
        if not DATABASE.search(code):
            return code
        server = request.getfixturevalue("postgres")
        name = f"docs_{abs(hash(request.node.name))}_"
        return DATABASE.sub(lambda found: server.url(name + (found[2] or found[1])), code)

    return put


@pytest.mark.parametrize(("language", "code"), blocks("python"))
def test_python(language, code, monkeypatch, pytester, tmp_path, capsys, here):
    code = here(code)
    if "def test_" in code:
        pytester.makepyfile(code)
        pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(
            passed=code.count("def test_") * (2 if "params=" in code else 1)
        )
        return
    monkeypatch.chdir(tmp_path)  # pytester has gone elsewhere
    if "tenios_async.batch" in code:  # which has a thread that virtual time would not wait for
        service = Service(script=Script((("DISCONNECTED", 0.0),)))
        monkeypatch.setenv("TENIOS_ACCESS_KEY", "your-access-key")
        with respx.mock(base_url="https://api.tenios.com") as router:
            router.route().mock(side_effect=SimulatorTransport(service).handle_async_request)
            exec(compile(code, "snippet", "exec"), {"__name__": "snippet"})
        service.assert_nobody_called_twice()
        assert "DISCONNECTED" in capsys.readouterr().out
        return
    if "SimulatorServer" in code:
        exec(compile(code, "snippet", "exec"), {"__name__": "snippet"})
        assert "DISCONNECTED" in capsys.readouterr().out
        return
    monkeypatch.setenv("TENIOS_ACCESS_KEY", "your-access-key")
    monkeypatch.setattr(asyncio, "run", virtually)
    service = Service(clock=anyio.current_time, script=Script.talk())
    with respx.mock(base_url="https://api.tenios.com") as router:
        router.route().mock(side_effect=SimulatorTransport(service).handle_async_request)
        names = {"__name__": "snippet"}
        exec(compile(code, "snippet", "exec"), names)
        places = [
            thing
            for thing in names.values()
            if inspect.iscoroutinefunction(thing) and inspect.signature(thing).parameters
        ]

        async def call():
            from tenios_async import TeniosClient

            async with TeniosClient() as tenios:
                for place in places:
                    assert '"id": 1' in await place(tenios, "+491234567890")

        virtually(call())
    assert sum(service.inits.values()) == max(1, len(places))
    if not places:
        assert "DISCONNECTED" in capsys.readouterr().out


@pytest.mark.parametrize(("language", "code"), blocks("bash"))
def test_shell(language, code, monkeypatch, tmp_path, here):
    code = here(code)
    monkeypatch.setenv("TENIOS_ACCESS_KEY", "any")

    async def simulated(run):
        script = Script((("DISCONNECTED", 0.0),)) if "batch" in code else Script.talk()
        async with SimulatorServer(Service(speed=200, script=script)) as server:
            await asyncio.to_thread(run, server.base_url)

    for line in code.splitlines():
        words = shlex.split(line, comments=True)
        if words[0] == "export":
            for word in words[1:]:
                name, _, value = word.partition("=")
                monkeypatch.setenv(name, value)
        elif words[0] == "make":
            subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
        elif words[:2] == ["pip", "install"]:
            name, _, extra = words[2].rstrip("]").partition("[")
            assert name == metadata("tenios_async")["Name"]
            assert set(filter(None, extra.split(","))) <= set(metadata("tenios_async").get_all("Provides-Extra"))
        elif words[:2] == ["tenios", "simulate"]:
            assert words[2:] == ["--port", "8080", "--speed", "10", "--seed", "1"], "tests/cli runs it"
        elif words[0] == "tenios":

            def run(url, words=words):
                monkeypatch.setenv("TENIOS_BASE_URL", url)
                monkeypatch.setattr("sys.argv", words)
                with pytest.raises(SystemExit) as ended:
                    command()
                assert ended.value.code == 0

            with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
                runner.run(simulated(run))
        else:
            assert words[0] == ".venv/bin/python", line
            assert (ROOT / words[3]).exists()
