"""What a server may say: the whole grid of statuses, bodies and Retry-After; and answers made to do harm."""

from __future__ import annotations

import gzip
import itertools
import json
import tracemalloc
import zlib
from typing import TYPE_CHECKING, NamedTuple

import anyio

from tenios_async import (
    AttemptOutcome,
    BadCredentials,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RateLimited,
    TeniosClient,
    TeniosError,
)

from ..sockets.misbehaving import Server, refusal, reply
from .experiment import Tally, experiment
from .rooms import ALL_ROOMS, ROOMS, client, numbers, own_id, place

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from ..sockets.misbehaving import Behaviour, Peer

DATE = "Date: Thu, 26 Nov 2026 12:00:00 GMT"
STATUSES = (
    *(200, 201, 202, 203, 204, 206, 226, 299, 300, 301, 302, 303, 304, 307, 308),
    *(
        400,
        401,
        402,
        403,
        404,
        405,
        407,
        408,
        409,
        413,
        425,
        429,
        451,
        499,
        500,
        501,
        502,
        503,
        504,
        511,
        599,
        600,
        999,
    ),
)
BODIES = {
    "id": b'{"id": %d}', "id as text": b'{"id": "%d"}', "no id": b'{"status": "REQUESTED"}', "id of a list": b'{"id": [%d]}',
    "TENIOS": refusal("SOMETHING", "No"), "credentials": refusal("BAD_CREDENTIALS", "Bad credentials"),
    "nameless": b'{"error_code": "", "error_message": "No", "fields": []}', "html": b"<html>It works!</html>",
    "nothing": b"", "cut": b'{"id": 1', "error and id": b'{"error_code": "SOMETHING", "id": %d}',
}  # fmt: skip
RETRY_AFTER = {
    "0": 0.0, "-1": None, "99999999999999999999": 300.0, "Thu, 26 Nov 2026 12:02:00 GMT": 120.0,
    "soon \u00e9": None, "1.5": None, "": None,
}  # fmt: skip
WITHOUT_BODY = (204, 304)
"""RFC 9110 15.3.5 and 15.4.5."""
CLASSES = {401: PermissionDenied, 403: PermissionDenied, 404: NotFound, 429: RateLimited}


class Cell(NamedTuple):
    status: int
    body: str
    retry_after: str

    def answer(self, number: str) -> bytes:
        body = BODIES[self.body]
        body = b"" if self.status in WITHOUT_BODY else body % own_id(number) if b"%d" in body else body
        headers = [DATE, *([f"Retry-After: {self.retry_after}"] if self.retry_after else [])]
        return reply(self.status, body, *headers)

    @property
    def verdict(self) -> AttemptOutcome:
        """Rule 1's table, read anew: only an id says yes, and only a 4xx in TENIOS's own words says no."""
        if 200 <= self.status < 300 and self.status not in WITHOUT_BODY:
            has_id = self.body in ("id", "id as text", "error and id")
            return AttemptOutcome.PLACED if has_id else AttemptOutcome.UNKNOWN
        if 400 <= self.status < 500 and self.body in ("TENIOS", "credentials", "error and id"):
            return AttemptOutcome.REFUSED
        return AttemptOutcome.UNKNOWN

    @property
    def cls(self) -> type[TeniosError]:
        return BadCredentials if self.body == "credentials" else CLASSES.get(self.status, InvalidRequest)


@experiment(
    "The grid of statuses, bodies and Retry-After (0, -1, huge, a date, garbage); all rooms",
    "Rule 1's table, cell by cell",
    trials=len(STATUSES) * len(BODIES) * len(RETRY_AFTER) * len(ALL_ROOMS),
    passes=5,
)
def grid(chance: random.Random, tally: Tally) -> None:
    cells = [Cell(*cell) for cell in itertools.product(STATUSES, BODIES, RETRY_AFTER)]
    chance.shuffle(cells)

    def behave(peer: Peer) -> None:
        while (request := peer.read_request()) is not None:
            fields = json.loads(request.body)
            peer.send(cells[int(fields["agent_announcement"])].answer(fields["callback_number"]))

    async def main() -> None:
        fresh, outcomes = numbers(), []
        async with Server(behave) as server:
            for room in ALL_ROOMS:
                async with client(room, server.url) as tenios:
                    for index, cell in enumerate(cells):
                        number = next(fresh)
                        outcome, error = await place(tenios, number, agent_announcement=str(index))
                        outcomes.append(number)
                        assert outcome is cell.verdict, (cell, outcome)
                        if outcome is AttemptOutcome.REFUSED:
                            assert type(error) is cell.cls, (cell, error)
                            assert error.retry_after == RETRY_AFTER[cell.retry_after], (cell, error.retry_after)
                        tally.trial(outcome)
        assert server.inits == dict.fromkeys(outcomes, 1)  # those that were refused had been read too

    anyio.run(main)


OK, JSON = b"HTTP/1.1 200 OK\r\n", b"Content-Type: application/json\r\n"
ZEROS = gzip.compress(b"\0" * (64 << 20))
LENGTH = OK + JSON + b"Content-Length: 4000000000\r\n\r\n"
CHUNKED = OK + JSON + b"Transfer-Encoding: chunked\r\n\r\n"


def json_of(body: bytes, *headers: str) -> list[bytes]:
    return [reply(200, body, *headers)]


