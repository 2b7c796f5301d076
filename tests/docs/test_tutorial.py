"""The tutorial is done as its reader does it: from the first line to the last, in one folder and in a real shell."""

import os
import re
import shlex
import signal
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest

from tenios_async import CallbackStatus

from ..ports import free_port
from .pages import FENCE, TUTORIAL, read

STATE = re.compile("|".join(sorted((name for name in vars(CallbackStatus) if name.isupper()), key=len, reverse=True)))
SAVE_AS = re.compile(r"[Ss]ave (?:this|it) as\s+`([\w.]+)`")


class Reader:
    """Types what the page says, and compares what it sees with what the page shows."""

    def __init__(self, folder, port):
        self.folder = folder
        self.port = port
        self.environ = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "USER": "reader",
            "PYTHONUNBUFFERED": "1",
        }
        self.simulator = None
        self.seen = ""

    def read(self, page):
        end = 0
        for block in FENCE.finditer(page):
            before, end = page[end : block.start()], block.end()
            language, text = block[1], block[2].replace("8080", str(self.port))
            if language == "bash":
                for line in text.splitlines():
                    self.type(line)
            elif language == "text":
                self.compare(text)
            else:
                *_, name = SAVE_AS.findall(before)
                (self.folder / name).write_text(text, encoding="utf-8")

    def type(self, line):
        words = shlex.split(line, comments=True)
        if words[0] == "export":
            self.environ |= dict(word.split("=", 1) for word in words[1:])
        elif words[:2] == ["pip", "install"]:  # what it installs is what runs here
            extras = set(re.fullmatch(r"tenios_async\[([\w,]+)\]", words[2])[1].split(","))
            assert extras <= set(metadata("tenios_async").get_all("Provides-Extra"))
        elif words[:2] == ["tenios", "simulate"]:
            self.stop()
            self.simulator = subprocess.Popen(
                words, cwd=self.folder, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            assert f":{self.port}," in self.simulator.stdout.readline()
        else:
            done = subprocess.run(
                line,
                shell=True,
                executable="/bin/sh",
                cwd=self.folder,
                env=self.environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=90,
                check=False,
            )
            self.seen = done.stdout
            assert done.returncode == 0, (line, self.seen)

    def compare(self, shown):
        """All but times must be as shown, and some states of the call may be missed."""
        expected, actual = lines(shown), lines(self.seen)
        assert [line for line in actual if not STATE.search(line)] == [
            line for line in expected if not STATE.search(line)
        ]
        states = [STATE.search(line)[0] for line in actual if STATE.search(line)]
        path = iter(STATE.findall("REQUESTED ACCEPTED CALLING_A CALLING_B CONNECTED DISCONNECTED"))
        assert all(state in path for state in states), "in the order of a call"
        assert states[-1:] == STATE.findall(shown)[-1:]

    def stop(self):
        """Ctrl-C."""
        if self.simulator is not None:
            self.simulator.send_signal(signal.SIGINT)
            self.simulator.communicate(timeout=30)
            assert self.simulator.returncode == 0


def lines(text):
    return [re.sub(r"\d[\d.:+\-T]*\d|\d", "#", line.partition("; passed")[0]).rstrip() for line in text.splitlines()]


@pytest.fixture
def reader(tmp_path):
    one = Reader(tmp_path, free_port())
    yield one
    if one.simulator is not None and one.simulator.poll() is None:  # where a promise is broken
        one.simulator.kill()
        one.simulator.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="the tutorial speaks of a POSIX shell")
@pytest.mark.timeout(240)
def test_from_the_first_line_to_the_last(reader):
    reader.read(read(TUTORIAL))
    reader.stop()
    assert "requests that arrived" not in reader.seen
    results = (reader.folder / "result.csv").read_text(encoding="utf-8").splitlines()
    contacts = (reader.folder / "contacts.csv").read_text(encoding="utf-8").splitlines()
    assert len(contacts) == len(results) == 11
    assert all("FINISHED" in line for line in results[1:])
    assert "<html" in (reader.folder / "report.html").read_text(encoding="utf-8")
