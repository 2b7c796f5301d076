"""One call to `init_callback`, and what each verdict of Rule 1 means for the caller and for the server."""

from tenios_async import AttemptOutcome, CallbackAttempt, CallbackOutcomeUnknown, ConnectionFailed, TeniosError

NUMBER = "+498765432101"
CONFIG = "config-id"


async def place(tenios, *, before_send=None, **options):
    """Places one call: the attempt, and the TeniosError that came out or None."""
    attempt, error = CallbackAttempt(before_send), None
    try:
        callback = await tenios.init_callback(CONFIG, NUMBER, attempt=attempt, **options)
    except TeniosError as raised:
        error = raised
    else:
        assert attempt.callback is callback
    return attempt, error


def assert_not_sent(attempt, error, *servers):
    """Nothing left: no phone rings, and trying again is safe."""
    assert type(error) is ConnectionFailed
    assert not error.may_have_dialled
    assert attempt.outcome is AttemptOutcome.NOT_SENT
    assert attempt.callback is None
    for server in servers:
        assert not server.inits
        assert b"/callback/init" not in server.received
        assert NUMBER.encode() not in server.received


def assert_unknown(attempt, error, server, *, inits=1, peers=1):
    """Something left: the caller is told so, and nothing was sent again."""
    assert type(error) is CallbackOutcomeUnknown
    assert error.may_have_dialled
    assert attempt.outcome is AttemptOutcome.UNKNOWN
    assert attempt.error is error
    assert attempt.callback is None
    assert server.inits == ({NUMBER: inits} if inits else {})
    assert len(server.peers) == peers


def assert_placed(attempt, error, server, *, id=10):  # noqa: A002  # the name it has in the API
    assert error is None
    assert attempt.outcome is AttemptOutcome.PLACED
    assert attempt.callback.id == id
    assert server.inits == {NUMBER: 1}
