"""Both endpoints as bytes."""

import contextlib
import copy
import json
import pickle

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenios_async import (
    ApiError,
    BadCredentials,
    Callback,
    CallbackOutcomeUnknown,
    CallbackRequest,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ProtocolError,
    RateLimited,
    ServerError,
    TeniosError,
)
from tenios_async._wire import (
    MAX_BODY,
    AccessKey,
    Body,
    Reply,
    init_body,
    is_address,
    parse_base_url,
    parse_init,
    parse_status,
    status_body,
)
from tenios_async._wire import retry_after as wait_of

KEY = AccessKey("XXXXX-XXXX-XXXXXX")
BODY = Body(KEY, {}, dials=True)
ERROR = b'{"error_code":"BAD_CREDENTIALS","error_message":"Bad credentials","fields":[]}'
OTHER = b'{"error_code":"INVALID","error_message":"no","fields":["delay", {"name": "x"}]}'


def reply(code, body=b"", headers=None):
    return Reply(code, headers or {}, body)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (
            CallbackRequest("XXXXX-XXXX-XXXXXX", "+491234567890", 30),
            {
                "access_key": "XXXXX-XXXX-XXXXXX",
                "callback_config_id": "XXXXX-XXXX-XXXXXX",
                "callback_number": "+491234567890",
                "delay": 30,
            },
        ),
        (
            CallbackRequest("XXXXX-XXXX-XXXXXX", "+491234567890", 30, "Customer Peter Müller is being called now", "1"),
            {
                "access_key": "XXXXX-XXXX-XXXXXX",
                "callback_config_id": "XXXXX-XXXX-XXXXXX",
                "callback_number": "+491234567890",
                "agent_announcement": "Customer Peter Müller is being called now",
                "dtmf_key_to_trigger_customer_call": "1",
                "delay": 30,
            },
        ),
    ],
)
def test_init_sends_what_the_vendors_page_shows(request_, expected):
    assert json.loads(init_body(KEY, request_).encode()) == expected


@pytest.mark.parametrize("callback_id", [10, "10", "abc"])
def test_status_sends_the_id_as_it_came(callback_id):
    body = status_body(KEY, Callback(callback_id))
    assert json.loads(body.encode()) == {"access_key": "XXXXX-XXXX-XXXXXX", "id": callback_id}


def test_only_an_init_dials():
    assert init_body(KEY, CallbackRequest("c", "+4912")).dials
    assert not status_body(KEY, Callback(1)).dials


@pytest.mark.parametrize("secret", [KEY, BODY])
def test_secrets_show_nothing(secret):
    for text in (repr(secret), str(secret), f"{secret}", f"{secret!s}", repr([secret])):
        assert "XXXXX" not in text
    for breach in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError):
            breach(secret)


def test_the_key_is_taken_out_of_texts_however_it_is_written_there():
    key = AccessKey('schlüssel"x')
    assert key.reveal() == 'schlüssel"x'
    for written in ('schlüssel"x', 'schlüssel\\"x', r"schl\u00fcssel\"x", r'schl\xc3\xbcssel"x'):
        assert key.remove_from(f"<{written}>") == "<***>"
    assert AccessKey("abcd").remove_from("abcdef") == "***ef"
    assert AccessKey("abc").remove_from("abcdef") == "abcdef", "too short: it would be found in anything"


def test_texts_travel_as_utf_8():
    body = init_body(AccessKey("schlüssel"), CallbackRequest("c", "+4912", agent_announcement="Peter Müller")).encode()
    assert "schlüssel".encode() in body
    assert "Peter Müller".encode() in body


def test_an_answer_shows_no_more_than_its_status():
    assert repr(reply(200, b"secret", {"x": "secret"})) == "Reply(status_code=200)"
    assert MAX_BODY == 65_536


