"""Rule 4: whatever happens, the key and the number are in nothing that is logged, shown, pickled or raised."""

import contextlib
import copy
import json
import logging
import pickle
import traceback
from pathlib import Path

import anyio
import attrs
import pytest

from tenios_async import Callback, CallbackAttempt, CallbackRequest, TeniosClient, TeniosError, WatchInterrupted
from tenios_async._wire import AccessKey, status_body

from ..otel.recorded import Recorded
from .conftest import KEY
from .misbehaving import PLACED, Server, answer, close, refusal, reply, reset, silent
from .placing import CONFIG

NUMBER = "+4915799900042"


SECRETS = (KEY, NUMBER, NUMBER[1:])
HERE = str(Path(__file__).parent)

ECHO = refusal("BAD_REQUEST", f"no {KEY} and no {NUMBER}")
ANSWERS = {
    "placed": answer(PLACED), "refused": answer(reply(400, refusal("BAD_CREDENTIALS"))), "echo": answer(reply(400, ECHO)),
    "echo in 500": answer(reply(500, ECHO)), "garbage echo": answer(reply(200, b"<p>" + ECHO)), "reset": answer(b"", reset),
    "echo as id": answer(reply(200, f'{{"id": "", "k": "{KEY}"}}'.encode())), "closed": answer(PLACED[:30], close),
    "echo as status": answer(reply(200, f'{{"status": "{KEY} {NUMBER}\\u0000"}}'.encode())), "silence": silent,
    "redirect": answer(reply(307, b"", "Location: /callback/init")), "gone": close,
    "gzip": answer(reply(200, ECHO, "Content-Encoding: gzip")), "not http": answer(ECHO, close),
}  # fmt: skip

PATIENCE = {"gone": 0.2, "silence": 2}
"""Seconds, where nothing ever comes; what is to arrive is given time."""


def shown(value, depth=5):
    """What an error reporter could show of a value: its repr, and its items' and attributes' one by one."""
    yield repr(value)
    yield str(value)
    if depth and isinstance(value, dict):
        for name, item in value.items():
            yield from shown(name, depth - 1)
            yield from shown(item, depth - 1)
    elif depth and isinstance(value, (list, tuple, set)):
        for item in value:
            yield from shown(item, depth - 1)


def raised(error, seen=None):
    """What an error reporter could show of an exception: message, attributes, causes. Fails at a frame with the key."""
    seen = set() if seen is None else seen
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    yield from shown(error)
    yield from shown(error.args)
    yield from shown(vars(error))
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if not frame.f_code.co_filename.startswith(HERE):
            for name, value in frame.f_locals.items():
                for text in shown(value):
                    assert KEY not in text, f"{frame.f_code.co_qualname}.{name}: {text[:2000]}"
    for other in (error.__cause__, error.__context__, *getattr(error, "exceptions", ())):
        yield from raised(other, seen)
    if isinstance(error, WatchInterrupted):
        yield from raised(error.cause, seen)


def logged(records):
    for record in records:
        yield record.getMessage()
        yield repr(record.__dict__)
        yield from raised(record.exc_info[1]) if record.exc_info else ()


def assert_none(texts, secrets=SECRETS):
    texts = list(texts)
    assert texts
    for text in texts:
        for secret in secrets:
            assert secret not in text, text[:2000]


@pytest.fixture
def everything(caplog):
    """Every log record of every logger."""
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "httpx2", "httpcore2", "tenios_async", "asyncio"):
        caplog.set_level(logging.DEBUG, name)
    return caplog


@pytest.mark.anyio
@pytest.mark.parametrize("name", ANSWERS)
async def test_placing(client, everything, name):
    attempt, error = CallbackAttempt(), None
    async with Server(ANSWERS[name]) as server, client(server.url) as tenios:
        try:
            await tenios.init_callback(
                CONFIG, NUMBER, agent_announcement="hello", timeout=PATIENCE.get(name, 20), attempt=attempt
            )
        except TeniosError as caught:
            error = caught
        assert_none(shown(tenios))
        assert_none(shown(attempt))
    assert KEY.encode() in server.received or name == "gone"
    assert_none(logged(everything.records))
    if error is not None:
        assert_none(raised(error))
        assert_none(raised(pickle.loads(pickle.dumps(error))))
        assert_none([pickle.dumps(error).decode("latin-1")])


