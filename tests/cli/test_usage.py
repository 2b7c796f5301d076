"""Bad usage: exit code 2 and one line on standard error; and what help says."""

import socket

import pytest

from tenios_async.cli import run

NUMBER = "+498005556677"


@pytest.fixture
def files(tmp_path, environment):
    """A directory with files that are not what they are taken for."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "text").write_text("{not json")
    environment.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bogus"], "Unknown command"),
        (["init"], "NUMBER"),
        (["init", "01234567890"], "E.164"),
        (["init", "not\x1b[31m a number"], "E.164"),
        (["init", "one", "+4980055566771"], "+49********771"),
        (["init", "one", "+49 221 7654321"], "'+49*********321'"),
        (["init", "one", "0221/765-43 21"], "'022******** 21'"),
        (["init", NUMBER, "--delay", "1.5"], "whole number"),
        (["init", NUMBER, "--delay", "soon"], "whole number"),
        (["init", NUMBER, "--delay=-1"], "whole number"),
        (["init", NUMBER, "--dtmf-key", "x"], "--dtmf-key"),
        (["init", NUMBER, "--announcement", ""], "--announcement"),
        (["init", NUMBER, "--config-id", ""], "--config-id"),
        (["init", NUMBER, "--timeout", "0"], "timeout"),
        (["init", NUMBER, "--timeout", "nan"], "timeout"),
        (["init", NUMBER, "--access-key-file", "missing"], "missing"),
        (["init", NUMBER, "--access-key-file", "empty"], "no access key in empty"),
        (["init", NUMBER, "--access-key-file", "binary"], "not UTF-8"),
        (["init", NUMBER, "--base-url", "http://example.com"], "--allow-insecure-http"),
        (["init", NUMBER, "--base-url", ""], "base URL is empty"),
        (["status", ""], "this is empty"),
        (["watch", " "], "this is empty"),
        (["watch", "1 2"], "white space"),
        (["status", "9" * 5000], "id"),
        (["status", "ten\udcff"], "id"),
        (["watch", "@missing"], "missing: No such file"),
        (["watch", "@."], "Is a directory"),
        (["watch", "@empty"], "no resume token in empty"),
        (["watch", "@binary"], "not UTF-8"),
        (["watch", "@text"], "not a resume token"),
        (["watch", "{}"], "not a resume token"),
        (["watch", "{" * 9000], "not a resume token"),
        (["watch", '{"v": 2, "id": 1}'], "version"),
        (["watch", "10", "--every", "0"], "interval"),
        (["watch", "10", "--every", "x"], "--every"),
        (["watch", "10", "--every", "1", "--speed", "2"], "--every and --speed"),
        (["watch", "10", "--speed", "0"], "speed"),
        (["init", NUMBER, "--speed", "nan"], "speed"),
        (["simulate", "--port", "65536"], "--port"),
        (["simulate", "--speed", "0"], "--speed"),
        (["simulate", "--speed", "inf"], "--speed"),
        (["simulate", "--host", "0.0.0.0"], "--allow-remote"),
        (["demo", "--speed", "0"], "--speed"),
        (["doctor", "--base-url", "https://user:hidden@example.com"], "user information"),
    ],
)
def test_bad_usage_is_one_line_and_2(environment, files, tenios, arguments, says):
    environment.setenv("TENIOS_ACCESS_KEY", "any")
    environment.setenv("TENIOS_CALLBACK_CONFIG_ID", "config-id")
    done = tenios(*arguments)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert line.startswith("tenios: ")
    assert says in line
    assert "hidden" not in done.out + done.err
    assert line.isprintable()


@pytest.mark.parametrize("command", [["status", "10"], ["watch", "10"], ["init", NUMBER, "--config-id", "x"]])
def test_a_missing_key_names_both_ways_to_give_it(environment, tenios, command):
    done = tenios(*command)
    assert done.code == 2
    assert "TENIOS_ACCESS_KEY" in done.err
    assert "--access-key-file" in done.err


def test_a_missing_configuration_id_names_both_ways_to_give_it(tenios):
    done = tenios("init", NUMBER)
    assert done.code == 2
    assert "--config-id" in done.err
    assert "TENIOS_CALLBACK_CONFIG_ID" in done.err


def test_bad_usage_in_json(tenios):
    done = tenios("init", "123", "--config-id", "x", "--json")
    (event,) = done.events
    assert (event["event"], event["exit_code"], event["may_have_dialled"]) == ("error", 2, False)


def test_a_port_in_use_is_one_line_and_2(tenios):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = tenios("simulate", "--port", taken.getsockname()[1])
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "address already in use" in done.err


@pytest.mark.parametrize("command", [[], ["init"], ["status"], ["watch"], ["simulate"], ["demo"], ["doctor"]])
def test_help_lists_the_exit_codes(tenios, command):
    done = tenios(*command, "--help")
    assert done.code == 0
    for code in ("0  the call reached", "3  refused", "4  outcome unknown", "130  ended by Ctrl-C"):
        assert code in done.out


def test_no_option_takes_the_key(tenios):
    assert "--access-key " not in tenios("init", "--help").out


def test_ctrl_c_while_reading_standard_input(environment, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    environment.setattr("tenios_async.cli.calls.read_callback", interrupted)
    assert run(["watch", "-"]) == 130
    assert capsys.readouterr() == ("", "")
