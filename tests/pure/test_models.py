"""What callers hand in and hold."""

import inspect
import json
import pickle
from datetime import UTC, datetime, timedelta, timezone

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tenios_async import (
    ApiError,
    AttemptOutcome,
    BadCredentials,
    Callback,
    CallbackAttempt,
    CallbackOutcomeUnknown,
    CallbackRequest,
    CallbackResult,
    CallbackStatus,
    ClientMisuse,
    Connections,
    ProtocolError,
    RateLimited,
    TeniosError,
    Transition,
    WatchInterrupted,
    WatchTimeout,
    mask_number,
)
from tenios_async._models import as_callback, refuse_awaitable

NUMBER = "+491234567890"


@pytest.mark.parametrize(
    "number",
    ["", "491234567890", "+", "+0123456", "+49 123", "+49\n", "+49123456789012345", "+٤٩١٢٣٤", "+４９１", None, 49, b"+49",
     "+49-1", "tel:+49123", " +49123", "+4912a"],
)  # fmt: skip
def test_a_number_is_e164_in_ascii_digits(number):
    with pytest.raises(ValueError, match=r"E\.164"):
        CallbackRequest("config", number)


def test_a_refused_number_is_not_shown():
    with pytest.raises(ValueError, match=r"E\.164") as caught:
        CallbackRequest("config", "0049-221-99887766")
    assert "99887766" not in str(caught.value)


@pytest.mark.parametrize("number", [NUMBER, "+12", "+123456789012345"])
def test_good_numbers(number):
    assert CallbackRequest("config", number).callback_number == number


@pytest.mark.parametrize("delay", [-1, 1.5, "30", True, None, 2**31, float("nan")])
def test_a_delay_is_a_whole_number_of_seconds(delay):
    with pytest.raises(ValueError, match="delay"):
        CallbackRequest("config", NUMBER, delay)


@pytest.mark.parametrize("key", ["", "10", "a", "１", 1, "#*", b"1"])
def test_a_dtmf_key_is_one_of_twelve(key):
    with pytest.raises(ValueError, match="0-9"):
        CallbackRequest("config", NUMBER, dtmf_key_to_trigger_customer_call=key)


@pytest.mark.parametrize("announcement", ["", "  ", 5, "x" * 16_001, "\ud800"])
def test_an_announcement_is_text_or_left_out(announcement):
    with pytest.raises(ValueError, match="agent_announcement"):
        CallbackRequest("config", NUMBER, agent_announcement=announcement)


@pytest.mark.parametrize("config_id", ["", " ", None, 5, "x" * 257])
def test_a_config_id_is_text(config_id):
    with pytest.raises(ValueError, match="callback_config_id"):
        CallbackRequest(config_id, NUMBER)


def test_a_request_at_each_of_its_bounds():
    request = CallbackRequest("x" * 256, NUMBER, 2**31 - 1, "x" * 16_000)
    assert (len(request.callback_config_id), request.delay, len(request.agent_announcement)) == (256, 2**31 - 1, 16_000)
    assert Callback("x" * 64).id == "x" * 64
    for key in "0123456789*#":
        assert CallbackRequest("c", NUMBER, dtmf_key_to_trigger_customer_call=key)


def test_a_request_without_a_delay_is_called_at_once():
    assert CallbackRequest("c", NUMBER).delay == 0


def test_a_request_says_whether_it_has_an_announcement():
    assert "agent_announcement=None" in repr(CallbackRequest("c", NUMBER))
    assert "agent_announcement='...'" in repr(CallbackRequest("c", NUMBER, agent_announcement="x"))


def test_a_request_masks_the_number_and_the_text():
    shown = repr(CallbackRequest("config", NUMBER, agent_announcement="Frau Beispiel"))
    assert "+49*******890" in shown
    assert NUMBER not in shown
    assert "Beispiel" not in shown


@pytest.mark.parametrize(
    ("number", "masked"),
    [(NUMBER, "+49*******890"), ("+1234567", "+12**567"), ("+123456", "+12*456"), ("+12345", "******"), ("", "")],
)
def test_masking(number, masked):
    assert mask_number(number) == masked


@pytest.mark.parametrize("bad", [True, 1.5, None, "", " 10", "x" * 65, "é", 10**64, b"10", [10]])
def test_what_cannot_be_an_id(bad):
    with pytest.raises(ValueError, match="id"):
        Callback(bad)


