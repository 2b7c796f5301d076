"""The pure service: what it accepts, what it refuses, how its calls go by the clock."""

import json

import pytest

from tenios_async.simulator import Fault, Manner, Script, Service

NUMBER = "+491234567890"


@pytest.mark.parametrize("delay", [30, "30", 0, "0"])
def test_delay_as_the_samples_send_it(init, delay):
    service = Service()
    answer = init(service, delay=delay)
    assert (answer.status_code, answer.json) == (200, {"id": 10})
    assert service.callbacks[10].delay == int(delay)


@pytest.mark.parametrize("delay", [-1, "-1", "soon", 1.5, True, [], {}, "٣", "9" * 30])
def test_a_delay_that_is_no_number_of_seconds(init, delay):
    service = Service()
    answer = init(service, delay=delay)
    assert (answer.status_code, answer.json["fields"]) == (400, ["delay"])
    assert not service.callbacks


@pytest.mark.parametrize("absent", [..., None, ""])
@pytest.mark.parametrize("name", ["access_key", "callback_config_id", "callback_number", "delay"])
def test_a_mandatory_field_is_named(init, name, absent):
    answer = init(Service(), **{name: absent})
    assert answer.status_code == 400
    assert answer.json["fields"] == [name]
    assert set(answer.json) == {"error_code", "error_message", "fields"}


def test_every_missing_field_is_named():
    answer = Service().handle("POST", "/callback/init", b"{}")
    assert json.loads(answer.body)["fields"] == ["access_key", "callback_config_id", "callback_number", "delay"]


def test_a_wrong_key_and_a_wrong_configuration_look_the_same(init, status):
    service = Service(access_key="key", config_ids={"config"})
    documented = {"error_code": "BAD_CREDENTIALS", "error_message": "Bad credentials", "fields": []}
    assert init(service).status_code == 200
    for answer in (
        init(service, access_key="another"),
        init(service, callback_config_id="another"),
        status(service, 10, access_key="another"),
    ):
        assert (answer.status_code, answer.json) == (400, documented)
    assert len(service.callbacks) == 1


@pytest.mark.parametrize("as_sent", [10, "10"])
def test_an_id_as_number_and_as_string(init, status, as_sent):
    service = Service()
    init(service)
    assert status(service, as_sent).json == {"status": "REQUESTED"}
    assert service.polls == {10: 1}


@pytest.mark.parametrize("unknown", [11, "11", "ten", True, 10.0, [10]])
def test_an_unknown_id(init, status, unknown):
    service = Service()
    init(service)
    answer = status(service, unknown)
    assert (answer.status_code, answer.json["error_code"]) == (404, "NOT_FOUND")


def test_a_status_without_an_id(status):
    assert status(Service(), ...).json["fields"] == ["id"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status_code"),
    [
        ("POST", "/callback/list", b"{}", 404),
        ("POST", "/", b"{}", 404),
        ("POST", "/init", b"{}", 404),
        ("GET", "/callback/init", b"", 405),
        ("GET", "/callback/status", b"", 405),
        ("POST", "/callback/init", b"", 400),
        ("POST", "/callback/init", b"{", 400),
        ("POST", "/callback/init", b"\xff\xfe\xff", 400),
        ("POST", "/callback/init", b"[" * 100_000, 400),
        ("POST", "/callback/init", b"[]", 400),
        ("POST", "/callback/status", b"null", 400),
    ],
)
def test_what_is_not_the_api(method, path, body, status_code):
    answer = Service().handle(method, path, body)
    assert answer.status_code == status_code
    assert set(json.loads(answer.body)) == {"error_code", "error_message", "fields"}
    assert dict(answer.headers)["Content-Type"] == "application/json"


@pytest.mark.parametrize("path", ["/callback/init", "/callback/init/", "/v1/callback/init", "/callback/init?a=b"])
def test_a_base_url_with_a_path(path):
    assert Service().handle("POST", path, b"{}").status_code == 400