@pytest.mark.anyio
@pytest.mark.parametrize("name", ANSWERS)
async def test_polling_and_watching(client, everything, name):
    async with Server(ANSWERS[name]) as server, client(server.url) as tenios:
        watch = tenios.watch_callback(10, timeout=0.2)
        for ask in (lambda: tenios.callback_status(10, timeout=0.2), lambda: anext(watch)):
            with pytest.raises(TeniosError) as caught:
                await ask()
            assert_none(raised(caught.value))
            assert_none([pickle.dumps(caught.value).decode("latin-1")])
        assert_none(shown(watch))
    assert_none(logged(everything.records))


@pytest.mark.anyio
async def test_an_exception_of_the_callers_own(client, everything):
    """before_send's comes out as it is, without frames of ours that would show the body."""

    async def object_():
        raise RuntimeError("the ledger is full")

    async with Server(answer(PLACED)) as server, client(server.url) as tenios:
        with pytest.raises(RuntimeError) as caught:
            await tenios.init_callback(CONFIG, NUMBER, attempt=CallbackAttempt(object_))
    assert_none(raised(caught.value))
    assert_none(logged(everything.records))


def telling(package, make):
    """A transport of the caller's own that says in its errors whatever it was given to carry."""

    class Telling(package.AsyncBaseTransport):
        async def handle_async_request(self, request):
            body = await request.aread()
            error = make(f"could not write {body!r}", request)
            error.request = request
            error.detail = body.decode()
            raise error

    return Telling()


@pytest.mark.anyio
@pytest.mark.parametrize("make", ["WriteError", ValueError, lambda text, _: OSError(5, text), Exception])
async def test_a_transport_that_tells_what_it_carries(everything, package, make):
    make = getattr(package, make) if isinstance(make, str) else make
    async with package.AsyncClient(transport=telling(package, make)) as http:
        async with TeniosClient(KEY, base_url="https://x.test", http_client=http) as tenios:
            attempt = CallbackAttempt()
            for ask in (
                lambda: tenios.init_callback(CONFIG, NUMBER, attempt=attempt),
                lambda: tenios.callback_status(10),
            ):
                with pytest.raises(TeniosError) as caught:
                    await ask()
                assert_none(raised(caught.value))
            assert_none(shown(attempt))
    assert_none(logged(everything.records))


@pytest.mark.anyio
async def test_an_echo_as_id_and_as_state(client, everything):
    """They are passed on as they are, and logged masked."""
    for secret in (KEY, NUMBER):
        placed = answer(reply(200, f'{{"id": "{secret}"}}'.encode()))
        async with Server(placed) as server, client(server.url) as tenios:
            assert (await tenios.init_callback(CONFIG, NUMBER)).id == secret
        asked = answer(reply(200, f'{{"status": "{secret}"}}'.encode()))
        async with Server(asked) as server, client(server.url) as tenios:
            assert await tenios.callback_status(10) == secret
            assert (await anext(tenios.watch_callback(secret))).status == secret
    assert {"placed", "transitioned", "strange_status"} <= {vars(r).get("tenios_event") for r in everything.records}
    assert_none(logged(everything.records))