ids = st.integers(-(10**63), 10**63) | st.text(
    st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64
)
callbacks = st.builds(
    Callback,
    id=ids,
    callback_config_id=st.none() | st.just("config"),
    delay=st.none() | st.integers(0, 1000),
    placed_at=st.none() | st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    status=st.none() | st.sampled_from(["REQUESTED", "DISCONNECTED", "ON_HOLD"]),
)


@given(callbacks)
def test_a_token_brings_back_the_callback(callback):
    token = callback.to_json()
    assert "\n" not in token
    assert Callback.from_json(token) == callback
    assert Callback.from_json(token.encode()) == callback


def test_a_token_that_another_release_wrote_is_read():
    written = (
        '{"v": 1, "id": 10, "callback_config_id": "config", "delay": 30, "placed_at": "2026-01-01T12:00:00+00:00",'
        ' "status": "CALLING_A"}'
    )
    callback = Callback(10, "config", 30, datetime(2026, 1, 1, 12, tzinfo=UTC), CallbackStatus.CALLING_A)
    assert Callback.from_json(written) == callback
    assert callback.to_json() == written


def test_a_configuration_id_in_a_token_has_the_bound_of_one_in_a_request():
    assert Callback.from_json(Callback(1, "x" * 256).to_json()).callback_config_id == "x" * 256
    with pytest.raises(ValueError, match="damaged: callback_config_id"):
        Callback.from_json(json.dumps({"v": 1, "id": 1, "callback_config_id": "x" * 257}))


@pytest.mark.parametrize("config_id", [5, "", " ", "x" * 257, "\ud800"])
def test_no_callback_is_made_whose_token_could_not_be_read(config_id):
    with pytest.raises(ValueError, match=r"^callback_config_id must"):
        Callback(10, config_id)


@pytest.mark.parametrize("placed_at", ["2026-01-01T12:00:00", "2026-01-01"])
def test_a_token_without_a_time_zone_is_not_read_as_local_time(placed_at):
    with pytest.raises(ValueError, match="damaged: placed_at must be a datetime with a time zone"):
        Callback.from_json(json.dumps({"v": 1, "id": 1, "placed_at": placed_at}))


@pytest.mark.parametrize(
    "fields", [{"delay": -1}, {"delay": "5"}, {"delay": True}, {"placed_at": "noon"}, {"placed_at": 5}]
)
def test_a_callback_with_wrong_fields(fields):
    with pytest.raises(ValueError, match=f"^{next(iter(fields))} must"):
        Callback(10, **fields)