@pytest.mark.parametrize(
    ("code", "error", "says"),
    [
        (199, ProtocolError, "not an answer of this API"),
        (300, ProtocolError, "a redirect, which is not followed"),
        (399, ProtocolError, "a redirect, which is not followed"),
        (400, ProtocolError, "HTTP 400 came without the error of this API"),
        (401, PermissionDenied, None),
        (404, NotFound, None),
        (429, RateLimited, None),
        (499, ProtocolError, "HTTP 499 came without the error of this API"),
        (500, ServerError, None),
        (599, ServerError, None),
        (600, ProtocolError, "not an answer of this API"),
    ],
)
def test_where_one_class_of_answers_ends_and_another_begins(code, error, says):
    with pytest.raises(error, match=says):
        parse_status(reply(code), BODY)


@pytest.mark.parametrize("code", [400, 405, 499])
def test_other_refusals_of_the_api_are_invalid_requests(code):
    with pytest.raises(InvalidRequest, match="X_INVALID"):
        parse_status(reply(code, b'{"error_code": "X_INVALID"}'), BODY)


@pytest.mark.parametrize("code", [200, 299])
def test_successes_are_200_to_299(code):
    assert parse_status(reply(code, b'{"status":"CONNECTED"}'), BODY) == "CONNECTED"


@pytest.mark.parametrize("extra", [0, 25, 26, 27, 28, 1000])
def test_a_status_is_read_from_an_answer_of_any_length(extra):
    assert parse_status(reply(200, b'{"x":"' + b"x" * extra + b'","status":"ON_HOLD"}'), BODY) == "ON_HOLD"


def test_what_a_refusal_shows_has_bounds():
    fields = {"error_code": "X", "error_message": "m" * 300, "fields": [f"f{number}" for number in range(30)]}
    with pytest.raises(InvalidRequest) as refused:
        parse_status(reply(400, json.dumps(fields).encode()), BODY)
    assert refused.value.error_message == "m" * 200
    assert refused.value.fields == tuple(f"f{number}" for number in range(20))


@pytest.mark.parametrize(("host", "is_one"), [("127.0.0.1", True), ("::1", True), ("localhost", False), ("1.2", False)])
def test_addresses_and_names(host, is_one):
    assert is_address(host) is is_one


@pytest.mark.parametrize(("digits", "wait"), [("0000000005", 5.0), ("00000000005", 300.0), ("9" * 5000, 300.0)])
def test_a_retry_after_of_more_than_ten_digits_is_long_whatever_it_is(digits, wait):
    assert wait_of({"retry-after": digits}) == wait


@pytest.mark.parametrize("key", ["", "  ", None, 5, " key", "key\n", "ke\ty"])
def test_what_cannot_be_a_key(key):
    with pytest.raises(ValueError, match="access key") as caught:
        AccessKey(key).check()
    frame = caught.tb
    while frame is not None:
        assert "text" not in frame.tb_frame.f_locals
        frame = frame.tb_next


@pytest.mark.parametrize("code", [200, 201, 202])
@pytest.mark.parametrize(
    ("body", "callback_id"), [(b'{"id": 10}', 10), (b'{"id":"10"}', "10"), (b'\xef\xbb\xbf{"id": 7}', 7)]
)
def test_an_id_is_read_as_number_or_text(code, body, callback_id):
    assert parse_init(reply(code, body), BODY) == callback_id


NO_ID = [
    b"", b"{", b"null", b"[]", b"10", b"{}", b'{"id":null}', b'{"id":true}', b'{"id":1.5}', b'{"id":""}', b'{"id":{}}',
    b'{"id":1,"id":2}', b'{"id":1}{"id":1}', b'{"id":1}]', b'{"id":NaN}', b'{"id":1,"x":NaN}', b'{"id":' + b"1" * 5000 + b"}", b"[" * 60_000, b'{"a":' * 9000, b'\xff{"id":1}',
    b'{"id":"\\ud800"}', b'{"id":"' + b"x" * 65 + b'"}', b"<html>", b'{"status":"REQUESTED"}',
]  # fmt: skip


