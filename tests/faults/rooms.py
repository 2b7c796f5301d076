"""A client in each room, a server whose ids say whose they are, and numbers that are one's own."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import httpx

from tenios_async import AttemptOutcome, CallbackAttempt, TeniosClient, TeniosError

from ..sockets.certificates import certificates
from ..sockets.misbehaving import CONNECTED, Request, reply

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterator

KEY = "CANARY-KEY-0123456789"
CONFIG = "config-id"
ROOMS = ("pool", "httpx")
"""The pool, and a caller's httpx client."""
ALL_ROOMS = (*ROOMS, "own httpx")
"""And httpx clients of the library's own, which it has where the pool does not reach."""


def numbers() -> Iterator[str]:
    """Canaries too: no two alike, and no text of the library may show one."""
    return map("+49157999{:05}".format, range(100_000))


def own_id(number: str) -> int:
    """The id that a server gives to the call of a number; all are of one width, so that all answers have one length."""
    return 100_000 + int(number[-5:])


def answered(request: Request) -> bytes:
    """To an init the id that belongs to its number; else a state."""
    number = json.loads(request.body).get("callback_number")
    return CONNECTED if number is None else reply(200, b'{"id": %d}' % own_id(number))


@contextlib.asynccontextmanager
async def client(
    room: str,
    url: str,
    context: ssl.SSLContext | None = None,
    *,
    max_connections: int = 100,
    keeps_alive: bool = False,
    **options,
) -> AsyncIterator[TeniosClient]:
    """Without a connection from before. Whether a caller's client keeps some is the caller's to say."""
    context = context or certificates().trusting
    if room != "httpx":
        tenios = TeniosClient(KEY, base_url=url, ssl_context=context, max_connections=max_connections, **options)
        if room == "own httpx":
            tenios._rooms._why_httpx, tenios._rooms._is_settled = "the experiment is about it", True
        async with tenios:
            assert tenios.transport == room.removeprefix("own ")
            yield tenios
        return
    limits = httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections * keeps_alive)
    async with httpx.AsyncClient(verify=context, trust_env=False, limits=limits) as http:
        async with TeniosClient(KEY, base_url=url, http_client=http, **options) as tenios:
            yield tenios


async def place(tenios: TeniosClient, number: str, **options) -> tuple[AttemptOutcome, TeniosError | None]:
    """What became of one call; its id is that of its own number, and of no other."""
    attempt, error = CallbackAttempt(), None
    try:
        callback = await tenios.init_callback(CONFIG, number, attempt=attempt, **options)
    except TeniosError as raised:
        error = raised
    else:
        assert callback.key == str(own_id(number)), "the answer to another request"
    assert attempt.outcome not in (None, AttemptOutcome.IN_FLIGHT)
    assert (attempt.outcome is AttemptOutcome.UNKNOWN) == (error is not None and error.may_have_dialled)
    return attempt.outcome, error


def assert_honest(outcomes: dict[str, AttemptOutcome], inits: dict[str, int]) -> None:
    """Against what the server counted: nobody is rung twice, and who may have been rung is not said to be safe."""
    for number, outcome in outcomes.items():
        received = inits.get(number, 0)
        assert received <= 1, f"rung {received} times"
        if received:
            assert outcome in (AttemptOutcome.PLACED, AttemptOutcome.UNKNOWN), f"rung, and said to be {outcome}"
        if outcome is AttemptOutcome.PLACED:
            assert received == 1, "said to be placed, and nobody was rung"
    assert set(inits) <= set(outcomes)
