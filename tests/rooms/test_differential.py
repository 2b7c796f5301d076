"""The pool and h11 make the same of the same bytes, however they are split."""

import asyncio
import contextlib

import anyio
import h11
import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from tenios_async import Callback
from tenios_async._exchange import ExchangeFailed, Progress
from tenios_async._pool import PoolExchange
from tenios_async._wire import MAX_BODY, AccessKey, status_body

from ..virtual_time import virtual_loop
from .network import Network, in_pieces
from .recorded import SERVERS, Program, record
from .servers import Nginx, running

BODY = status_body(AccessKey("key"), Callback(10))
WAITS, CUT_SHORT, REFUSED = "waits for more", "cut short", "refused"


def by_pool(pieces, *, closes):
    """What comes out of the seam."""

    async def main():
        pool = PoolExchange(
            "http://127.0.0.1", make_ssl_context=None, max_connections=1, keepalive=120, user_agent="test"
        )
        async with Network([in_pieces(*pieces, close=closes)]):
            try:
                reply = await pool.post("/callback/status", BODY, deadline=anyio.current_time() + 10)
            except ExchangeFailed as failure:
                if failure.timed_out:
                    return WAITS
                return REFUSED if failure.progress is Progress.ANSWERED else CUT_SHORT
            finally:
                await pool.aclose()
            return reply.status_code, as_compared(reply.status_code, reply.headers), reply.body

    with asyncio.Runner(loop_factory=virtual_loop) as runner:
        return runner.run(main())