@pytest.mark.parametrize(
    ("script", "delay", "states"),
    [
        (
            Script.talk(ringing=6, seconds=30),
            0,
            {
                0: "REQUESTED",
                0.5: "ACCEPTED",
                1: "CALLING_A",
                7: "CALLING_B",
                13: "CONNECTED",
                42.9: "CONNECTED",
                43: "DISCONNECTED",
                9e9: "DISCONNECTED",
            },
        ),
        (
            Script.talk(ringing=6, seconds=30),
            60,
            {0.5: "ACCEPTED", 60.9: "ACCEPTED", 61: "CALLING_A", 67: "CALLING_B", 103: "DISCONNECTED"},
        ),
        (Script.agent_silent(), 0, {1: "CALLING_A", 30.9: "CALLING_A", 31: "CALL_A_FAILED", 9e9: "CALL_A_FAILED"}),
        (Script.customer_silent(), 0, {7: "CALLING_B", 36.9: "CALLING_B", 37: "CALL_B_FAILED"}),
        (
            Script((("CALLING_A", 1), ("CALLING_A", 1), ("NEW_STATE", 1))),
            10,
            {1: "REQUESTED", 11: "CALLING_A", 13: "NEW_STATE"},
        ),
        (Script(()), 0, {9e9: "REQUESTED"}),
    ],
)
def test_a_script_by_the_clock(clock, init, status, script, delay, states):
    """The delay is waited out once, before the first CALLING_A."""
    service = Service(clock=clock, script=script)
    init(service, delay=delay)
    seen = {}
    for elapsed in states:
        clock.now = 1_000.0 + elapsed
        seen[elapsed] = status(service, 10).json["status"]
    assert seen == states


def test_speed_divides_all_durations(clock, init):
    service = Service(clock=clock, script=Script.talk(), speed=10)
    init(service, delay=60)
    for elapsed, state in ((6.0, "ACCEPTED"), (6.1, "CALLING_A"), (7.3, "CONNECTED"), (10.3, "DISCONNECTED")):
        clock.now = 1_000.0 + elapsed + 1e-6
        assert service.state(10) == state


@pytest.mark.parametrize("speed", [0, -1, float("nan"), float("inf"), "2", None, pytest.param(10**400, id="10**400")])
def test_a_speed_that_is_none(speed):
    with pytest.raises(ValueError, match="speed"):
        Service(speed=speed)


def test_a_number_has_a_script_of_its_own(clock, init):
    service = Service(clock=clock, script=Script.talk())
    service.script("+4912", Script.agent_silent(ring_duration=1))
    init(service, callback_number="+4912")
    init(service)
    clock.now += 3600
    assert (service.state(10), service.state(11)) == ("CALL_A_FAILED", "DISCONNECTED")


def test_what_was_accepted_can_be_looked_at(clock, init):
    service = Service(clock=clock)
    init(service, agent_announcement="Peter Müller", dtmf_key_to_trigger_customer_call="1")
    callback = service.callbacks[10]
    assert (callback.id, callback.number, callback.accepted_at) == (10, NUMBER, 1_000.0)
    assert callback.request == {
        "callback_config_id": "config",
        "callback_number": NUMBER,
        "delay": 0,
        "agent_announcement": "Peter Müller",
        "dtmf_key_to_trigger_customer_call": "1",
    }


def test_what_was_accepted_shows_no_whole_number(init):
    service = Service()
    init(service)
    assert "number='+49*******890'" in repr(service.callbacks[10])
    assert NUMBER not in repr(service.callbacks)


def test_a_fault_is_answered_as_it_says_whether_it_strikes_before_or_after(init):
    service = Service()
    for before in (True, False):
        service.fail_init(Fault(400, before=before, body=b"{}", headers=(("Retry-After", "1"),), manner=Manner.DRIP))
        answer = init(service).answer
        assert (answer.status_code, answer.body, answer.manner) == (400, b"{}", Manner.DRIP)
        assert answer.headers == (("Content-Type", "application/json"), ("Retry-After", "1"))
        assert len(service.callbacks) == (not before)
    assert not any(request.is_refused for request in service.requests[NUMBER]), (
        "an answer that is not the API's proves nothing"
    )


@pytest.mark.parametrize("wrong", [Fault.lost, Fault, Fault.busy, None, "lost", 500])
def test_what_is_no_fault_is_refused_before_it_strikes(init, wrong):
    """With its brackets forgotten it would fail in the middle of a request, and its caller take that for a lost answer."""
    service = Service()
    for fail in (service.fail_init, service.fail_status):
        with pytest.raises(ValueError, match="is a Fault"):
            fail(Fault.busy(), wrong)
    assert init(service).status_code == 200


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"status_code": "429"}, "status_code"),
        ({"status_code": 100}, "from 200"),
        ({"status_code": 1000}, "to 999"),
        ({"body": "{}"}, "body is bytes"),
        ({"headers": {"Retry-After": "1"}}, "pairs of texts"),
        ({"headers": ("Retry-After", "1")}, "pairs of texts"),
        ({"headers": (("Retry-After", 1),)}, "pairs of texts"),
        ({"manner": "drop"}, "Manner.DROP"),
        ({"error_code": 7}, "error_code is a text"),
    ],
)
def test_a_fault_that_could_not_be_answered_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        Fault(**wrong)


