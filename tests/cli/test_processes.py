"""The command as a process: signals, pipes, missing extras."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tenios_async.simulator import Fault, Manner, Script

NUMBER = "+498005556677"


@pytest.fixture
def long_call(service):
    """Every call rings on and on."""
    service.script(NUMBER, Script((("CALLING_A", 0.0), ("CALLING_B", 3600.0))))


def _end(process):
    """What the process still wrote, and its exit code."""
    out, err = process.communicate(timeout=30)
    assert "Traceback" not in err
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_during_a_watch_prints_the_token(configured, long_call, start, tenios, number):
    """And the token resumes the watch without repeating the state."""
    watching = start("init", NUMBER, "--watch")
    while "CALLING_A" not in watching.stdout.readline():
        pass
    watching.send_signal(number)
    code, _, err = _end(watching)
    assert code == 130
    token = err.split("tenios watch ")[1].strip().strip("'")
    assert json.loads(token)["status"] == "CALLING_A"
    resumed = tenios("watch", token, "--timeout", 0.3, "--json")
    assert resumed.code == 5
    assert "transition" not in {event["event"] for event in resumed.events}


def test_ctrl_c_during_a_watch_in_json(configured, long_call, start):
    watching = start("init", NUMBER, "--watch", "--json")
    while "CALLING_A" not in watching.stdout.readline():
        pass
    watching.send_signal(signal.SIGINT)
    code, out, _ = _end(watching)
    event = json.loads(out)
    assert (code, event["event"], event["id"]) == (130, "token", 10)


def test_ctrl_c_before_anything_was_sent(environment, start):
    """A TLS handshake that nobody answers: nothing has left, and the line says so."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment.setenv("TENIOS_ACCESS_KEY", "any")
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        placing = start("init", NUMBER, "--config-id", "x", "--base-url", url)
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(1)
            placing.send_signal(signal.SIGINT)
            code, out, err = _end(placing)
    assert (code, out) == (130, "")
    assert "nothing was placed and no phone rings" in err


def test_ctrl_c_after_it_was_sent_waits_for_the_id(configured, service, start):
    service.latency = 0.5
    placing = start("init", NUMBER)
    assert service.asked.wait(30)
    placing.send_signal(signal.SIGINT)
    code, _, err = _end(placing)
    assert code == 130
    assert "callback 10 is placed" in err
    assert "resume with: tenios watch" in err


def test_ctrl_c_after_it_was_sent_without_an_answer_is_unknown(configured, service, start):
    """A phone may ring: that outweighs the Ctrl-C in the exit code."""
    service.fail_init(Fault.lost(Manner.STALL))
    placing = start("init", NUMBER, "--json")
    assert service.asked.wait(30)
    placing.send_signal(signal.SIGINT)
    code, out, err = _end(placing)
    assert code == 4
    assert "a phone may ring" in err
    assert json.loads(out)["may_have_dialled"] is True
    assert service.inits == {NUMBER: 1}


def test_a_closed_pipe_leaves_the_token_on_standard_error(configured, long_call, start):
    """`tenios init ... | true` must not lose the only way to the call."""
    calling = [start("init", NUMBER, "--watch", *option) for option in ((), ("--json",))]
    for placing in calling:
        placing.stdout.close()
    for placing in calling:
        err = placing.stderr.read()
        assert placing.wait(30) == 141
        assert "Traceback" not in err
        assert "Exception" not in err
        assert "resume with: tenios watch" in err


HELP = [("--help",), ("init", "--help"), ("--version",), ("completion", "bash")]


def _ends_of_help(start, stdout):
    """The exit code of each, and what it said."""
    helping = {arguments: start(*arguments, stdout=stdout) for arguments in HELP}
    return {arguments: (code, err) for arguments, process in helping.items() for code, _, err in [_end(process)]}


def test_help_that_nobody_reads_is_141(start):
    """And not 1, which is a call that failed."""
    reader, writer = os.pipe()
    os.close(reader)
    assert _ends_of_help(start, writer) == dict.fromkeys(HELP, (141, ""))
    os.close(writer)