def by_h11(stream, *, closes):
    """The same in h11's words, with the limits that are ours."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method="POST", target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
    connection.send(h11.EndOfMessage())
    if stream:  # h11 takes b"" for the end
        connection.receive_data(stream)
    response, body, is_over = None, b"", False
    try:
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                if not closes:
                    return WAITS
                is_over = True
                connection.receive_data(b"")
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += event.data
    except h11.RemoteProtocolError:
        return CUT_SHORT if is_over else REFUSED
    headers = joined(response.headers)
    if headers.get("content-encoding", "identity").lower() != "identity" or len(body) > MAX_BODY:
        return REFUSED
    return response.status_code, as_compared(response.status_code, headers), body


def joined(pairs):
    headers = {}
    for name, value in pairs:
        headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
    return {name: ", ".join(values) for name, values in headers.items()}


def as_compared(status_code, headers):
    """None of a success, which the pool leaves out; and not the framing, which h11 writes in its own way."""
    framing = ("content-length", "transfer-encoding")
    return {} if status_code < 300 else {name: value for name, value in headers.items() if name not in framing}


TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_!#$%&'*+.^`|~", min_size=1, max_size=12).map(str.encode)
VALUE = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f", exclude_categories=["Cc"]),
    max_size=30,
).map(lambda text: text.strip().encode("latin-1"))
FRAMING = (b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"content-encoding", b"keep-alive")
HEADERS = st.lists(st.tuples(TOKEN, VALUE).filter(lambda header: header[0].lower() not in FRAMING), max_size=5)
SPACE = st.sampled_from(
    [b"", b" ", b"  "]
)  # after a tab behind `chunked` llhttp waits for the end, and the pool then refuses


def odd_case(name):
    return st.lists(st.booleans(), min_size=len(name), max_size=len(name)).map(
        lambda upper: bytes(n - 32 if up and 97 <= n <= 122 else n for n, up in zip(name, upper, strict=True))
    )


@st.composite
def chunked(draw, body):
    stream, at = b"", 0
    while at < len(body):
        size = draw(st.integers(1, len(body) - at))
        extension = draw(st.sampled_from([b"", b";a", b";a=b", b';a="b c"']))
        stream += b"0" * draw(st.integers(0, 2)) + b"%X" % size + extension + b"\r\n" + body[at : at + size] + b"\r\n"
        at += size
    trailers = draw(HEADERS)
    return stream + b"0\r\n" + b"".join(b"%b: %b\r\n" % trailer for trailer in trailers) + b"\r\n"


@st.composite
def streams(draw):
    """What a server may send after one POST, and whether it then closes."""
    stream = b""
    for _ in range(draw(st.integers(0, 2))):
        stream += b"HTTP/1.1 %d Wait\r\n" % draw(st.sampled_from([100, 102, 103]))
        stream += b"".join(b"%b: %b\r\n" % header for header in draw(HEADERS)) + b"\r\n"
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.0"]))
    code = draw(st.sampled_from([200, 200, 201, 204, 301, 304, 400, 403, 404, 429, 500, 503]))
    body = draw(st.binary(max_size=60))
    headers = draw(HEADERS)
    framing = draw(st.sampled_from(["length", "chunked", "close"])) if version == b"1.1" else "length"
    if code in (204, 304):
        body, framing = b"", "none"
    if framing == "length":
        headers.append((draw(odd_case(b"content-length")), b"%d" % len(body)))
    elif framing == "chunked":
        headers.append((draw(odd_case(b"transfer-encoding")), draw(odd_case(b"chunked"))))
        body = draw(chunked(body))
    if draw(st.booleans()):
        headers.append((draw(odd_case(b"connection")), draw(st.sampled_from([b"close", b"keep-alive", b"Close"]))))
    if draw(st.integers(0, 9)) == 0:
        headers.append((b"Content-Encoding", draw(st.sampled_from([b"gzip", b"identity", b"IDENTITY"]))))
    headers = draw(st.permutations(headers))
    stream += b"HTTP/%b %d %b\r\n" % (version, code, draw(st.sampled_from([b"OK", b"", b"It is so"])))
    for name, value in headers:
        stream += name + b":" + draw(SPACE) + value + draw(SPACE) + b"\r\n"
    return stream + b"\r\n" + body, framing == "close" or draw(st.booleans())


@st.composite
def damaged(draw):
    stream, closes = draw(streams())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(stream)))
        stream = stream[:at] + draw(st.binary(max_size=2)) + stream[at + draw(st.integers(0, 3)) :]
    return stream, closes


@st.composite
def cut(draw, whole):
    """The stream and where it is split."""
    stream, closes = draw(whole)
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    return [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) if a < b] or [b""], closes


@given(cut(streams()))
def test_what_is_whole(streamed):
    pieces, closes = streamed
    assert by_pool(pieces, closes=closes) == by_h11(b"".join(pieces), closes=closes)


@given(cut(streams()), st.data())
def test_what_is_cut_short(streamed, data):
    pieces, _ = streamed
    stream = b"".join(pieces)
    stream = stream[: data.draw(st.integers(0, len(stream)))]
    assert by_pool([stream], closes=True) == by_h11(stream, closes=True)


@example(([b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}"], False))
@example(([b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"], True))
@given(cut(damaged()))
def test_what_is_damaged(streamed):
    """Where parsers differ in what they forgive, an answer is still never another answer."""
    pieces, closes = streamed
    ours = by_pool(pieces, closes=closes)
    assert ours == by_pool([b"".join(pieces)], closes=closes)
    theirs = by_h11(b"".join(pieces), closes=closes)
    if isinstance(ours, tuple) and isinstance(theirs, tuple):
        assert ours == theirs


EXPECTED = {"/length": 200, "/chunks": 200, "/nothing": 204, "/close": 200, "/long": REFUSED, "/missing": 404}


@pytest.fixture(scope="module", params=[*SERVERS, "nginx"])
def recordings(request, tmp_path_factory):
    """Each answer of a real server, asked to keep the connection and to close it."""
    if request.param == "nginx" and Nginx.program is None:
        pytest.skip("nginx is not installed")
    directory = tmp_path_factory.mktemp("recorded")
    with contextlib.ExitStack() as stack:
        if request.param == "nginx":
            server = stack.enter_context(running(Nginx, directory))
            address, expected = ("127.0.0.1", server.port), {"/callback/status": 200, "/missing": 404}
        else:
            program = Program(request.param, directory / "errors")
            stack.callback(program.stop)
            address, expected = program.address, EXPECTED
        yield [
            (path, seen, record(address, path, closing=closing))
            for path, seen in expected.items()
            for closing in (False, True)
        ]


def test_what_real_servers_send(recordings):
    """Whole, in bytes, and cut in two anywhere."""
    for path, expected, (stream, closes) in recordings:
        theirs = by_h11(stream, closes=closes)
        assert expected in (theirs, theirs[0]), path
        step = 1 + len(stream) // 200
        ways = [[stream], [stream[at : at + step] for at in range(0, len(stream), step)]]
        ways += [[stream[:at], stream[at:]] for at in range(1, len(stream), step)]
        for pieces in ways:
            assert by_pool(pieces, closes=closes) == theirs, path