@pytest.mark.anyio
@pytest.mark.parametrize("name", [*ANSWERS, "number as id", "key as id", "key as status"])
async def test_spans_and_metrics(client, name):
    """Also where TENIOS sends it back as an id or a state, which are passed on as they are."""
    made_up = {"number as id": b'{"id": "%b"}', "key as id": b'{"id": "%b"}', "key as status": b'{"status": "%b"}'}
    echo = made_up.get(name, b"%b") % (NUMBER if name == "number as id" else KEY).encode()
    recorded = Recorded()
    script = ANSWERS.get(name) or answer(reply(200, echo))
    async with Server(script) as server, client(server.url, observers=[recorded.telemetry]) as tenios:
        with contextlib.suppress(TeniosError):
            callback = await tenios.init_callback(CONFIG, NUMBER, timeout=0.2)
        callback = Callback(10) if name not in made_up else Callback(echo[8:-2].decode())
        with contextlib.suppress(TeniosError):
            async for _ in tenios.watch_callback(callback, timeout=0.2):
                pass
    recorded.telemetry.close()
    assert recorded.spans
    assert_none(recorded.everything())


@pytest.mark.parametrize("key", ["schl\u00fcssel-geheim", 'abc"def-geheim', "plain-key"])
@pytest.mark.parametrize(
    "write", [str, json.dumps, lambda text: json.dumps(text, ensure_ascii=False), lambda text: repr(text.encode())]
)
def test_a_key_is_found_however_it_is_written(key, write):
    body = status_body(AccessKey(key), Callback(10))
    text = body.redact(f"with {write(key)} in it")
    assert "***" in text
    assert write(key).strip("'\"b") not in text


@pytest.mark.parametrize("number", ["+49123", "+49 1234 567890", "+49 (0)221-123456", "+491234567890", "0221123456"])
def test_a_number_is_masked_however_it_is_written(number):
    assert number not in status_body(AccessKey("key"), Callback(10)).redact(f"bad number {number}!")


@pytest.mark.anyio
async def test_a_cancellation(client, everything):
    """What goes on through the caller's frames has none of ours that would show the body."""
    caught = []

    async def call():
        try:
            await tenios.init_callback(CONFIG, NUMBER)
        except anyio.get_cancelled_exc_class() as cancelled:
            caught.append(cancelled)
            raise

    async with Server(silent) as server, client(server.url, cancel_grace=0.05) as tenios:
        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await server.until_request()
            group.cancel_scope.cancel()
    assert_none(raised(caught[0]))
    assert_none(logged(everything.records))


@pytest.mark.anyio
async def test_what_a_user_holds(client, everything):
    """A pickled or copied client is refused; a callback and its token hold neither key nor number."""
    async with Server(answer(PLACED)) as server, client(server.url) as tenios:
        callback = await tenios.init_callback(CONFIG, NUMBER)
        for use in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError) as caught:
                use(tenios)
            assert_none(raised(caught.value))
    request = CallbackRequest(CONFIG, NUMBER)
    assert_none([repr(request), str(request), f"{request}"])
    assert_none(
        [callback.to_json(), repr(callback), repr(attrs.asdict(callback)), pickle.dumps(callback).decode("latin-1")]
    )
    assert_none(logged(everything.records))


@pytest.mark.no_canary
@pytest.mark.anyio
async def test_the_search_finds_what_is_there(client, everything):
    """The oracle itself: a record and a frame that do hold the key are found."""
    names = {}
    exec(compile("def leak(key):\n    raise ValueError(len(key))", "elsewhere.py", "exec"), names)
    with pytest.raises(ValueError, match=str(len(KEY))) as caught:
        names["leak"](KEY)
    with pytest.raises(AssertionError):
        assert_none(raised(caught.value))
    logging.getLogger("httpcore").debug("%s", {"body": NUMBER})
    with pytest.raises(AssertionError):
        assert_none(logged(everything.records))


def test_bad_arguments_name_no_secret():
    """Not even a key or a number that is wrong."""
    with pytest.raises(ValueError, match="white space") as caught:
        TeniosClient(f"{KEY} \n")
    assert_none(raised(caught.value))
    for number in (f"{NUMBER}x", NUMBER[1:], f"{NUMBER}12345678"):
        with pytest.raises(ValueError, match=r"E\.164") as caught:
            CallbackRequest(CONFIG, number)
        assert_none(raised(caught.value))
