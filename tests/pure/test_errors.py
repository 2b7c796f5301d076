"""What an error says and holds: somebody reads it at night, or a program branches on it."""

import pytest

from tenios_async import (
    BadCredentials,
    Callback,
    CallbackOutcomeUnknown,
    InvalidRequest,
    NotFound,
    ProtocolError,
    RateLimited,
    ServerError,
    WatchInterrupted,
)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (NotFound(404), "TENIOS does not know this callback or this URL (HTTP 404)"),
        (NotFound(404, "GONE"), "TENIOS does not know this callback or this URL (HTTP 404, GONE)"),
        (RateLimited(429, None, "slow down"), "TENIOS asks for fewer requests (HTTP 429): slow down"),
        (
            InvalidRequest(400, "INVALID", "no", ("delay", "id")),
            "TENIOS does not accept the request (HTTP 400, INVALID): no [fields: delay, id]",
        ),
        (InvalidRequest(400, fields=("id",)), "TENIOS does not accept the request (HTTP 400) [fields: id]"),
        (ServerError(500, "", ""), "TENIOS failed to answer (HTTP 500)"),
        (ProtocolError("not JSON", 200), "not JSON"),
        (
            CallbackOutcomeUnknown("the answer broke off"),
            (
                "the callback may have been placed and a phone may ring: the answer broke off."
                " Do not send it again before checking the TENIOS customer portal"
            ),
        ),
        (WatchInterrupted("it ended", callback=Callback(1)), "it ended"),
    ],
)
def test_what_an_error_says(error, text):
    assert str(error) == text


def test_what_a_refusal_holds():
    error = BadCredentials(400, "BAD_CREDENTIALS", "Bad credentials", ("access_key",), 5.0)
    held = (error.status_code, error.error_code, error.error_message, error.fields, error.retry_after)
    assert held == (400, "BAD_CREDENTIALS", "Bad credentials", ("access_key",), 5.0)
    error = BadCredentials(400)
    assert (error.error_code, error.error_message, error.fields, error.retry_after) == (None, None, (), None)


def test_what_the_others_hold():
    assert (ProtocolError("x", 302).status_code, ProtocolError("x").status_code) == (302, None)
    unknown = CallbackOutcomeUnknown("it broke", 503)
    assert (unknown.reason, unknown.status_code, CallbackOutcomeUnknown("x").status_code) == ("it broke", 503, None)
    cause = ServerError(500)
    interrupted = WatchInterrupted("x", callback=Callback(10), cause=cause)
    assert (interrupted.callback, interrupted.last, interrupted.cause) == (Callback(10), None, cause)