full_disk = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


@full_disk
def test_help_that_finds_no_room_is_141(start):
    with Path("/dev/full").open("w") as full:
        assert _ends_of_help(start, full) == dict.fromkeys(HELP, (141, ""))


@full_disk
def test_a_full_disk_leaves_the_token_on_standard_error(configured, service, start):
    with Path("/dev/full").open("w") as full:
        calling = [start("init", NUMBER, *option, stdout=full) for option in ((), ("--json",), ("--watch",))]
    for placing in calling:
        code, _, err = _end(placing)
        assert code == 141
        assert "resume with: tenios watch" in err
    assert service.inits == {NUMBER: 3}


def test_no_call_whose_id_could_not_be_told(configured, service):
    """Standard output was closed by whoever started the command."""
    command = f'{shlex.quote(sys.executable)} -m tenios_async init "{NUMBER}" >&-'
    done = subprocess.run(["sh", "-c", command], capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (2, "tenios: standard output is closed; nothing was done\n")
    assert not service.inits


def test_simulate_serves_until_ctrl_c(environment, start, tenios):
    simulating = start("simulate", "--port", 0, "--speed", 10, "--seed", 1, "--json")
    url = json.loads(simulating.stdout.readline())["base_url"]
    assert url.startswith("http://127.0.0.1:")
    environment.setenv("TENIOS_ACCESS_KEY", "any")
    assert tenios("init", NUMBER, "--config-id", "x", "--base-url", url).code == 0
    simulating.send_signal(signal.SIGINT)
    code, out, err = _end(simulating)
    assert (code, json.loads(out), err) == (0, {"event": "ended", "inits": 1, "polls": 0}, "")


def test_simulate_says_how_to_keep_up_with_it(environment, start, tenios):
    """A call of half a minute is followed in a second, from the first look to the last."""
    simulating = start("simulate", "--port", 0, "--speed", 20, "--seed", 1)
    address, variables, advice = (simulating.stdout.readline() for _ in range(3))
    assert "20 times as fast as life" in address
    for word in shlex.split(variables.partition("export ")[2]):
        environment.setenv(*word.split("=", 1))
    words = shlex.split(advice.partition("tenios ")[2].replace("NUMBER", NUMBER))
    events = tenios(*words, "--delay", 20, "--timeout", 20, "--json").events
    assert events[-1]["event"] == "ended"
    assert events[-2]["polls"] > 2
    simulating.send_signal(signal.SIGINT)
    assert _end(simulating)[0] == 0


def test_simulate_as_slow_as_life_needs_no_advice(environment, start, tenios):
    simulating = start("simulate", "--port", 0)
    address, variables = (simulating.stdout.readline() for _ in range(2))
    assert "1 times as fast as life" in address
    for word in shlex.split(variables.partition("export ")[2]):
        environment.setenv(*word.split("=", 1))
    assert tenios("init", NUMBER).code == 0
    simulating.send_signal(signal.SIGINT)
    assert _end(simulating) == (0, "1 calls were asked for, with 0 polls\n", "")


def test_the_module_is_the_command(start):
    code, out, err = _end(start("--version"))
    assert (code, err) == (0, "")
    assert out[0].isdigit()


@pytest.mark.parametrize("missing", ["cyclopts", "rich", "h11"])
def test_a_missing_extra_is_one_line_and_2(missing):
    program = f"import sys; sys.modules[{missing!r}] = None; import tenios_async.__main__ as m; m.main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f'tenios needs its command-line extra ({missing} is missing): pip install "tenios_async[cli]"\n'
    )


def test_what_is_missing_otherwise_is_not_blamed_on_the_extra():
    program = "import sys; sys.modules['json'] = None; import tenios_async.__main__ as m; m.main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install" not in done.stderr


def test_the_core_goes_without_the_extra():
    program = (
        "import sys; sys.modules.update(cyclopts=None, rich=None); import tenios_async;"
        " tenios_async.TeniosClient('key')"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
