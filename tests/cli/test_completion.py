"""`tenios completion`: its script in the real shell, asked as the tab key asks."""

import os
import pty
import select
import shutil
import subprocess
import time

import pytest


def needs(shell):
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


@pytest.fixture
def script(tenios, tmp_path):
    """The file that a shell is given, which is what the command prints."""

    def write(shell, name):
        done = tenios("completion", shell)
        assert (done.code, done.err) == (0, "")
        (tmp_path / name).write_text(done.out)
        return tmp_path / name

    return write


@pytest.fixture
def nothing_runs(tmp_path, environment):
    """A tab key must place no call: the command itself, where a shell finds it, leaves a mark."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tenios").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "bin" / "tenios").chmod(0o755)
    environment.setenv("PATH", f"{tmp_path}/bin", prepend=os.pathsep)
    yield
    assert not (tmp_path / "ran").exists()


ASKED = [
    ("tenios ba", "batch"),
    ("tenios batch res", "resolve"),
    ("tenios init --ann", "--announcement"),
    ("tenios batch run campaign.db --show", "--show-numbers"),
    ("tenios watch --base", "--base-url"),
    ("tenios completion f", "fish"),
    ("tenios doctor --access-key-file fil", "file.txt"),
]


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(("typed", "found"), ASKED)
@needs("bash")
def test_bash(script, tmp_path, typed, found):
    (tmp_path / "file.txt").touch()
    words = typed.split()
    asking = f"""
        source '{script("bash", "tenios")}'
        function_of_tenios=$(complete -p tenios | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
        COMP_WORDS=({typed}) COMP_CWORD={len(words) - 1} COMP_LINE='{typed}' COMP_POINT={len(typed)}
        $function_of_tenios tenios '{words[-1]}' '{words[-2]}'
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "--noprofile", "-c", asking], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert found in done.stdout.split()


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(("typed", "found"), ASKED)
@needs("fish")
def test_fish(script, tmp_path, typed, found):
    (tmp_path / "file.txt").touch()
    asking = f"source '{script('fish', 'tenios.fish')}'; complete --do-complete '{typed}'"
    environment = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run(
        ["fish", "--no-config", "-c", asking], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert found in [line.partition("\t")[0] for line in done.stdout.splitlines()]


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(
    "load",
    [
        "fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D",
        "autoload -Uz compinit; compinit -u -D; . ./_tenios",
    ],
    ids=["from $fpath", "sourced"],
)
@needs("zsh")
def test_zsh(script, tmp_path, load):
    """On a terminal, since zsh completes nowhere else: the tab key writes the rest of each word, or lists it."""
    (tmp_path / "file.txt").touch()
    script("zsh", "_tenios")
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.execvpe("zsh", ["zsh", "-f", "-i"], os.environ | {"TERM": "dumb", "HOME": str(tmp_path), "PS1": "$ "})
    try:
        os.write(terminal, f"{load}; print -r -- rea''dy\n".encode())
        _until(terminal, "ready")
        for typed, found in ASKED:
            os.write(terminal, f"{typed}\t".encode())
            _until(terminal, found)
            os.write(terminal, b"\x15\n")  # ^U: nothing of it is run
    finally:
        os.write(terminal, b"\x15exit\n")
        os.close(terminal)
        os.waitpid(child, 0)


def _until(terminal, expected):
    """Reads what the terminal shows until that is there."""
    shown, ends = "", time.monotonic() + 20
    while expected not in shown:
        ready, _, _ = select.select([terminal], [], [], max(0, ends - time.monotonic()))
        assert ready, f"{expected!r} never came; what came: {shown!r}"
        shown += os.read(terminal, 4096).decode(errors="replace")


def test_another_shell_is_refused(tenios):
    done = tenios("completion", "tcsh")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "fish" in done.err
