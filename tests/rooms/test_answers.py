"""Everything a real HTTP/1.1 server may answer, whole and split at every byte; and what is refused."""

import anyio
import pytest

from tenios_async import (
    CallbackOutcomeUnknown,
    ConnectionFailed,
    ProtocolError,
    RequestTimeout,
    TeniosClient,
    TeniosError,
)
from tenios_async._exchange import RawHeaders

from .network import CONNECTED, answering, in_pieces, with_length

pytestmark = pytest.mark.anyio
URL = "http://127.0.0.1:8080"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
GOOD = {
    "a length": (with_length(), "kept"),
    "chunks": (CHUNKED + b'\r\n9\r\n{"status"\r\nE\r\n: "CONNECTED"}\r\n0\r\n\r\n', "kept"),
    "chunks with extensions and trailers": (
        CHUNKED
        + b"Trailer: X-Sum\r\n\r\n17;a=b\r\n"
        + CONNECTED
        + b"\r\n0\r\nX-Sum: 1\r\nContent-Encoding: gzip\r\n\r\n",
        "kept",
    ),
    "until the end": (b"HTTP/1.1 200 OK\r\n\r\n" + CONNECTED, "closed"),
    "until the end, of HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + CONNECTED, "closed"),
    "a length, of HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 23\r\n\r\n" + CONNECTED, "left"),
    "a length, of HTTP/1.0 that keeps alive": (
        b"HTTP/1.0 200 OK\r\nContent-Length: 23\r\nConnection: keep-alive\r\n\r\n" + CONNECTED,
        "kept",
    ),
    "a closing connection": (with_length(headers="Connection: close\r\n"), "left"),
    "a closing connection in odd case": (with_length(headers="cOnnEction: ClOse\r\n"), "left"),
    "a 100 and a 103 before it": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Encoding: gzip\r\n\r\n"
        + with_length(),
        "kept",
    ),
    "header case and white space": (
        b"HTTP/1.1 200 OK\r\ncOnTeNt-LeNgTh:  23 \r\nCONTENT-ENCODING: Identity\r\nX-Empty:\r\n\r\n" + CONNECTED,
        "kept",
    ),
    "no reason phrase": (b"HTTP/1.1 200 \r\nContent-Length: 23\r\n\r\n" + CONNECTED, "kept"),
    "bytes that are not ASCII in a header": (with_length(headers="X-Place: M\xfcnchen\r\n"), "kept"),
    "headers just short enough": (with_length(headers=f"X: {'a' * (32 * 1024 - 17)}\r\n"), "kept"),
    "something after it": (with_length() + b"HTTP/1.1 408 Request Timeout\r\n\r\n", "left"),
    "garbage after it": (with_length() + b"\x00garbage", "left"),
    "line ends after it": (with_length() + b"\r\n", "any"),
}
LONG = b'"' + b"x" * 65536 + b'"'
BAD = {
    "garbage": b"\x16\x03\x01garbage that is no HTTP at all\r\n\r\n",
    "HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80",
    "a status that is no number": b"HTTP/1.1 OK 200\r\n\r\n",
    "a change of protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    "compressed": with_length(headers="Content-Encoding: gzip\r\n"),
    "compressed with something unheard of": with_length(headers="content-encoding: Future\r\n"),
    "too long": with_length(LONG),
    "too long in chunks": CHUNKED + b"\r\n" + b"%x\r\n%b\r\n0\r\n\r\n" % (len(LONG), LONG),
    "too long until the end": b"HTTP/1.1 200 OK\r\n\r\n" + LONG,
    "a header too long": with_length(headers=f"X: {'a' * 33 * 1024}\r\n"),
    "a header without end": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70 * 1024,
    "headers too many": with_length(headers="X: 1234567890123456\r\n" * 2000),
    "1xx without end": b"HTTP/1.1 100 Continue\r\nX: 1234567890123456\r\n\r\n" * 2000,
    "1xx without headers and without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 4000,
    "trailers without end": CHUNKED + b"\r\n17\r\n" + CONNECTED + b"\r\n0\r\nX: " + b"a" * 700_000,
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 23\r\nContent-Length: 24\r\n\r\n" + CONNECTED,
    "a length below zero": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n" + CONNECTED,
    "a length and chunks": CHUNKED + b"Content-Length: 23\r\n\r\n17\r\n" + CONNECTED + b"\r\n0\r\n\r\n",
    "a chunk without a size": CHUNKED + b"\r\nxyz\r\n" + CONNECTED,
    "no JSON": with_length(b"<html>"),
    "nothing in it": with_length(b"", status="204 No Content"),
}
CUT_SHORT = {
    "in the length": with_length()[:-1],
    "in a chunk": CHUNKED + b"\r\n17\r\n" + CONNECTED[:-1],
    "between chunks": CHUNKED + b"\r\n17\r\n" + CONNECTED + b"\r\n",
    "before the last line of chunks": CHUNKED + b"\r\n17\r\n" + CONNECTED + b"\r\n0\r\n",
    "in the headers": b"HTTP/1.1 200 OK\r\nContent-Len",
    "in the status": b"HTT",
    "after a 100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "at once": b"",
}


async def poll(network, behaviour):
    async with network(behaviour) as net, TeniosClient("key", base_url=URL) as tenios:
        assert tenios.transport == "pool"
        try:
            return await tenios.callback_status(10), net
        except TeniosError as error:
            return error, net


