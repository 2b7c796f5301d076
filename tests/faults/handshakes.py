"""TLS that must not come about: the key is meant for nobody there."""

from __future__ import annotations

import functools
import itertools
import ssl
from typing import TYPE_CHECKING

import anyio

from tenios_async import AttemptOutcome, ConnectionFailed

from ..sockets.certificates import certificates
from ..sockets.misbehaving import Server, after, close, finish, reset
from .cancelling import own_client
from .experiment import Tally, experiment
from .rooms import KEY, ROOMS, numbers, place

if TYPE_CHECKING:
    import random

    from ..sockets.misbehaving import Behaviour, Peer

BAD = ("self_signed", "untrusted", "other_host", "expired", "old_protocol")
CUT = (finish, close, reset)
HELLO = 200
"""Bytes: fewer than any client's first words have."""
SOON = 0.3
"""Seconds: a second try to connect comes after 0.375 at the earliest."""


def shaking(context: ssl.SSLContext) -> Behaviour:
    """Shakes hands for as long as both go along. Every byte on the wire counts as received, and so does what it says."""

    def behave(peer: Peer) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        seen = 0
        while peer.read_some():
            incoming.write(bytes(peer.received[seen:]))
            seen = len(peer.received)
            try:
                tls.do_handshake()
                peer.received += tls.read(65536)  # where a promise is broken
            except ssl.SSLWantReadError:
                peer.send(outgoing.read())
                continue
            except ssl.SSLError:  # one of them has said no
                peer.send(outgoing.read())
            peer.finish()
            return

    return behave


@experiment(
    "TLS: self-signed, of another authority, wrong host, expired, TLS 1.1, closed in the handshake; both rooms, asyncio and trio",
    "nothing is sent, the error says so, and the key is never on the wire",
    trials=(len(BAD) + len(CUT)) * len(ROOMS) * 2,
    passes=50,
)
def tls(chance: random.Random, tally: Tally) -> None:
    fresh = numbers()

    async def trial(room: str, behave: Behaviour, *, is_cut: bool) -> None:
        number = next(fresh)
        async with Server(behave, scheme="https") as server:
            async with own_client(room, server.url, {}) as tenios:
                outcome, error = await place(tenios, number, timeout=SOON if is_cut else 30)
        assert outcome is AttemptOutcome.NOT_SENT
        assert type(error) is ConnectionFailed
        assert "nothing was sent" in str(error)
        assert not server.inits
        for secret in (KEY, number, number[1:]):
            assert secret.encode() not in server.received
            assert secret not in str(error)
        if not is_cut:
            assert len(server.peers) == 1, "a certificate does not get better"
        tally.trial(outcome)

    for backend, room in itertools.product(("asyncio", "trio"), ROOMS):
        for name in BAD:
            behave = shaking(getattr(certificates(), name))
            anyio.run(functools.partial(trial, room, behave, is_cut=False), backend=backend)
        for ending in CUT:
            behave = after(chance.randrange(HELLO), ending)
            anyio.run(functools.partial(trial, room, behave, is_cut=True), backend=backend)