@example("[" * 100_000)
@given(st.text() | st.binary() | st.none() | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
def test_a_damaged_token_is_a_value_error(token):
    with pytest.raises(ValueError, match="token"):
        Callback.from_json(token)


@pytest.mark.parametrize(
    "fields",
    [{"id": True}, {"id": 1, "delay": -1}, {"id": 1, "delay": "x"}, {"id": 1, "placed_at": "noon"}, {"id": 1, "placed_at": 5},
     {"id": 1, "status": ""}, {"id": 1, "status": 7}, {"id": 1, "v": 2}, {"id": None}, {"id": 1, "callback_config_id": 5},
     {"id": [1]}, {"id": 1, "placed_at": "0001-01-01T00:00:00+23:59"}],
)  # fmt: skip
def test_a_token_with_wrong_fields_is_a_value_error(fields):
    with pytest.raises(ValueError, match="token"):
        Callback.from_json(json.dumps({"v": 1, **fields}))


def test_one_key_for_a_number_and_a_text():
    assert Callback(10).key == Callback("10").key == "10"


def test_an_age_is_never_negative():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert Callback(1, placed_at=now + timedelta(hours=1)).age(now) == 0
    assert Callback(1, placed_at=now.astimezone(timezone(timedelta(hours=5)))).age(now + timedelta(seconds=3)) == 3
    assert Callback(1).age(now) is None
    with pytest.raises(ValueError, match="time zone"):
        Callback(1, placed_at=datetime(2026, 1, 1))  # noqa: DTZ001


TRANSITION = Transition(
    Callback(1), CallbackStatus.CONNECTED, None, (), datetime(2026, 1, 1, tzinfo=UTC), None, 1.0, 2, is_regression=False
)


@pytest.mark.parametrize(
    ("status", "connected", "party"),
    [("DISCONNECTED", True, None), ("CALL_A_FAILED", False, "A"), ("CALL_B_FAILED", False, "B")],
)
def test_a_result_says_how_it_went(status, connected, party):
    result = CallbackResult(Callback(1), CallbackStatus(status), (TRANSITION,))
    assert (result.connected, result.failed_party) == (connected, party)


@pytest.mark.parametrize(
    "error",
    [
        BadCredentials(400, "BAD_CREDENTIALS", "Bad credentials", ("a",)),
        RateLimited(429, retry_after=3.0),
        CallbackOutcomeUnknown("lost", 503),
        ProtocolError("odd", 302),
        ClientMisuse("closed"),
        WatchInterrupted("ended", callback=Callback(1), last=TRANSITION, cause=RateLimited(429)),
        WatchTimeout("late", callback=Callback(1)),
    ],
)
def test_errors_survive_pickling(error):
    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert {k: repr(v) for k, v in vars(twin).items()} == {k: repr(v) for k, v in vars(error).items()}


def test_only_an_unknown_outcome_may_have_dialled():
    def tree(cls):
        return [cls, *(leaf for child in cls.__subclasses__() for leaf in tree(child))]

    assert [cls for cls in tree(TeniosError) if cls.may_have_dialled] == [CallbackOutcomeUnknown]
    assert issubclass(ClientMisuse, RuntimeError)
    assert issubclass(BadCredentials, ApiError)


def test_bad_credentials_names_both_causes():
    text = str(BadCredentials(400, "BAD_CREDENTIALS"))
    assert "access key" in text
    assert "configuration id" in text


async def before(): ...


def at(): ...


class AsyncCall:
    async def __call__(self, *_): ...


@pytest.mark.parametrize(
    ("hooks", "says"),
    [
        ({"before_send": 5}, "before_send must be a function"),
        ({"at_send": "now"}, "at_send must be a function"),
        ({"at_send": before}, "at_send must be a plain function"),
        ({"at_send": AsyncCall()}, "at_send must be a plain function"),
    ],
)
def test_what_cannot_be_called_is_refused_before_anything_is_sent(hooks, says):
    with pytest.raises(ValueError, match=says):
        CallbackAttempt(**hooks)


class Awaitable:
    def __await__(self):
        pytest.fail("nobody awaits it")


def test_an_answer_that_would_have_to_be_awaited_is_refused_and_a_coroutine_closed():
    coroutine = before()
    for answer in (coroutine, Awaitable()):
        with pytest.raises(ValueError, match=r"^not async$"):
            refuse_awaitable(answer, "not async")
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
    for answer in (None, 0, before):
        refuse_awaitable(answer, "not async")


def test_an_attempt_begins_empty_and_is_itself():
    attempt = CallbackAttempt(before, at_send=at)
    assert repr(attempt) == "CallbackAttempt(outcome=None, callback=None, error=None)"
    assert attempt != CallbackAttempt(before, at_send=at)
    for name in ("outcome", "callback", "error"):
        with pytest.raises(TypeError, match=name):
            CallbackAttempt(**{name: None})
    with pytest.raises(TypeError):
        CallbackAttempt(before, at)


def test_an_attempt_keeps_what_became_of_it():
    attempt, error = CallbackAttempt(), RateLimited(429)
    attempt.begin()
    attempt.settle(AttemptOutcome.PLACED, callback=Callback(10))
    assert (attempt.outcome, attempt.callback, attempt.error) == (AttemptOutcome.PLACED, Callback(10), None)
    attempt.settle(AttemptOutcome.REFUSED, error=error)
    assert (attempt.outcome, attempt.callback, attempt.error) == (AttemptOutcome.REFUSED, None, error)


def test_a_callback_may_be_handed_in_as_its_id():
    callback = Callback(10, "config")
    assert as_callback(callback) is callback
    assert as_callback(10) == Callback(10)
    assert as_callback("10").key == callback.key


@pytest.mark.parametrize(("status", "ends"), [("CALLING_A", False), ("CALL_A_FAILED", True)])
def test_a_transition_says_whether_it_is_the_last(status, ends):
    assert attrs.evolve(TRANSITION, status=CallbackStatus(status)).is_terminal is ends


def test_an_attempt_is_for_one_use():
    attempt = CallbackAttempt()
    assert attempt.outcome is None
    attempt.begin()
    assert attempt.outcome is AttemptOutcome.IN_FLIGHT
    with pytest.raises(ClientMisuse):
        attempt.begin()


def test_values_are_frozen():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Callback(1).id = 2
    connections = Connections(limit=100, in_use=1, idle=2, waiting=0)
    assert connections == Connections(limit=100, in_use=1, idle=2, waiting=0)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        connections.idle = 3
