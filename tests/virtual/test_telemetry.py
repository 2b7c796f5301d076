"""Spans, metrics and log records of real watches, on both loops, to the instant."""

import logging

import anyio
import httpx
import pytest
from opentelemetry.trace import StatusCode

from tenios_async import CallbackAttempt, Polling, TeniosError, WatchTimeout

from ..otel.recorded import Recorded

pytestmark = pytest.mark.anyio
CALL = [(0, "REQUESTED"), (1, "CALLING_A"), (8, "CONNECTED"), (60, "DISCONNECTED")]
EVERY_3 = Polling.fixed(3)


@pytest.fixture
def recorded():
    return Recorded()


async def test_a_call_from_its_placing_to_its_end(vendor, recorded):
    service = vendor(CALL)
    async with service.client(observers=[recorded.telemetry], polling=EVERY_3) as tenios:
        with recorded.tracer_provider.get_tracer("web").start_as_current_span("POST /call-me-back") as request:
            callback = await tenios.init_callback("config", "+491234567890")
        async for transition in tenios.watch_callback(callback):
            assert bool(recorded.spans) is transition.is_terminal
    (span,) = recorded.spans
    assert [link.context.span_id for link in span.links] == [request.get_span_context().span_id]
    seen = [event.attributes["tenios.callback.status"] for event in span.events]
    assert seen == [status for _, status in CALL]
    assert recorded.values("tenios.callback.state.duration") == {
        ("REQUESTED",): (1, 3.0),
        ("CALLING_A",): (1, 6.0),
        ("CONNECTED",): (1, 51.0),
    }
    assert recorded.values("tenios.callback.lateness") == {
        (status,): (1, 3.0) for status in ("CALLING_A", "CONNECTED", "DISCONNECTED")
    }
    assert recorded.values("tenios.callback.polls") == {("DISCONNECTED",): (1, len(service.polls))}
    assert recorded.values("tenios.callback.placements") == {("PLACED",): 1}
    assert recorded.values("tenios.callback.endings") == {("DISCONNECTED",): 1}


async def test_a_cancelled_call_in_doubt_is_told_and_logged_though_its_caller_hears_nothing(vendor, recorded, caplog):
    """The cancellation goes on; that a phone may ring is in a span, a counter and a WARNING."""
    service, attempt = vendor(latency=1000), CallbackAttempt()
    async with service.client(observers=[recorded.telemetry], cancel_grace=1) as tenios:
        with anyio.move_on_after(5):
            await tenios.init_callback("config", "+491234567890", attempt=attempt)
    (span,) = recorded.spans
    assert span.attributes["tenios.callback.outcome"] == "UNKNOWN"
    assert (span.end_time - span.start_time) / 1e9 == pytest.approx(6, abs=0.1)
    (record,) = [record for record in caplog.records if record.name == "tenios_async"]
    assert (record.levelname, record.tenios_outcome) == ("WARNING", "UNKNOWN")


async def test_a_watch_whose_time_is_up(vendor, recorded):
    async with vendor([(0, "CALLING_A")]).client(observers=[recorded.telemetry], polling=EVERY_3) as tenios:
        with pytest.raises(WatchTimeout):
            await tenios.wait_for_callback(10, polling=EVERY_3, timeout=10)
    (span,) = recorded.spans
    assert span.status.status_code is StatusCode.ERROR
    assert recorded.values("tenios.callback.endings") == {("WatchTimeout", "CALLING_A"): 1}


async def test_who_breaks_off_leaves_a_span_until_the_telemetry_is_closed(vendor, recorded):
    async with vendor(CALL).client(observers=[recorded.telemetry], polling=EVERY_3) as tenios:
        callback = await tenios.init_callback("config", "+491234567890")
        await anext(tenios.watch_callback(callback))
    assert not recorded.spans
    recorded.telemetry.close()
    assert recorded.spans[0].attributes["tenios.callback.forgotten"] is True


FIELDS = {
    "placed": {"tenios_outcome", "tenios_seconds", "tenios_callback_id", "tenios_error"},
    "polled": {"tenios_seconds", "tenios_callback_id", "tenios_error"},
    "transitioned": {"tenios_status", "tenios_previous", "tenios_callback_id", "tenios_error"},
    "ended": {"tenios_status", "tenios_callback_id", "tenios_error"},
    "strange_status": {"tenios_status"},
    "observer_failed": set(),
}


def fields(record):
    return {name: value for name, value in vars(record).items() if name.startswith("tenios_")}


