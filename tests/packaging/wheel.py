"""`make test-wheel`: the wheel in clean environments, alone, with each extra, and with the lowest versions it allows.

The latter has to pass most of the suite. Nothing of the source tree can be imported there. Needs the package index.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parents[2]
PLACED = """
import asyncio
from tenios_async import Polling, TeniosClient
from tenios_async.simulator import Script, Service, SimulatorServer

async def main():
    service = Service(speed=100, script=Script.talk())
    async with SimulatorServer(service) as server:
        async with TeniosClient("key", base_url=server.base_url, polling=Polling(speed=100)) as tenios:
            assert tenios.transport == "pool", tenios.transport
            result = await tenios.wait_for_callback(await tenios.init_callback("config", "+491234567890"))
    assert result.connected
    service.assert_nobody_called_twice()

asyncio.run(main())
"""
SHARED = """
import asyncio
from tenios_async.batch import LedgerFailed
from tenios_async.batch.distributed import Worker
from tenios_async.batch.postgres import PostgresLedger

async def main():
    try:
        await PostgresLedger("postgresql://nobody@127.0.0.1:1/none").__aenter__()
    except LedgerFailed as failure:
        assert "127.0.0.1" in str(failure), failure
    else:
        raise AssertionError("there is a database where none can be")

asyncio.run(main())
"""
BARE = """
import subprocess, sys
done = subprocess.run([sys.executable, "-m", "tenios_async"], capture_output=True, text=True)
assert done.returncode == 2 and done.stdout == "", done
assert done.stderr.count("\\n") == 1 and 'pip install "tenios_async[cli]"' in done.stderr, done.stderr
try:
    import tenios_async.otel
except ModuleNotFoundError as missing:
    assert 'pip install "tenios_async[otel]"' in str(missing)
else:
    raise AssertionError("OpenTelemetry is not there")
"""
BATCH = """
import pathlib
from tenios_async.batch import Campaign
pathlib.Path("contacts.csv").write_text("callback_number\\n+4930123456\\n")
assert Campaign.create("campaign.db", "contacts.csv", callback_config_id="config", prefixes=["+49"]).taken == 1
from tenios_async.batch import report
assert pathlib.Path(report.__file__).with_name("report.css").read_text()
"""
COMMAND = """
import json, pathlib, subprocess, sys
tenios = pathlib.Path(sys.executable).with_name("tenios")
assert subprocess.check_output([tenios, "--version"]).strip()
assert b"complete" in subprocess.check_output([tenios, "completion", "bash"])
events = subprocess.check_output([tenios, "demo", "--speed", "100", "--json"]).splitlines()
assert json.loads(events[-1])["wrong"] == []
"""
NATIONAL = """
import pathlib
from tenios_async.batch import Campaign
pathlib.Path("national.csv").write_text("callback_number\\n030 123456\\n")
assert Campaign.create("national.db", "national.csv", callback_config_id="config", region="DE").taken == 1
"""
OBSERVED = """
from tenios_async import TeniosClient
from tenios_async.otel import Telemetry
telemetry = Telemetry()
TeniosClient("key", observers=[telemetry])
telemetry.close()
"""
SUITE = ("pure", "otel", "virtual", "sockets", "rooms", "simulator", "batch", "cli", "faults")
"""The folders of tests that go over what the wheel and its dependencies do, and need no program of the system."""
IGNORED = [
    f"--ignore=tests/{name}.py"
    for name in ("batch/test_disasters", "batch/test_distributed", "cli/test_batch_postgres", "rooms/test_interception")
]
"""Minutes of processes and a database, and other people's mocks and tracers; the suite runs them."""
DESELECTED = [
    f"--deselect=tests/faults/test_faults.py::test_experiment[{name}]"
    for name in (
        "kill-at-random", "kill-at-every-write", "full-disk", "failing-disk", "torn-and-flipped", "two-programs",
        "out-of-descriptors", "network-away", "clock-jumps", "suspended", "cut-tls",
    )
]  # fmt: skip
"""Experiments that are not about what dependencies do, and the longest, which is `cut-plain` over TLS."""
TOOLS = {
    "aiohttp",
    "hypercorn",
    "httpx2",
    "hypothesis",
    "looptime",
    "opentelemetry-sdk",
    "pytest",
    "pytest-asyncio",
    "pytest-timeout",
    "pytest-xdist",
    "trio",
    "trustme",
    "uvicorn",
    "uvloop",
}
"""What of the dependency group `test` they need."""
OF_EXTRA = {"cli": COMMAND, "distributed": SHARED, "otel": OBSERVED, "phone": NATIONAL, "simulator": PLACED}


def lowest(wheel: Path) -> list[str]:
    """Each requirement of the wheel at its lower bound."""
    with ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        requirements = Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist") or []
    found = [re.match(r"([\w-]+)(?:\[\w+\])?>=([\w.]+)", requirement) for requirement in requirements]
    return [f"{match[1]}=={match[2]}" for match in found if match]


def tools() -> list[str]:
    """What runs the suite: the newest, but for OpenTelemetry's SDK, which is of one version with its API."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    found = {re.match(r"[\w-]+", line)[0]: line for line in groups["test"] if isinstance(line, str)}
    return [
        found[name].replace(">=", "==") if name.startswith("opentelemetry") else found[name] for name in sorted(TOOLS)
    ]


def run_suite(python: Path, folder: Path, jobs: str) -> None:
    """The tests, so many at a time, copied to where the package is not beside them."""
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name in ("tests", "docs"):  # some tests read a page
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    names = [f"tests/{name}" for name in SUITE]
    options = ["-q", "-p", "no:cacheprovider", "-n", jobs, "--dist", "worksteal", *IGNORED, *DESELECTED]
    subprocess.run([python, "-m", "pytest", *options, *names], check=True, cwd=folder)


def environment(folder: Path, *requirements: str) -> Path:
    """The interpreter of a new environment with these installed."""
    venv.create(folder, with_pip=False)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "install", "-q"]
    subprocess.run([*pip, *requirements], check=True)
    return python


def main(wheel: Path, jobs: str) -> None:
    cases: list[tuple[str, list[str], list[str]]] = [("alone", [str(wheel)], [BARE, PLACED, BATCH])]
    cases += [(f"[{extra}]", [f"{wheel}[{extra}]"], [program]) for extra, program in OF_EXTRA.items()]
    everything = f"{wheel}[{','.join(OF_EXTRA)}]"
    at_lowest = [everything, *lowest(wheel)]
    cases.append(("lowest", at_lowest, [PLACED, BATCH, *OF_EXTRA.values()]))
    for name, requirements, programs in cases:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            python = environment(Path(folder) / "env", *requirements)
            for program in programs:
                subprocess.run([python, "-I", "-W", "error", "-c", program], check=True, cwd=folder, timeout=60)
        print(f"wheel {name}: works ({time.monotonic() - began:.0f} s)", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        but_h11 = [each for each in at_lowest if not each.startswith("h11=")]  # httpx2 asks for a newer one
        run_suite(environment(Path(folder) / "env", *but_h11, *tools()), Path(folder), jobs)
    print("wheel lowest: passes the suite")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2])