@pytest.mark.parametrize("body", NO_ID, ids=range(len(NO_ID)))
def test_2xx_without_a_readable_id_is_an_unknown_outcome(body):
    with pytest.raises(CallbackOutcomeUnknown) as caught:
        parse_init(reply(200, body), BODY)
    assert caught.value.status_code == 200


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308, 500, 502, 503, 504])
@pytest.mark.parametrize("body", [b"", ERROR, b"<html>"])
def test_3xx_and_5xx_are_unknown_outcomes(code, body):
    with pytest.raises(CallbackOutcomeUnknown):
        parse_init(reply(code, body), BODY)


@pytest.mark.parametrize("code", [400, 401, 403, 404, 422, 429])
@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[]", b'{"error_code":5}', b'{"error":"x"}'])
def test_4xx_without_a_tenios_error_body_is_an_unknown_outcome(code, body):
    with pytest.raises(CallbackOutcomeUnknown):
        parse_init(reply(code, body), BODY)


REFUSALS = [
    (400, ERROR, BadCredentials),
    (400, OTHER, InvalidRequest),
    (401, OTHER, PermissionDenied),
    (403, OTHER, PermissionDenied),
    (404, OTHER, NotFound),
    (422, OTHER, InvalidRequest),
    (429, OTHER, RateLimited),
]


@pytest.mark.parametrize(("code", "body", "cls"), REFUSALS)
def test_4xx_with_a_tenios_error_body_is_refused(code, body, cls):
    for parse in (parse_init, parse_status):
        with pytest.raises(ApiError) as caught:
            parse(reply(code, body), BODY)
        assert type(caught.value) is cls
        assert caught.value.status_code == code
        assert not caught.value.may_have_dialled
    if body is OTHER:
        assert caught.value.fields == ("delay", '{"name": "x"}')


@pytest.mark.parametrize(
    ("code", "body", "cls"),
    [
        (500, b"", ServerError), (503, b"<html>", ServerError), (429, b"<html>", RateLimited), (404, b"", NotFound),
        (403, b"", PermissionDenied), (404, b"<html>", ProtocolError), (400, b"<html>", ProtocolError),
        (302, b"", ProtocolError), (200, b"<html>", ProtocolError), (200, b"{}", ProtocolError),
        (200, b'{"status":""}', ProtocolError), (200, b'{"status":5}', ProtocolError), (204, b"", ProtocolError),
        (600, b"", ProtocolError), (200, b'{"status":"' + b"x" * 65 + b'"}', ProtocolError),
    ],
)  # fmt: skip
def test_what_a_status_can_answer_wrongly(code, body, cls):
    with pytest.raises(cls):
        parse_status(reply(code, body), BODY)


@pytest.mark.parametrize("state", ["REQUESTED", "DISCONNECTED", "ON_HOLD"])
def test_a_status_is_read(state):
    assert parse_status(reply(200, json.dumps({"status": state}).encode()), BODY) == state


@given(st.integers(100, 699), st.binary() | st.sampled_from([ERROR, OTHER]), st.text())
def test_any_answer_is_a_value_or_an_error_of_ours(code, body, wait):
    for parse in (parse_init, parse_status):
        with contextlib.suppress(TeniosError):
            parse(reply(code, body, {"retry-after": wait}), BODY)


def test_the_vendors_text_shows_neither_number_nor_key():
    message = {
        "error_code": "X",
        "error_message": "no +491234567890 for XXXXX-XXXX-XXXXXX\n",
        "fields": ["+491234567890"],
    }
    with pytest.raises(InvalidRequest) as caught:
        parse_init(reply(400, json.dumps(message).encode()), BODY)
    text = str(caught.value) + repr(vars(caught.value))
    assert "+49*******890" in text
    assert "XXXXX" not in text
    assert "1234567890" not in text
    assert "\n" not in text


def test_a_reply_shows_no_body():
    assert "secret" not in repr(reply(200, b"secret"))


NOW = {"date": "Sun, 06 Nov 1994 08:49:37 GMT"}