BOMBS: dict[str, Iterable[bytes]] = {
    "a body without end": [LENGTH, *[b" " * 65536] * 200],
    "chunks without end": [CHUNKED, *[b"10000\r\n" + b" " * 65536 + b"\r\n"] * 200],
    "tiny chunks": [CHUNKED, *[b"1\r\n \r\n" * 10000] * 200],
    "a chunk as large as can be said": [CHUNKED, b"FFFFFFFFFFFFFFFF\r\n", *[b" " * 65536] * 200],
    "a chunk extension without end": [CHUNKED, b"1;", *[b"a" * 65536] * 200],
    "until it closes": [OK + JSON + b"\r\n", *[b" " * 65536] * 200],
    "a header without end": [OK + b"X: ", *[b"x" * 65536] * 200],
    "headers without end": [OK, *[b"X: x\r\n" * 10000] * 200],
    "a status line without end": [b"HTTP/1.1 200 ", *[b"x" * 65536] * 200],
    "white space without end": [OK + b"X:", *[b" " * 65536] * 200],
    "100 without end": [b"HTTP/1.1 100 Continue\r\n\r\n" * 2000] * 20,
    "trailers without end": [CHUNKED + b"0\r\n", *[b"X: x\r\n" * 10000] * 200],
    "gzip": [OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(ZEROS), ZEROS],
    "deflate": json_of(zlib.compress(b" " * 50_000_000), "Content-Encoding: deflate"),
    "deep lists": json_of(b"[" * 60_000), "deep objects": json_of(b'{"id":' * 10_000),
    "an id of 5,000 digits": json_of(b'{"id": %b, "status": %b}' % (b"9" * 5000, b"9" * 5000)),
    "an id of 60,000 digits": json_of(b'{"id": %b}' % (b"9" * 60_000)), "1e400": json_of(b'{"id": 1e400, "status": 1e400}'),
    "NaN": json_of(b'{"id": NaN, "status": NaN}'), "Infinity": json_of(b'{"id": -Infinity, "status": Infinity}'),
    "two ids": json_of(b'{"id": 10, "id": 11, "status": "CONNECTED", "status": "DISCONNECTED"}'),
    "an id that is true": json_of(b'{"id": true, "status": true}'), "an object": json_of(b'{"id": {}, "status": {}}'),
    "null": json_of(b'{"id": null, "status": null}'), "a long text": json_of(b'{"id": "%b", "status": "%b"}' % (b"x" * 9000, b"x" * 9000)),
    "a lone surrogate": json_of(b'{"id": "\\ud800", "status": "\\ud800"}'), "NUL": json_of(b'{"id": "\\u0000", "status": "\\u0000"}'),
    "not UTF-8": json_of(b'{"id": "\xff\xfe", "status": "\xc3\x28"}'), "UTF-16": json_of('{"id": 10}'.encode("utf-16")),
    "half a code point": json_of(b'{"id": 10, "x": "\xe2\x82"}'), "many names": json_of(b"{%b}" % b",".join(b'"%d":0' % n for n in range(7000))),
    "two answers": [reply(200, b'{"id": "", "status": ""}') * 2], "two lengths": [OK + b"Content-Length: 2\r\nContent-Length: 10\r\n\r\n{}"],
    "a length below zero": [OK + b"Content-Length: -1\r\n\r\n{}"], "both framings": [OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}"],
    "HTTP/2": [b"\0\0\6\4\0\0\0\0\0\0\3\0\0\0\x64"], "zeros": [b"\0" * 65536] * 200, "a greeting": [b"220 smtp.invalid ESMTP\r\n"],
}  # fmt: skip
GROWTH = 8.0
"""MiB."""


def throwing(pieces: Iterable[bytes]) -> Behaviour:
    def behave(peer: Peer) -> None:
        while peer.read_request() is not None:
            for piece in pieces:
                peer.send(piece)
            peer.finish()

    return behave


@experiment(
    "Size, gzip and JSON bombs, ids of thousands of digits, NaN, names that stand twice, wrong types, invalid UTF-8",
    "an error of the library, and memory grows by less than 8 MiB",
    trials=len(BOMBS) * len(ROOMS) * 2,
    passes=5,
)
def bombs(chance: random.Random, tally: Tally) -> None:
    async def main() -> None:
        fresh = numbers()
        for room, (name, pieces) in itertools.product(ROOMS, chance.sample(list(BOMBS.items()), len(BOMBS))):
            async with Server(throwing(pieces)) as server, client(room, server.url, timeout=20) as tenios:
                before, _ = tracemalloc.get_traced_memory()
                if tally.is_measuring:
                    tracemalloc.reset_peak()
                number = next(fresh)
                outcome, error = await place(tenios, number)
                assert outcome is AttemptOutcome.UNKNOWN, (name, error)
                tally.trial(f"{outcome} and {await poll(tenios, name)}")
                tally.trial()
                if tally.is_measuring:
                    _, peak = tracemalloc.get_traced_memory()
                    tally.measured("memory", (peak - before) / 2**20, "MiB", bound=GROWTH)
            assert server.inits == {number: 1}

    async def poll(tenios: TeniosClient, name: str) -> str:
        try:
            status = await tenios.callback_status(10)
        except TeniosError as error:
            return type(error).__name__
        raise AssertionError(f"{name} was taken for the state {status!r:.100}")  # where a promise is broken

    if tally.is_measuring:
        tracemalloc.start()
    try:
        anyio.run(main)
    finally:
        tracemalloc.stop()
