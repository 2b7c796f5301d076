"""`tenios init`, `status` and `watch`, in this process, over real HTTP."""

import io
import json
import socket

import pytest

from tenios_async.simulator import Fault, Manner, Script

NUMBER = "+498005556677"
PLACED = "callback 10 to +49*******677 is placed"


@pytest.fixture
def placed(configured, tenios):
    """The resume token of a call that was placed."""
    return tenios("init", NUMBER, "--json").events[0]["token"]


def test_init_prints_the_id_the_masked_number_and_the_token(configured, tenios, service):
    done = tenios("init", NUMBER)
    assert (done.code, done.err) == (0, "")
    first, second = done.out.splitlines()
    assert first == PLACED
    token = json.loads(second.removeprefix("resume token: "))
    assert (token["id"], token["callback_config_id"], token["delay"]) == (10, "config-id", 0)
    assert service.inits == {NUMBER: 1}


def test_init_sends_what_the_vendors_page_shows(configured, tenios, service):
    announcement = "Customer Peter Müller is being called now, please press 1 to start the call."
    tenios("init", NUMBER, "--delay", 30, "--announcement", announcement, "--dtmf-key", "1")
    assert service.callbacks[10].request == {
        "callback_config_id": "config-id",
        "callback_number": NUMBER,
        "agent_announcement": announcement,
        "dtmf_key_to_trigger_customer_call": "1",
        "delay": 30,
    }


def test_init_leaves_out_what_is_not_asked_for(configured, tenios, service):
    tenios("init", NUMBER)
    assert service.callbacks[10].request == {
        "callback_config_id": "config-id",
        "callback_number": NUMBER,
        "delay": 0,
    }


def test_options_stand_in_for_the_environment(configured, environment, tenios, tmp_path):
    """The key may come from a file; the base URL and the configuration from options."""
    (tmp_path / "key").write_text("s3cret-key-of-the-tests\n")
    for name in ("TENIOS_ACCESS_KEY", "TENIOS_BASE_URL", "TENIOS_CALLBACK_CONFIG_ID"):
        environment.delenv(name)
    options = ("--base-url", configured, "--access-key-file", tmp_path / "key", "--config-id", "config-id")
    assert tenios("init", NUMBER, *options).out.startswith(PLACED)


@pytest.mark.parametrize(
    ("script", "end", "code"),
    [
        (None, "DISCONNECTED", 0),
        (Script((("CALL_A_FAILED", 0.02),)), "CALL_A_FAILED", 1),
        (Script((("CALL_B_FAILED", 0.02),)), "CALL_B_FAILED", 1),
    ],
)
def test_init_and_watch_ends_as_the_call_does(configured, tenios, service, script, end, code):
    if script is not None:
        service.script(NUMBER, script)
    done = tenios("init", NUMBER, "--watch", "--timeout", 20, "--json")
    events = done.events
    assert done.code == code
    assert [event["event"] for event in events] == ["placed", *["transition"] * (len(events) - 2), "ended"]
    assert (events[-2]["status"], events[-2]["is_terminal"]) == (end, True)
    token = events[-1].pop("token")
    assert json.loads(token)["status"] == end
    assert events[-1] == {"event": "ended", "id": 10, "status": end, "exit_code": code}


def test_watch_shows_a_line_for_each_state_it_sees(configured, tenios, placed):
    done = tenios("watch", 10, "--every", 0.01)
    assert done.code == 0
    assert "DISCONNECTED   the call is over" in done.out.splitlines()[-1]


def test_watch_takes_a_token_a_file_and_standard_input(environment, tenios, placed, tmp_path):
    """Each way in leads to the same call; a line that --json wrote is as good as the token in it."""
    (tmp_path / "token").write_text(placed + "\n")
    event = json.dumps({"event": "placed", "id": 10, "token": placed})
    for argument, piped in (("10", ""), (placed, ""), (f"@{tmp_path / 'token'}", ""), ("-", placed), ("-", event)):
        environment.setattr("sys.stdin", io.StringIO(piped))
        done = tenios("watch", argument, "--every", 0.05, "--json")
        assert (done.code, done.events[-1]["status"]) == (0, "DISCONNECTED")


@pytest.mark.parametrize("argument", ["placed 10", " ", "10 11", "10\t11"])
def test_an_id_has_no_white_space(configured, tenios, service, argument):
    assert tenios("watch", argument).code == 2
    assert not service.polls


@pytest.mark.parametrize("status_code", [403, 404])
def test_a_call_that_was_placed_is_never_said_to_be_refused(configured, tenios, service, status_code):
    """A script that took 3 for "no phone rings" would ring again."""
    service.fail_status(*[Fault(status_code)] * 1000)
    done = tenios("init", NUMBER, "--watch", "--timeout", 1)
    assert done.code == 5
    assert "resume with" in done.err
    assert tenios("watch", 10, "--timeout", 0.3).code == (3 if status_code == 403 else 5)