@pytest.mark.parametrize(
    ("value", "headers", "seconds"),
    [
        ("0", {}, 0), ("1", {}, 1), (" 7 ", {}, 7), ("300", {}, 300), ("301", {}, 300), ("9" * 5000, {}, 300),
        ("", {}, None), ("-1", {}, None), ("1.5", {}, None), ("inf", {}, None), ("nan", {}, None), ("١", {}, None),
        ("soon", {}, None), ("1e3", {}, None), ("0x10", {}, None), ("+5", {}, None), ("1, 2", {}, None),
        ("Sun, 06 Nov 1994 08:49:47 GMT", NOW, 10), ("Sun, 06 Nov 1994 08:49:47 GMT", {}, None),
        ("Sun, 06 Nov 1994 08:49:27 GMT", NOW, 0), ("Sun, 06 Nov 2094 08:49:47 GMT", NOW, 300),
        ("Sunday, 06-Nov-94 08:49:47 GMT", NOW, 10), ("Sun Nov  6 08:49:47 1994", NOW, 10),
        ("Sun, 06 Nov 1994 08:49:47 +0000", NOW, 10), ("Sun, 06 Nov 100000 08:49:47 GMT", NOW, None),
        ("Sun, 06 Nov 99999999999 08:49:47 GMT", NOW, None),
        ("Sun, 99 Nov 1994 08:49:47 GMT", NOW, None), ("Sun, 06 Nov 1994 08:49:47 GMT", {"date": "now"}, None),
    ],
)  # fmt: skip
def test_retry_after(value, headers, seconds):
    assert wait_of({"retry-after": value, **headers}) == seconds


@given(st.text(), st.text())
def test_any_retry_after_is_bounded(value, date):
    seconds = wait_of({"retry-after": value, "date": date})
    assert seconds is None or 0 <= seconds <= 300


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("https://api.tenios.com", "https://api.tenios.com"), ("https://api.tenios.com/", "https://api.tenios.com"),
        ("https://proxy.test/tenios//v1//", "https://proxy.test/tenios/v1"), ("HTTPS://API.test:8443", "https://api.test:8443"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"), ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://[::1]:80/x", "http://[::1]:80/x"), ("http://localhost:1", "http://localhost:1"),
        ("https://xn--bcher-kva.test.", "https://xn--bcher-kva.test."), ("https://tenios_proxy/a%20b", "https://tenios_proxy/a%20b"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]"), ("https://" + "a" * 63 + ".b", "https://" + "a" * 63 + ".b"),
    ],
)  # fmt: skip
def test_base_urls(text, base):
    assert parse_base_url(text) == base


@pytest.mark.parametrize(
    "text",
    ["", "api.tenios.com", "ftp://x.test", "https://", "https://user@x.test", "https://u:p@x.test", "https://x.test?a=b",
     "https://x.test/?", "https://x.test#f", "https://x.test/a b", "https://x.test\\@evil.test", "https://x.test\n", None, 5, [5],
     b"https://x.test", "https://x.test:99999", "https://[::1", "http://api.tenios.com", "http://10.0.0.1", "http://0.0.0.0",
     "http://localhost.evil.test", "http://127.0.0.1.evil.test", "https://\N{SNOWMAN}.invalid", "https://b\xfccher.test",
     "https://a..b", "https://.", "https://-a.test", f"https://{'a' * 64}.test", f"https://{'a.' * 127}test", "https://x.test:0",
     "https://x%2etest", "https://[fe80::1%25eth0]", "https://x.test/a/../b", "https://x.test/.", "https://x.test/%zz",
     "https://x.test/\xe4", 'https://x.test/"'],
)  # fmt: skip
def test_bad_base_urls(text):
    with pytest.raises(ValueError, match="base_url") as caught:
        parse_base_url(text)
    assert "u:p" not in str(caught.value)


def test_plain_http_where_it_is_allowed():
    assert parse_base_url("http://10.0.0.1/", allow_insecure_http=True) == "http://10.0.0.1"
    with pytest.raises(ValueError, match="True or False"):
        parse_base_url("http://10.0.0.1/", allow_insecure_http="false")


def test_asdict_of_what_is_public_holds_no_key():
    assert "XXXXX" not in repr(attrs.asdict(Callback(10, "config", 30)))
