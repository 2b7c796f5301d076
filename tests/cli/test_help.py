"""Help that teaches: examples that can be copied, exit codes that are true, and no ornament where nobody looks."""

import re
import shlex
from pathlib import Path

import pytest

from tenios_async.cli import teaching
from tenios_async.cli.app import app
from tenios_async.cli.outcome import MEANINGS, Exit
from tenios_async.simulator import Script

COMMANDS = [
    [], ["init"], ["status"], ["watch"], ["simulate"], ["demo"], ["doctor"], ["completion"], ["batch"],
    *(["batch", name] for name in ("create", "add", "run", "worker", "control", "migrate", "status", "report", "resolve", "export")),
]  # fmt: skip
EPILOGUES = {name: text for name, text in vars(teaching).items() if name.isupper() and "Examples:" in str(text)}


def lines_of(text):
    """The examples, each in one line."""
    shown = text.partition("Examples:")[2].partition("Exit codes:")[0].replace("\\\n", "")
    return [line.strip() for line in shown.splitlines() if line.strip() and not line.strip().startswith("#")]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_each_help_has_examples_of_its_own_and_the_exit_codes(tenios, command):
    done = tenios(*command, "--help")
    assert (done.code, done.err) == (0, "")
    examples = lines_of(done.out)
    assert any(line.startswith(" ".join(["tenios", *command])) for line in examples)
    for code, meaning in MEANINGS.items():
        assert re.search(rf"^ *{int(code)}  {re.escape(meaning[:40])}", done.out, re.MULTILINE)


def test_help_of_every_command_is_looked_at():
    def names(of, path=()):
        for name in of:
            if not name.startswith("-"):
                yield [*path, name]
                yield from names(of[name], (*path, name))

    assert sorted(names(app)) == sorted(COMMANDS[1:])


@pytest.mark.parametrize("name", EPILOGUES)
def test_every_example_can_be_copied(name, environment):
    """It fits a terminal and is understood; what it does is tested elsewhere."""
    text = EPILOGUES[name]
    assert all(len(line) < 80 for line in text.splitlines())
    for line in lines_of(text):
        words = shlex.split(re.sub(r" > \S+$|^source <\((.*)\)$", r"\1", line))
        if words[0] != "export":
            assert words[0] == "tenios"
            app.parse_args(words[1:], exit_on_error=False, print_error=False)


def test_examples_of_placing_and_watching_do_what_they_say(configured, tenios, service, environment, tmp_path):
    environment.chdir(tmp_path)
    service.script("+498005556677", Script((("DISCONNECTED", 0.0),)))  # or a slow machine sees a talk, and looks seldom
    for line in lines_of(teaching.INIT):
        written, _, file = line.partition(" > ")
        arguments = [
            word.replace("+491234567890", "+498005556677").replace("ID", "config-id")
            for word in shlex.split(written)[1:]
        ]
        if "--watch" in arguments or arguments[0] == "watch":
            arguments += ["--timeout", "20"]
        done = tenios(*arguments)
        assert done.code == 0, done.err
        if file:
            (tmp_path / file).write_text(done.out)
    assert sum(service.inits.values()) == 3


def test_help_in_a_pipe_has_no_boxes_and_a_line_for_each_option(tenios):
    out = tenios("batch", "run", "--help").out
    assert not set("╭╮╰╯│─") & set(out)
    assert "\x1b" not in out
    assert all(line == line.rstrip() for line in out.splitlines())
    options = [line for line in out.splitlines() if line.startswith("  --")]
    assert len(options) == 15
    assert all(": " in line for line in options)


def test_flags_have_no_default_to_read(tenios):
    assert "default: False" not in tenios("batch", "run", "--help").out


def test_the_page_on_the_command_says_the_same_of_exit_codes():
    page = (Path(__file__).parents[2] / "docs" / "command.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| ([0-9]+) \| (.*) \|$", page, re.MULTILINE))
    assert told == {str(int(code)): meaning for code, meaning in MEANINGS.items()}
    assert set(MEANINGS) == set(Exit)


@pytest.mark.parametrize("command", ["run", "control"])
def test_help_names_rates_and_shares_and_no_types_of_ours(tenios, command):
    shown = tenios("batch", command, "--help").out
    assert "--rate RATE: Calls placed at most" in shown
    assert "FLOAT" not in shown