@pytest.mark.parametrize(("stream", "after"), GOOD.values(), ids=GOOD)
async def test_an_answer(network, stream, after):
    """It is read; the connection is used again where that is safe, and only there."""
    async with network(in_pieces(stream, close=after == "closed")) as net, TeniosClient("key", base_url=URL) as tenios:
        assert await tenios.callback_status(10) == "CONNECTED"
        with anyio.move_on_after(1):
            await tenios.callback_status(10)
        if after != "any":
            assert len(net.peers) == (1 if after == "kept" else 2)
            assert net.peers[0].is_open == (after == "kept")


@pytest.mark.parametrize(("stream", "after"), GOOD.values(), ids=GOOD)
async def test_an_answer_split_at_every_byte(network, stream, after):
    cuts = range(1, len(stream)) if len(stream) < 1000 else range(1, len(stream), 997)
    for cut in cuts:
        seen, _ = await poll(network, in_pieces(stream[:cut], stream[cut:], close=after == "closed"))
        assert seen == "CONNECTED", cut
    pieces = [stream[at : at + 1] for at in range(len(stream))]
    seen, _ = await poll(network, in_pieces(*pieces, close=after == "closed"))
    assert seen == "CONNECTED"


@pytest.mark.parametrize("stream", BAD.values(), ids=BAD)
async def test_what_is_refused(network, stream):
    """However it arrives; the connection is given up."""
    for size in (len(stream), 4096, 7 if len(stream) < 100_000 else 999):
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        seen, net = await poll(network, in_pieces(*pieces))
        assert isinstance(seen, ProtocolError), size
        assert len(net.requests) == 1
    assert not net.open


@pytest.mark.parametrize("stream", BAD.values(), ids=BAD)
async def test_a_call_whose_answer_is_refused_is_unknown(network, stream):
    async with network(in_pieces(stream)) as net, TeniosClient("key", base_url=URL) as tenios:
        with pytest.raises(CallbackOutcomeUnknown):
            await tenios.init_callback("config", "+491234567890")
    assert net.inits == 1


@pytest.mark.parametrize("stream", CUT_SHORT.values(), ids=CUT_SHORT)
async def test_what_is_cut_short(network, stream):
    seen, net = await poll(network, in_pieces(stream, close=True))
    assert isinstance(seen, ProtocolError)
    assert len(net.requests) == 1
    async with network(in_pieces(stream, close=True)) as net, TeniosClient("key", base_url=URL) as tenios:
        with pytest.raises(CallbackOutcomeUnknown):
            await tenios.init_callback("config", "+491234567890")
    assert net.inits == 1


async def test_what_is_drawn_out(network):
    """A drip of one byte a second cannot outlive the deadline."""

    async def drip(peer):
        await peer.request()
        rest = iter(with_length(headers=f"X: {'a' * 600}\r\n"))
        while True:
            await anyio.sleep(1)
            peer.send(bytes([next(rest)]))

    async with network(drip) as net, TeniosClient("key", base_url=URL) as tenios:
        began = anyio.current_time()
        with pytest.raises(RequestTimeout):
            await tenios.callback_status(10)
        assert anyio.current_time() - began == 10
        with pytest.raises(CallbackOutcomeUnknown):
            await tenios.init_callback("config", "+491234567890")
        assert anyio.current_time() - began == 40
        assert not net.open


async def test_an_answer_before_the_request_is_written(network):
    """It counts; but what is left of the request must not be taken for the next."""

    async def hasty(peer):
        peer.unwritten = 100
        await peer.request()
        peer.send(with_length(b'{"errorCode": "BAD_CREDENTIALS", "errorMessage": "no"}', status="403 Forbidden"))

    async with network(hasty, answering(with_length())) as net, TeniosClient("key", base_url=URL) as tenios:
        with pytest.raises(TeniosError) as caught:
            await tenios.callback_status(10)
        assert not isinstance(caught.value, (ProtocolError, ConnectionFailed))
        assert await tenios.callback_status(10) == "CONNECTED"
        assert [peer.is_open for peer in net.peers] == [False, True]


async def test_bytes_that_nobody_asked_for(network):
    """While a connection is idle: it is given up, and they are not the answer to the next request."""
    async with network(answering(with_length())) as net, TeniosClient("key", base_url=URL) as tenios:
        await tenios.callback_status(10)
        net.peers[0].send(with_length(b'{"status": "DISCONNECTED"}'))
        await anyio.sleep(0.1)
        assert not net.open
        assert await tenios.callback_status(10) == "CONNECTED"


async def test_the_request(network):
    """As any server takes it: the key in the body, the length known, nothing compressed asked for."""
    async with network(answering(with_length())) as net, TeniosClient("key", base_url=f"{URL}/v1/") as tenios:
        await tenios.callback_status(10)
        await tenios.callback_status("11")
    first, second = net.requests
    headers = dict(first.headers)
    assert (first.target, second.target) == ("/v1/callback/status", "/v1/callback/status")
    assert (first.fields, second.fields) == ({"access_key": "key", "id": 10}, {"access_key": "key", "id": "11"})
    assert headers[b"host"] == b"127.0.0.1:8080"
    assert headers[b"accept-encoding"] == b"identity"
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"user-agent"].startswith(b"tenios_async/")
    assert len(headers) == len(first.headers)


async def test_headers_are_a_mapping_like_any_other():
    """What stands twice is one, by its name in lower case (RFC 9110 5.2)."""
    headers = RawHeaders([(b"Retry-After", b" 5 "), (b"X", b"a"), (b"x", b"b")])
    assert dict(headers) == {"retry-after": "5", "x": "a, b"}
    assert (len(headers), "retry-after" in headers, "date" in headers) == (2, True, False)
    with pytest.raises(KeyError):
        headers["date"]