async def test_log_records_have_fields_and_every_event_its_own(vendor, caplog):
    caplog.set_level(logging.DEBUG, "tenios_async")

    def raising(event):
        if type(event).__name__ == "Placed":
            raise RuntimeError("observer")

    failing = [(0, lambda: httpx.Response(500)), (3, "ON_HOLD"), (6, "CALL_A_FAILED")]
    async with vendor(failing).client(polling=EVERY_3, observers=[raising]) as tenios:
        callback = await tenios.init_callback("config", "+491234567890")
        await tenios.wait_for_callback(callback, polling=EVERY_3)
    told = [(record, fields(record)) for record in caplog.records if record.name == "tenios_async"]
    for record, found in told:
        event = found.pop("tenios_event")
        assert set(found) == FIELDS[event]
        assert record.levelno == {"strange_status": logging.WARNING, "observer_failed": logging.ERROR}.get(
            event, logging.DEBUG
        )
    assert [record.tenios_event for record, _ in told] == [
        "placed", "observer_failed", "polled", "strange_status", "transitioned", "transitioned", "ended",
    ]  # fmt: skip
    assert [record.getMessage() for record, _ in told if record.levelno == logging.DEBUG] == [
        "init ended as PLACED, callback 10",
        "a poll of callback 10 failed: TENIOS failed to answer (HTTP 500)",
        "callback 10 is ON_HOLD, after None",
        "callback 10 is CALL_A_FAILED, after ON_HOLD",
        "the watch of callback 10 has ended at CALL_A_FAILED",
    ]


async def tell_later():
    pytest.fail("nobody awaits it")


async def test_an_observer_that_gives_what_would_have_to_be_awaited_has_failed(vendor, caplog):
    """Also one that is made of a lambda, as cannot be seen beforehand. Nobody is warned of the coroutine."""
    async with vendor().client(observers=[lambda _: tell_later()]) as tenios:
        await tenios.init_callback("config", "+491234567890")
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.tenios_event == "observer_failed"
    assert "never be awaited" in str(record.exc_info[1])


@pytest.mark.parametrize("is_told", [True, False])
async def test_a_filter_of_the_log_that_raises_ends_no_call(vendor, caplog, capsys, monkeypatch, is_told):
    """Say, one that adds what only a request knows: `logging` keeps a handler's errors from callers, not a filter's."""
    caplog.set_level(logging.DEBUG, "tenios_async")
    monkeypatch.setattr(logging, "raiseExceptions", is_told)
    logger = logging.getLogger("tenios_async")

    def raising(_):
        raise LookupError("no request")

    logger.addFilter(raising)
    try:
        async with vendor([(0, "ON_HOLD"), (3, "CALL_A_FAILED")]).client(observers=[lambda _: 1 / 0]) as tenios:
            callback = await tenios.init_callback("config", "+491234567890")
            assert callback.id == 10
            assert (await tenios.wait_for_callback(callback)).callback.status == "CALL_A_FAILED"
    finally:
        logger.removeFilter(raising)
    assert ("LookupError: no request" in capsys.readouterr().err) is is_told


async def test_what_else_an_observer_gives_is_its_own_affair(vendor, caplog):
    async with vendor().client(observers=[lambda _: 1]) as tenios:
        await tenios.init_callback("config", "+491234567890")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


REFUSAL = {"error_code": "BAD_CREDENTIALS", "error_message": "Bad credentials", "fields": []}


@pytest.mark.parametrize(
    ("answer", "level", "error"),
    [
        (lambda: httpx.Response(503), "WARNING", "CallbackOutcomeUnknown"),
        (lambda: httpx.Response(400, json=REFUSAL), "DEBUG", "BadCredentials"),
    ],
)
async def test_only_a_call_in_doubt_is_a_warning(vendor, caplog, answer, level, error):
    caplog.set_level(logging.DEBUG, "tenios_async")
    async with vendor(init=answer).client() as tenios:
        with pytest.raises(TeniosError) as caught:
            await tenios.init_callback("config", "+491234567890")
    (record,) = [record for record in caplog.records if hasattr(record, "tenios_event")]
    assert (record.levelname, record.tenios_error) == (level, error)
    assert record.getMessage().endswith(str(caught.value))


async def test_the_end_of_a_watch_that_failed_says_why(vendor, caplog):
    caplog.set_level(logging.DEBUG, "tenios_async")
    async with vendor([(0, "CALLING_A")]).client(polling=EVERY_3) as tenios:
        with pytest.raises(WatchTimeout):
            await tenios.wait_for_callback(10, polling=EVERY_3, timeout=10)
    last = caplog.records[-1]
    assert last.getMessage().startswith("the watch of callback 10 has ended at CALLING_A: the time given")
    assert last.tenios_error == "WatchTimeout"
