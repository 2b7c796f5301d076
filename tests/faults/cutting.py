"""A connection that ends, by FIN or by RST, at every byte of the request and of its answer.

Between client and server stands a proxy that passes on what it is told, cuts the first connection there, and lets later
ones live: whoever takes a request for not sent that was, rings twice. Over TLS the bytes are those of the records.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import itertools
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from tenios_async import AttemptOutcome

from ..sockets.certificates import certificates
from ..sockets.misbehaving import Server, over_tls
from .experiment import Tally, experiment
from .rooms import ALL_ROOMS, answered, assert_honest, client, numbers, place

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from ..sockets.misbehaving import Peer

LANES = 16
"""Trials at once: those that are proven not to have been sent wait before they try again."""
HANDSHAKE_OFFSETS = 60
"""Of the bytes of a TLS handshake, so many are drawn for each pass, room and ending."""
TLS_HEADER = 5
HELLO_TO_FINISHED = 3
"""Records of a client before its request: ClientHello, ChangeCipherSpec, Finished (RFC 8446 D.4)."""


class Way(enum.Enum):
    REQUEST = "request"
    ANSWER = "answer"


class Ending(enum.Enum):
    FIN = "FIN"
    RST = "RST"


@dataclass(frozen=True)
class Cut:
    """After so many bytes of that record; without TLS all is one record."""

    way: Way
    record: int
    offset: int
    ending: Ending


class Meter:
    """Counts what goes one way, by records, and says where the cut is.

    Attributes:
        records: bytes of each so far.
    """

    def __init__(self, cut: Cut | None, *, is_tls: bool) -> None:
        self.records = [0]
        self._cut = cut
        self._is_tls = is_tls
        self._header = b""

    @property
    def is_over(self) -> bool:
        cut = self._cut
        return cut is not None and (len(self.records) - 1, self.records[-1]) == (cut.record, cut.offset)

    def take(self, data: bytes) -> int:
        """How many of these bytes may pass."""
        passed = 0
        while passed < len(data) and not self.is_over:
            step = min(len(data) - passed, self._left())
            if self._is_tls and len(self._header) < TLS_HEADER:
                self._header += data[passed : passed + step]
            self.records[-1] += step
            passed += step
            if self._is_tls and len(self._header) == TLS_HEADER and self.records[-1] == self._whole():
                self.records.append(0)
                self._header = b""
        return passed

    def _whole(self) -> int:
        return TLS_HEADER + int.from_bytes(self._header[3:5])

    def _left(self) -> int:
        """Bytes of this record that may pass before something changes."""
        there = self.records[-1]
        ends = [1 << 40]
        if self._is_tls:
            ends.append(self._whole() if len(self._header) == TLS_HEADER else TLS_HEADER)
        if self._cut is not None and self._cut.record == len(self.records) - 1 and self._cut.offset > there:
            ends.append(self._cut.offset)
        return min(ends) - there


class Proxy:
    """Passes on to an address, and cuts the next connection where `cut` says."""

    def __init__(self, upstream: tuple[str, int], *, is_tls: bool) -> None:
        self.cut: Cut | None = None
        self.connections = 0
        self.meters: dict[Way, Meter] = {}
        self._upstream = upstream
        self._is_tls = is_tls
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._is_tls else 'http'}://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.gather(*self._tasks)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        cut, self.cut = self.cut, None
        up_reader, up_writer = await asyncio.open_connection(*self._upstream)
        self.meters = {
            way: Meter(cut if cut is not None and cut.way is way else None, is_tls=self._is_tls) for way in Way
        }
        over = asyncio.Event()
        passing = [
            asyncio.ensure_future(self._pass(reader, up_writer, self.meters[Way.REQUEST], over)),
            asyncio.ensure_future(self._pass(up_reader, writer, self.meters[Way.ANSWER], over)),
        ]
        waiting = asyncio.ensure_future(over.wait())
        await asyncio.wait([*passing, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if over.is_set() and cut is not None and cut.ending is Ending.RST:
            for end in (writer, up_writer):
                with contextlib.suppress(OSError):  # where it has gone by itself
                    gone = end.get_extra_info("socket")
                    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.transport.abort()
        elif over.is_set():
            for end in (writer, up_writer):
                with contextlib.suppress(OSError):
                    end.write_eof()
        await asyncio.gather(*passing)
        for end in (writer, up_writer):
            end.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, meter: Meter, over: asyncio.Event
    ) -> None:
        """Until the sender ends it; what comes after the cut is thrown away."""
        while True:
            if meter.is_over:
                over.set()
            data = b""
            with contextlib.suppress(ConnectionError):
                data = await reader.read(65536)
            with contextlib.suppress(OSError):
                if data and not over.is_set():
                    writer.write(data[: meter.take(data)])
                elif not data:
                    writer.write_eof()
            if not data:
                return


def answering(peer: Peer) -> None:
    """Places each call."""
    while (request := peer.read_request()) is not None:
        peer.send(answered(request))


async def shape(proxy: Proxy, room: str, number: str) -> dict[Way, list[int]]:
    """The records of one whole exchange, each way."""
    async with client(room, proxy.url, certificates().trusting) as tenios:
        assert (await place(tenios, number))[0] is AttemptOutcome.PLACED
        return {way: [size for size in meter.records if size] for way, meter in proxy.meters.items()}


def firsts(records: dict[Way, list[int]], *, is_tls: bool) -> dict[Way, int]:
    """Of which record on it is the request and the answer; those before are of the handshake."""
    if not is_tls:
        return dict.fromkeys(Way, 0)
    return {Way.REQUEST: HELLO_TO_FINISHED, Way.ANSWER: len(records[Way.ANSWER]) - 1}


def offsets(records: dict[Way, list[int]], chance: random.Random, *, is_tls: bool) -> Iterator[tuple[Way, int, int]]:
    """Every byte of request and answer, and some of the handshake."""
    for way, first in firsts(records, is_tls=is_tls).items():
        handshake = [(way, i, at) for i, size in enumerate(records[way][:first]) for at in range(size)]
        yield from chance.sample(handshake, min(HANDSHAKE_OFFSETS, len(handshake)))
        for index, size in enumerate(records[way][first:], first):
            yield from ((way, index, at) for at in range(size))


async def cut_everywhere(chance: random.Random, tally: Tally, *, is_tls: bool) -> None:
    certificate, fresh = certificates(), numbers()
    behave = over_tls(certificate.good, answering) if is_tls else answering
    outcomes: dict[str, AttemptOutcome] = {}
    async with Server(behave) as server:
        for room in ALL_ROOMS:

            async def measure(room: str = room) -> dict[Way, list[int]]:
                async with Proxy(server.address, is_tls=is_tls) as proxy:
                    number = next(fresh)
                    outcomes[number] = AttemptOutcome.PLACED
                    return await shape(proxy, room, number)

            records = await measure()
            places = list(itertools.product(offsets(records, chance, is_tls=is_tls), Ending))
            chance.shuffle(places)

            async def lane(room: str = room, places=places) -> None:
                async with Proxy(server.address, is_tls=is_tls) as proxy:
                    while places:
                        (way, record, offset), ending = places.pop()
                        proxy.cut, number, before = Cut(way, record, offset, ending), next(fresh), proxy.connections
                        async with client(room, proxy.url, certificate.trusting) as tenios:
                            outcomes[number], _ = await place(tenios, number)
                        assert proxy.cut is None, "never cut"
                        if outcomes[number] is AttemptOutcome.UNKNOWN:
                            assert proxy.connections == before + 1, "sent, and tried again"
                        tally.trial(outcomes[number])

            await asyncio.gather(*(lane() for _ in range(LANES)))
            last = await measure()
            for way, first in firsts(records, is_tls=is_tls).items():
                assert last[way][first:] == records[way][first:], "longer than where it was cut"
    assert_honest(outcomes, server.inits)


@experiment(
    "FIN and RST at every byte of request and answer, each way, in plain HTTP; all rooms",
    "a call that arrived is PLACED or UNKNOWN; none arrives twice",
    trials=None,
    passes=20,
)
def cut_plain(chance: random.Random, tally: Tally) -> None:
    asyncio.run(cut_everywhere(chance, tally, is_tls=False))


@experiment(
    "FIN and RST at every byte of request and answer over TLS, and at bytes of the handshake that are drawn; all rooms",
    "a call that arrived is PLACED or UNKNOWN; none arrives twice",
    trials=None,
    passes=20,
)
def cut_tls(chance: random.Random, tally: Tally) -> None:
    asyncio.run(cut_everywhere(chance, tally, is_tls=True))