def test_the_last_line_of_a_watch_that_ended_is_a_token_too(configured, tenios, placed, tmp_path):
    (tmp_path / "events").write_text(tenios("watch", placed, "--every", 0.01, "--json").out)
    assert tenios("watch", f"@{tmp_path / 'events'}").code == 0


def test_watch_of_a_call_that_has_ended_asks_nothing(configured, tenios, placed, service):
    token = json.dumps({**json.loads(placed), "status": "CALL_B_FAILED"})
    done = tenios("watch", token)
    assert (done.code, done.out) == (1, "callback 10 had ended before: CALL_B_FAILED\n")
    assert not service.polls


def test_status_asks_once(configured, tenios, placed, service):
    service.script(NUMBER, Script(()))
    done = tenios("status", 10, "--json")
    assert done.code == 0
    assert done.events[0].keys() == {"event", "id", "status", "is_terminal"}
    assert service.polls == {10: 1}


def test_status_of_a_failed_call_is_1(configured, tenios, service):
    service.script(NUMBER, Script((("CALL_A_FAILED", 0.0),)))
    tenios("init", NUMBER)
    done = tenios("status", 10)
    assert (done.code, done.out) == (1, "CALL_A_FAILED  the agent was not reached\n")


@pytest.mark.parametrize(
    "fault",
    [Fault.lost(), Fault.lost(Manner.RESET), Fault.lost(Manner.STALL), Fault.error(accepted=True), Fault.garbage()],
    ids=["closed", "reset", "silent", "500", "not-the-api"],
)
def test_a_lost_answer_is_unknown_and_says_what_to_do(configured, tenios, service, fault):
    """Exit code 4; a phone may ring, the portal knows, and nothing was sent twice."""
    service.fail_init(fault)
    done = tenios("init", NUMBER, "--timeout", 1)
    assert (done.code, done.out) == (4, "")
    assert len(done.err.splitlines()) == 1
    for words in ("a phone may ring", "Do not send it again", "portal"):
        assert words in done.err
    assert service.inits == {NUMBER: 1}


def test_an_unknown_outcome_in_json(configured, tenios, service):
    service.fail_init(Fault.lost())
    (event,) = tenios("init", NUMBER, "--json").events
    assert (event["error"], event["may_have_dialled"], event["exit_code"]) == ("CallbackOutcomeUnknown", True, 4)


@pytest.mark.parametrize("config_id", ["config-id", "another"])
def test_bad_credentials_names_both_causes(configured, environment, tenios, config_id):
    if config_id == "config-id":
        environment.setenv("TENIOS_ACCESS_KEY", "wrong")
    done = tenios("init", NUMBER, "--config-id", config_id)
    assert done.code == 3
    assert "access key" in done.err
    assert "callback configuration id" in done.err


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault.error(500), 7),
        (Fault.garbage(), 7),
        (Fault.lost(), 7),
        (Fault.busy(), 3),
        (Fault(403), 3),
        (Fault.lost(Manner.STALL), 5),
    ],
    ids=["500", "garbage", "closed", "429", "403", "silent"],
)
def test_a_status_that_cannot_be_had(configured, tenios, placed, service, fault, code):
    service.fail_status(fault)
    done = tenios("status", 10, "--timeout", 0.5)
    assert (done.code, done.out, len(done.err.splitlines())) == (code, "", 1)


def test_a_call_that_nobody_knows_is_refused(configured, tenios):
    assert tenios("status", 99).code == 3
    done = tenios("watch", json.dumps({"v": 1, "id": 99, "placed_at": "2020-01-01T00:00:00+00:00"}))
    assert done.code == 3
    assert "resume with: tenios watch" in done.err


def test_a_watch_that_times_out_hands_out_the_token(configured, tenios, service):
    service.script(NUMBER, Script((("CALLING_A", 0.0),)))
    done = tenios("init", NUMBER, "--watch", "--timeout", 0.5, "--json")
    assert done.code == 5
    token = json.loads(done.events[-1]["token"])
    assert (token["id"], token["status"]) == (10, "CALLING_A")
    assert "resume with: tenios watch '{" in done.err


def test_a_watch_says_that_polls_fail_and_goes_on(configured, tenios, placed, service):
    """Once for a row of failures, not for each of them."""
    service.fail_status(Fault.error(503), Fault.error(503))
    done = tenios("watch", 10, "--every", 0.01, "--json")
    assert done.code == 0
    assert [event["event"] for event in done.events].count("poll_failed") == 1
    assert done.err.count("trying again") == 1


@pytest.fixture
def closed_port():
    """Where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("command", [("status", 10), ("init", NUMBER)], ids=["status", "init"])
def test_a_refused_connection_is_6(environment, tenios, closed_port, command):
    environment.setenv("TENIOS_ACCESS_KEY", "any")
    done = tenios(
        *command, "--base-url", closed_port, "--timeout", 0.3, *(("--config-id", "x") * (command[0] == "init"))
    )
    assert (done.code, done.out, len(done.err.splitlines())) == (6, "", 1)
    assert "no connection to TENIOS" in done.err