@pytest.mark.parametrize("wrong", [Script.talk, Script, None, "talk", [("CALLING_A", 1.0)]])
def test_what_is_no_script_is_refused(wrong):
    with pytest.raises(ValueError, match="is a Script"):
        Service().script(NUMBER, wrong)
    if wrong is not None:
        with pytest.raises(ValueError, match="is a Script"):
            Service(script=wrong)


@pytest.mark.parametrize("wrong", [4912, b"+4912"])
def test_a_number_that_no_request_can_have_is_refused(wrong):
    """What was meant for it would never come."""
    with pytest.raises(ValueError, match="a number is a text"):
        Service().script(wrong, Script.talk())
    with pytest.raises(ValueError, match="a number is a text"):
        Service().fail_init(Fault.lost(), number=wrong)


def test_an_init_on_which_the_service_fails_counts_too(init):
    """Who asked cannot tell that from a lost answer."""
    service = Service(config_ids=5)
    for _ in range(2):
        with pytest.raises(TypeError):
            init(service)
    with pytest.raises(AssertionError, match="twice"):
        service.assert_nobody_called_twice()


def test_every_init_counts(init):
    """An answer that was lost, and a refusal, have arrived all the same."""
    service = Service(config_ids={"config"})
    service.fail_init(Fault.lost())
    init(service)
    init(service, callback_config_id="another")
    assert service.inits == {NUMBER: 2}
    assert [request.is_refused for request in service.requests[NUMBER]] == [False, True]


def test_no_answer_gives_the_key_or_the_number_away(init):
    """Nothing sent comes back, and an accepted callback forgets the key."""
    service = Service(access_key="s3cret-key")
    answers = [
        init(service, access_key="s3cret-key"),
        init(service, access_key="s3cret-kez"),
        init(service, access_key="s3cret-key", delay="x"),
        init(service, access_key="s3cret-key", callback_config_id=...),
    ]
    for answer in answers:
        assert "s3cret" not in answer.answer.body.decode()
        assert NUMBER not in answer.answer.body.decode()
        assert "s3cret" not in repr(answer.answer)
    assert "s3cret" not in repr(service.callbacks) + repr(service.callbacks[10].request)


@pytest.mark.parametrize(
    ("fault", "status_code", "accepted"),
    [
        (Fault.busy(), 429, False),
        (Fault.error(503), 503, False),
        (Fault.error(500, accepted=True), 500, True),
        (Fault.garbage(), 200, True),
        (Fault.lost(), 200, True),
    ],
)
def test_a_fault_strikes_once(init, fault, status_code, accepted):
    service = Service()
    service.fail_init(fault)
    body = b'{"access_key":"k","callback_config_id":"c","callback_number":"+4912","delay":0}'
    answer = service.handle("POST", "/callback/init", body)
    assert (answer.status_code, bool(service.callbacks), answer.manner) == (status_code, accepted, fault.manner)
    assert init(service).status_code == 200


def test_faults_come_in_order(init):
    service = Service()
    service.fail_init(Fault.busy("7"), Fault.error(500))
    assert init(service).headers["Retry-After"] == "7"
    assert [init(service).status_code for _ in range(2)] == [500, 200]


def test_busy_without_saying_how_long(init):
    service = Service()
    service.fail_init(Fault.busy(None))
    assert "Retry-After" not in init(service).headers


def test_a_fault_waits_for_its_number(init):
    service = Service()
    service.fail_init(Fault.error(), number="+4912")
    assert init(service).status_code == 200
    assert init(service, callback_number="+4912").status_code == 500
    assert init(service, callback_number="+4912").status_code == 200


def test_faults_of_status_leave_init_alone(init, status):
    service = Service()
    service.fail_status(Fault.error(502), Fault.garbage(b"{}"))
    assert init(service).status_code == 200
    assert [status(service, 10).json for _ in range(3)][1:] == [{}, {"status": "REQUESTED"}]


def test_success_without_an_id(init):
    service = Service()
    service.fail_init(Fault.garbage(b"{}"))
    answer = init(service)
    assert (answer.status_code, answer.json, len(service.callbacks)) == (200, {}, 1)
