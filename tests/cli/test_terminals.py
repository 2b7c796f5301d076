"""What is shown on a terminal, a dumb one, a narrow one, and in a pipe."""

import asyncio
import io
import os
import pty
import re
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fcntl import ioctl
from functools import partial
from termios import TIOCSWINSZ
from types import SimpleNamespace

import pytest
from rich.console import Console

from tenios_async.batch import Progress
from tenios_async.cli import campaigns
from tenios_async.cli.output import Output

COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3[0-8]|4[0-8]|9[0-7])(?:;[0-9]+)*m")
MOVES = re.compile(r"\x1b\[[0-9;]*[A-HJKf]|\x1b\[\?25[lh]|(?<!\r)\r(?!\r?\n)")
DEMO = ("demo", "--speed", "100")


def command(*arguments):
    return [sys.executable, "-m", "tenios_async", *map(str, arguments)]


def variables(**given):
    cleared = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    return cleared | {"TERM": "xterm-256color", **given}


def on_terminal(*arguments, columns=100, **given):
    """Runs the command on a terminal, and gives what it wrote there."""
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(command(*arguments), stdin=theirs, stdout=theirs, stderr=theirs, env=variables(**given))
    os.close(theirs)
    shown = bytearray()
    try:
        while data := os.read(ours, 65536):
            shown += data
    except OSError:  # as Linux says that the other end is closed
        pass
    finally:
        os.close(ours)
    assert process.wait(30) == 0, shown.decode()
    return shown.decode()


def piped(*arguments, **given):
    done = subprocess.run(command(*arguments), env=variables(**given), capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def demo():
    """What the demo shows in each place; it takes its time, and so all at once."""
    places = {
        "terminal": partial(on_terminal, *DEMO),
        "no colour": partial(on_terminal, *DEMO, NO_COLOR="1"),
        "dumb": partial(on_terminal, *DEMO, TERM="dumb"),
        "pipe": partial(piped, *DEMO),
        "pipe in colour": partial(piped, *DEMO, FORCE_COLOR="1"),
    }
    with ThreadPoolExecutor() as threads:
        return dict(zip(places, threads.map(lambda run: run(), places.values()), strict=True))


def test_a_terminal_has_colours_and_a_table_that_moves(demo):
    assert COLOUR.search(demo["terminal"])
    assert MOVES.search(demo["terminal"])


def test_no_color_is_obeyed(demo):
    assert not COLOUR.search(demo["no colour"])
    assert "CALL_B_FAILED" in demo["no colour"]
    assert not COLOUR.search(on_terminal("init", "--help", NO_COLOR="1"))


def test_a_dumb_terminal_gets_plain_lines(demo):
    for shown in (demo["dumb"], on_terminal("init", "--help", TERM="dumb")):
        assert "\x1b" not in shown
        assert not MOVES.search(shown)
        assert not set("╭│━┃") & set(shown)


def test_a_pipe_gets_plain_lines(demo):
    assert demo["pipe"].isascii()
    assert "\x1b" not in demo["pipe"]
    assert demo["pipe"].splitlines()[-1].startswith("5 calls, each placed once")


def test_a_pipe_that_is_forced_to_have_colours_still_has_nothing_that_moves(demo):
    shown = demo["pipe in colour"]
    assert COLOUR.search(shown)
    assert not MOVES.search(shown)
    assert not set("╭│━┃") & set(shown)


@pytest.mark.parametrize("columns", [20, 40])
def test_a_narrow_terminal_loses_nothing(columns):
    """A line that is too long is the terminal's to wrap: a copied path or token has no break and no dots in it."""
    shown = on_terminal("doctor", columns=columns, TENIOS_ACCESS_KEY="any", SSL_CERT_FILE="/etc/" + "long/" * 20)
    assert "long/" * 20 in shown
    assert "…" not in shown


@pytest.mark.asyncio
async def test_the_progress_of_a_campaign_loses_nothing_on_a_narrow_terminal():
    """It is drawn over, and so it ends at the edge."""
    progress = Progress(queued=1200, placed_now=500, seconds=100.0, unknown=3, waiting_for="the hours: from 9:00 on")
    console = Console(file=io.StringIO(), force_terminal=True, width=40, soft_wrap=True, _environ={"TERM": "xterm"})
    async with campaigns.shown(Output(console=console), SimpleNamespace(progress=progress), nobody_reads=list):
        await asyncio.sleep(0)
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    assert all(len(line) <= 40 for line in drawn.splitlines())
    for said in ("3 of 1203 placed", "3 in doubt", "5.0/s", "4:00 left", "waiting for the hours: from 9:00 on"):
        assert said in " ".join(drawn.split())


def test_help_fits_a_narrow_terminal():
    shown = on_terminal("init", "--help", columns=60, NO_COLOR="1")
    panels = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in shown.splitlines() if "│" in line]
    assert panels
    assert all(len(line) <= 60 for line in panels)


def test_json_on_a_terminal_is_json():
    shown = on_terminal("doctor", "--json", TENIOS_ACCESS_KEY="any")
    assert shown.startswith('{"event": "doctor"')
    assert "\x1b" not in shown
