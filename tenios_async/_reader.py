"""One HTTP/1.1 answer after another: what httptools (llhttp) makes of the bytes, and the limits. No socket in sight.

Nothing about HTTP's syntax is parsed by hand.
"""

from __future__ import annotations

import httptools

from tenios_async._exchange import RawHeaders, refused_encoding
from tenios_async._wire import MAX_BODY, Reply

MAX_HEADERS = 32 * 1024
"""Bytes of names and values, those of 1xx answers included."""
MAX_UNPARSED = 2 * MAX_HEADERS
"""Bytes, white space and all, that may come before the headers end; the parser tells of a header when it is whole."""
MAX_BYTES = MAX_UNPARSED + 8 * MAX_BODY
"""Bytes of all of an answer: a body in chunks of one byte each takes six for one, and trailers are not counted else."""

_NONE = RawHeaders(())


class AnswerReader:
    """Reads one answer; `begin()` makes it ready for the next, of the same connection or another.

    Attributes:
        is_whole: the answer is complete.
        is_clean: it is, the connection stays open, and not a byte came after it.
        problem: why this is no answer, or None.
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_bytes",
        "_header_bytes",
        "_headers",
        "_in_headers",
        "_parser",
        "_status_code",
        "_unparsed",
        "is_clean",
        "is_whole",
        "problem",
    )

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.begin()

    def begin(self) -> None:
        """Forgets the answer. Only after one that was clean."""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: bytes | bytearray = b""
        self._header_bytes = self._body_bytes = self._unparsed = self._bytes = self._status_code = 0
        self._in_headers = True
        self.is_whole = self.is_clean = False
        self.problem: str | None = None

    @property
    def ends_with_the_stream(self) -> bool:
        """Whether the end of the stream ends this answer: RFC 9112 6.3, one that gives no length."""
        framing = {b"content-length", b"transfer-encoding"}
        return not self._in_headers and framing.isdisjoint(name.lower() for name, _ in self._headers)

    def feed(self, data: bytes) -> None:
        """Takes the next bytes of the stream."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.is_clean = False
            if not self.is_whole:
                self.problem = self.problem or f"what answered does not speak HTTP/1.1 as asked: {error}"
        self._bytes += len(data)
        if self._in_headers:
            self._unparsed += len(data)
        if self._header_bytes > MAX_HEADERS or self._unparsed > MAX_UNPARSED:
            self.problem = f"the answer's headers are longer than {MAX_HEADERS} bytes"
        elif self._bytes > MAX_BYTES:
            self.problem = f"the answer is longer than {MAX_BYTES} bytes on the wire"

    def refusal(self) -> str | None:
        """Why the whole answer is not taken, or None."""
        return refused_encoding(RawHeaders(self._headers))

    def reply(self) -> Reply:
        """The answer. A success goes without its headers, which nobody reads.

        With them, hundreds of answers on their way to whoever asked push each other out of the processor's cache.
        """
        headers = _NONE if 200 <= self._status_code < 300 else RawHeaders(self._headers)  # noqa: PLR2004
        return Reply(self._status_code, headers, bytes(self._body))

    def on_message_begin(self) -> None:
        if self.is_whole:
            self.is_clean = False  # an answer to nothing

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_headers:  # else a trailer, which RFC 9110 6.5.1 lets us ignore, or of an answer to nothing
            self._header_bytes += len(name) + len(value)
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if not self.is_whole:
            self._status_code = self._parser.get_status_code()
            self._in_headers = self._status_code < 200  # noqa: PLR2004  # RFC 9110 15.2: an answer follows

    def on_body(self, data: bytes) -> None:
        if self.is_whole:
            return
        self._body_bytes += len(data)
        if self._body_bytes > MAX_BODY:
            self.problem = f"the answer is longer than {MAX_BODY} bytes"
        elif not self._body:  # which is nearly always all of it
            self._body = data
        else:
            self._body = bytearray(self._body) if isinstance(self._body, bytes) else self._body
            self._body += data

    def on_message_complete(self) -> None:
        if self._in_headers:
            self._headers.clear()
        else:
            self.is_clean = self._parser.should_keep_alive() and not self.is_whole
            self.is_whole = True
