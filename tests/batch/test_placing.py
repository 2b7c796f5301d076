"""The one place where a row's call is made: nothing leaves that is not written down, and nothing that should not leave."""

import asyncio
import contextlib

import anyio
import pytest

from tenios_async import ApiError, CallbackRequest, TeniosClient
from tenios_async.batch import IllegalMove, RowState, placing
from tenios_async.batch.placing import NotSent, place
from tenios_async.simulator import Fault, Service, SimulatorServer

from .memory import MemoryLedger

pytestmark = pytest.mark.asyncio
REQUEST = CallbackRequest("config", "+49221123456")


class Objection(Exception):
    pass


def objecting(at):
    """Raises when it is called for the n-th time."""
    calls = []

    def check():
        calls.append(None)
        if len(calls) == at:
            raise Objection

    return check


class SlowLedger(MemoryLedger):
    """Writes a change some time after it is asked for; something else happens meanwhile, once."""

    asked, at, happens = 0, 0, None

    async def change_all(self, changes):
        self.asked += 1
        if self.asked == self.at:
            self.happens()
        await anyio.sleep(0.05)
        return await super().change_all(changes)


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def ledger():
    return MemoryLedger([REQUEST], latency=0)


def client(server, **options):
    return TeniosClient("key", base_url=server.base_url, **options)


def state(ledger):
    return ledger.all[0].standing.state


async def test_what_is_objected_to_before_the_intent_is_not_written_down(service, ledger):
    async with SimulatorServer(service) as server, client(server) as tenios:
        with pytest.raises(Objection):
            await place(ledger, tenios, ledger.all[0], check=objecting(1))
    assert (state(ledger), ledger.commits, service.inits.total()) == (RowState.QUEUED, 0, 0)


async def test_what_is_objected_to_after_the_intent_is_taken_back(service, ledger):
    async with SimulatorServer(service) as server, client(server) as tenios:
        with pytest.raises(Objection):
            await place(ledger, tenios, ledger.all[0], check=objecting(2))
    assert (state(ledger), ledger.commits, service.inits.total()) == (RowState.QUEUED, 2, 0)


async def test_it_leaves_when_it_is_ready(service, ledger):
    seen = []

    async def ready():
        seen.append((state(ledger), service.inits.total()))

    async with SimulatorServer(service) as server, client(server) as tenios:
        await place(ledger, tenios, ledger.all[0], ready=ready)
    assert seen == [(RowState.SENDING, 0)]
    assert (state(ledger), service.inits.total()) == (RowState.PLACED, 1)


async def test_what_does_not_become_ready_is_taken_back(service, ledger):
    async def ready():
        raise Objection

    async with SimulatorServer(service) as server, client(server) as tenios:
        with pytest.raises(Objection):
            await place(ledger, tenios, ledger.all[0], ready=ready)
    assert (state(ledger), service.inits.total()) == (RowState.QUEUED, 0)


async def test_a_row_of_somebody_else_is_left_alone(service, ledger):
    async with SimulatorServer(service) as server, client(server) as tenios:
        row = ledger.all[0]
        await place(ledger, tenios, row)
        commits = ledger.commits
        with pytest.raises(IllegalMove):
            await place(ledger, tenios, row)
    assert ledger.commits == commits + 1
    assert (state(ledger), service.inits.total()) == (RowState.PLACED, 1)


@pytest.mark.parametrize(("seconds", "inits"), [(10.0, 1), (10.1, 0)])
async def test_it_leaves_within_ten_seconds_of_its_intent(service, ledger, monkeypatch, seconds, inits):
    clock = iter([0.0, seconds])
    monkeypatch.setattr(placing, "awake", lambda: next(clock))
    async with SimulatorServer(service) as server, client(server) as tenios:
        with contextlib.nullcontext() if inits else pytest.raises(NotSent, match="suspended"):
            await place(ledger, tenios, ledger.all[0])
    assert state(ledger) is (RowState.PLACED if inits else RowState.QUEUED)
    assert service.inits.total() == inits


@pytest.mark.parametrize(("asked", "end"), [(1, RowState.QUEUED), (2, RowState.PLACED)])
async def test_cancelled_while_it_is_written_down(service, asked, end):
    """The intent, which is then taken back; or the end."""
    ledger = SlowLedger([REQUEST], latency=0)
    async with SimulatorServer(service) as server, client(server) as tenios:
        with anyio.CancelScope() as scope:
            ledger.at, ledger.happens = asked, scope.cancel
            await place(ledger, tenios, ledger.all[0])
    assert (state(ledger), ledger.commits, service.inits.total()) == (end, 2, asked - 1)


async def test_why_it_is_in_doubt_is_written_down(service, ledger):
    service.fail_init(Fault.lost())
    async with SimulatorServer(service) as server, client(server) as tenios:
        standing = await place(ledger, tenios, ledger.all[0])
    assert (standing.state, standing.reason) == (RowState.UNKNOWN, ledger.all[0].standing.reason)
    assert "connection" in standing.reason


async def test_a_call_that_is_given_up_is_in_doubt(service, ledger):
    service.fail_init(Fault.stalled())
    async with SimulatorServer(service) as server, client(server, cancel_grace=0) as tenios:
        placing_it = asyncio.ensure_future(place(ledger, tenios, ledger.all[0]))
        while not service.inits.total():  # noqa: ASYNC110  # nobody says when
            await asyncio.sleep(0)
        placing_it.cancel()
        with pytest.raises(asyncio.CancelledError):
            await placing_it
    standing = ledger.all[0].standing
    assert (standing.state, standing.reason) == (RowState.UNKNOWN, "it was given up before the answer came")


@pytest.mark.parametrize(
    ("fault", "keeps", "reason"),
    [
        (Fault.refused("BAD_NUMBER"), True, "BAD_NUMBER"),
        (Fault.refused("BAD_NUMBER"), False, None),
        (Fault.refused("BAD_CREDENTIALS", 401), True, None),
        (Fault.refused("NO_PERMISSION", 403), True, None),
        (Fault.busy(), True, None),
    ],
    ids=["its own", "asked to come out", "the key's", "the permission's", "the pace's"],
)
async def test_a_refusal_ends_a_row_where_it_is_about_that_call(service, ledger, fault, keeps, reason):
    service.fail_init(fault)
    options = {} if keeps else {"keep_refusals": False}
    async with SimulatorServer(service) as server, client(server) as tenios:
        with contextlib.nullcontext() if reason else pytest.raises(ApiError):
            await place(ledger, tenios, ledger.all[0], **options)
    standing = ledger.all[0].standing
    assert (standing.state, standing.reason) == (RowState.REFUSED if reason else RowState.QUEUED, reason)
