"""What a test asks afterwards, and what it is told when things went otherwise."""

import pytest

from tenios_async.simulator import Fault, Manner, Script, Service

NUMBER = "+491234567890"
OTHER = "+491234567891"


@pytest.fixture
def service(clock):
    return Service(clock=clock, script=Script.ended())


def complaint(assertion, *arguments, **fields):
    with pytest.raises(AssertionError) as caught:
        assertion(*arguments, **fields)
    text = str(caught.value)
    assert NUMBER not in text
    assert OTHER not in text
    return text


def test_nobody_was_called(service):
    service.assert_nobody_called()
    service.assert_nobody_called_twice()
    service.assert_not_called(NUMBER)
    assert service.times_called(NUMBER) == 0
    assert complaint(service.assert_called_once, NUMBER) == "+49*******890 was not called; nobody was called"


def test_one_was_called(service, init):
    init(service, delay=30)
    service.assert_called_once(NUMBER)
    service.assert_called_once(NUMBER, delay=30, agent_announcement=None)
    service.assert_nobody_called_twice()
    service.assert_not_called(OTHER)
    assert complaint(service.assert_nobody_called) == "called: +49*******890 once"
    assert complaint(service.assert_not_called, NUMBER) == "+49*******890 was called once"
    assert complaint(service.assert_called_once, OTHER) == "+49*******891 was not called; called: +49*******890 once"


def test_one_was_called_otherwise_than_meant(service, init):
    init(service, delay=0)
    told = complaint(service.assert_called_once, NUMBER, delay=30, agent_announcement="Peter Müller")
    assert told == (
        "+49*******890 was called with delay=0 instead of 30, agent_announcement=None instead of 'Peter Müller'"
    )


@pytest.mark.parametrize(
    ("asked_for", "shown"), [(OTHER, "'+49*******891'"), (491234567891, "491******891"), (None, "None")]
)
def test_another_number_was_meant(service, init, asked_for, shown):
    init(service)
    told = complaint(service.assert_called_once, NUMBER, callback_number=asked_for)
    assert told == f"+49*******890 was called with callback_number='+49*******890' instead of {shown}"


def test_one_was_called_twice(service, init, clock):
    """When is said too: a retry, or a second click?"""
    init(service)
    clock.now += 30
    init(service)
    init(service, callback_number=OTHER)
    told = "+49*******890 was called twice, again after 30.0 s"
    assert complaint(service.assert_called_once, NUMBER) == told
    assert complaint(service.assert_not_called, NUMBER) == told
    assert complaint(service.assert_nobody_called_twice) == told
    service.assert_called_once(OTHER)
    init(service, callback_number=OTHER)
    assert "; +49*******891 was called twice" in complaint(service.assert_nobody_called_twice)


def test_many_were_called(service, init):
    for number in range(25):
        init(service, callback_number=f"+4912345678{number:02}")
        init(service, callback_number=f"+4912345678{number:02}")
    assert complaint(service.assert_nobody_called).endswith(", 15 more")
    assert complaint(service.assert_nobody_called_twice).endswith("; 15 more")


@pytest.mark.parametrize("fault", [Fault.busy(), Fault.refused("BAD_CREDENTIALS"), Fault(403)])
def test_a_clear_refusal_is_no_call(service, init, fault):
    """TENIOS said no, so that asking again later rings once."""
    service.fail_init(fault)
    init(service)
    service.assert_nobody_called()
    told = complaint(service.assert_called_once, NUMBER)
    assert told == "+49*******890 was not called, but refused once; nobody was called"
    init(service)
    service.assert_called_once(NUMBER)
    service.assert_nobody_called_twice()


@pytest.mark.parametrize(
    "fault",
    [
        Fault.lost(),
        Fault.stalled(),
        Fault.error(500),
        Fault.error(503, accepted=True),
        Fault.garbage(),
        Fault(404, before=False, body=b"a proxy's page"),
        Fault(429, before=False, manner=Manner.DROP),
    ],
)
def test_whatever_else_may_have_rung(service, init, fault):
    """Who asks again after it would ring twice by mistake, also where the simulator knows better."""
    service.fail_init(fault)
    service.handle("POST", "/callback/init", _body())
    service.assert_called_once(NUMBER)
    init(service)
    assert complaint(service.assert_nobody_called_twice).startswith("+49*******890 was called twice")


def _body():
    fields = f'"access_key": "key", "callback_config_id": "config", "callback_number": "{NUMBER}", "delay": 0'
    return f"{{{fields}}}".encode()


def test_followed_to_the_end(service, init, status, clock):
    service.script(NUMBER, Script((("CALLING_A", 0.0), ("DISCONNECTED", 60.0))))
    assert complaint(service.assert_followed_to_the_end, NUMBER) == (
        "no call to +49*******890 was accepted; nobody was called"
    )
    init(service)
    begin = "the call to +49*******890 was not followed to its end: "
    assert complaint(service.assert_followed_to_the_end, NUMBER) == begin + "nobody asked for its state"
    status(service, 10)
    status(service, 10)
    clock.now += 60
    told = complaint(service.assert_followed_to_the_end, NUMBER)
    assert told == begin + "CALLING_A was the last that was told, and it was asked for twice"
    status(service, 10)
    service.assert_followed_to_the_end(NUMBER)
    init(service)
    assert "nobody asked" in complaint(service.assert_followed_to_the_end, NUMBER)


def test_an_answer_that_was_lost_told_nobody(service, init, status):
    service.fail_status(Fault.lost(), Fault.error(500), Fault.garbage())
    init(service)
    for _ in range(3):
        service.handle("POST", "/callback/status", b'{"access_key": "key", "id": 10}')
        assert "nobody was told" in complaint(service.assert_followed_to_the_end, NUMBER)
    status(service, 10)
    service.assert_followed_to_the_end(NUMBER)


@pytest.mark.parametrize("number", ["+49", "110", "x"])
def test_short_numbers_are_masked_whole(service, init, number):
    init(service, callback_number=number)
    assert complaint(service.assert_nobody_called) == f"called: {'*' * len(number)} once"
