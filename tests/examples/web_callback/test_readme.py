"""The commands of the example's README, run as they stand there."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import httpx
import pytest

from ...ports import free_port

FOLDER = Path(__file__).parents[3] / "examples" / "web_callback"
README = (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """Those of the last block, with its environment set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    found = {}
    for line in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)[-1].splitlines():
        words = shlex.split(line)
        if words[0] == "export":
            for word in words[1:]:
                monkeypatch.setenv(*word.split("=", 1))
        else:
            found[tuple(words[:2])] = words[1:]
    return found


def test_it_starts_as_the_readme_says_and_ends_cleanly(commands):
    subprocess.run([sys.executable, *commands["python", "-c"]], check=True)
    assert Path(os.environ["CALLBACK_LEDGER"]).exists()
    port = free_port()
    command = [sys.executable, *commands["python", "-m"][:-1], str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        while "running on" not in (line := server.stderr.readline()):
            assert line, "it did not start"
        answer = httpx.get(f"http://127.0.0.1:{port}/", trust_env=False)
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=30)
    assert (answer.status_code, "Call me now" in answer.text) == (200, True)


def test_the_demo_says_where_it_is_and_ends_cleanly():
    subprocess.run(["make", "-n", "example-web"], cwd=FOLDER.parents[1], check=True, capture_output=True)
    port = free_port()
    command = [sys.executable, "-m", "web_callback.demo", "--port", str(port)]
    with subprocess.Popen(
        command, cwd=FOLDER.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        assert f"http://127.0.0.1:{port} " in demo.stdout.readline()
        while "TENIOS refuses the number" not in demo.stdout.readline():
            pass
        while True:
            with contextlib.suppress(httpx.ConnectError):
                assert "Call me now" in httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).text
                break
            assert demo.poll() is None
        demo.send_signal(signal.SIGINT)
        _, errors = demo.communicate(timeout=30)
    assert (demo.returncode, errors) == (0, "")


def test_without_a_ledger_it_does_not_start(commands):
    """A mistyped path must not make a ledger that remembers nothing."""
    command = [sys.executable, *commands["python", "-m"][:-1], "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode != 0
    assert "calls.db" in done.stderr


def test_the_packages_are_those_of_the_dependency_group(commands):
    project = tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    group = {re.match(r"[\w-]+", line)[0] for line in project["dependency-groups"]["example-web"]}
    extra = {re.match(r"[\w-]+", line)[0] for line in requires("tenios_async") if "extra == 'phone'" in line}
    assert extra | set(commands["pip", "install"][2:]) >= group


def test_links_lead_somewhere():
    for target in re.findall(r'(?:\]\(|src=")([^)#"]+)', README):
        assert (FOLDER / target).exists(), target


def test_every_file_is_in_the_table():
    for path in FOLDER.glob("*.py"):
        assert path.name in ("__init__.py", "__main__.py", "demo.py") or f"`{path.name}`" in README
