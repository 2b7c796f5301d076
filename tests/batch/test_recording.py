"""What is seen of calls on its way into the ledger: written down first, in order, and told to the hook then."""

import asyncio
from datetime import UTC, datetime

import pytest

from tenios_async import (
    Callback,
    CallbackRequest,
    CallbackStatus,
    ClientMisuse,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    Transition,
    WatchInterrupted,
    WatchTimeout,
)
from tenios_async.batch import LedgerFailed, LedgerRefused, RowState, Standing, recording
from tenios_async.batch.recording import Recorder, raise_what_matters, why_lost
from tenios_async.batch.standing import intend, place

from .memory import MemoryLedger

pytestmark = pytest.mark.asyncio
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
CALLING, ENDED = CallbackStatus.CALLING_A, CallbackStatus.DISCONNECTED


class Told:
    """A ledger of calls that are placed, who writes down what is seen of them, and what was told when."""

    def __init__(self, calls=1):
        self.ledger = MemoryLedger([CallbackRequest("config", f"+4922112345{n}") for n in range(calls)], latency=0)
        self.told, self.is_told = [], asyncio.Event()
        self.recorder = Recorder(self.ledger, self.hook, ended=lambda row_id: self.told.append(("ended", row_id)))

    def hook(self, row, transition):
        is_written = self.ledger.all[row.id - 1] == row
        self.told.append((row.id, str(transition.status), is_written))
        self.is_told.set()

    async def placed(self):
        for row in self.ledger.all:
            callback = Callback(row.id + 9, "config", 0, NOW)
            await self.ledger.change_all([(row.id, intend("a", NOW)), (row.id, place("a", callback))])
        self.ledger.commits = 0
        return list(self.ledger.all)


def transition(row, status, polls=1):
    return Transition(row.callback, status, None, (), NOW, None, 0.0, polls, False)


async def test_what_was_seen_is_written_down_in_one_piece_and_told_then():
    told = Told(2)
    first, second = await told.placed()
    told.recorder.saw(first, transition(first, CALLING))
    told.recorder.saw(second, transition(second, ENDED))
    assert told.told == []
    await told.recorder.write()
    assert told.told == [(1, "CALLING_A", True), ("ended", 2), (2, "DISCONNECTED", True)]
    assert told.ledger.commits == 1
    await told.recorder.write()
    assert (told.ledger.commits, len(told.told)) == (1, 3)


async def test_nobody_is_told_of_what_was_not_written_down(caplog):
    """Somebody else has moved the row; nor of a call that is lost, of which nothing was seen."""
    told = Told(3)
    moved, lost, seen = await told.placed()
    told.ledger.all[0] = moved.at(intend("b", NOW)(Standing()))
    told.recorder.saw(moved, transition(moved, CALLING))
    told.recorder.lost(lost, "nobody knows it")
    told.recorder.saw(seen, transition(seen, ENDED))
    await told.recorder.write()
    assert told.told == [("ended", 1), ("ended", 2), ("ended", 3), (3, "DISCONNECTED", True)]
    assert not caplog.records
    assert told.ledger.all[0].standing.attempt == "b"
    assert (told.ledger.all[1].standing.state, told.ledger.all[1].standing.reason) == (
        RowState.FINISHED,
        "nobody knows it",
    )


async def test_who_has_no_hook_has_it_written_down_all_the_same(caplog):
    told = Told()
    (row,) = await told.placed()
    recorder = Recorder(told.ledger, None)
    recorder.saw(row, transition(row, ENDED))
    await recorder.write()
    assert told.ledger.all[0].standing.status is ENDED
    assert not caplog.records


async def test_it_writes_until_nothing_more_will_be_seen():
    told = Told(2)
    first, second = await told.placed()
    running = asyncio.ensure_future(told.recorder.run())
    for row in (first, second):
        told.recorder.saw(row, transition(row, ENDED))
        await asyncio.wait_for(told.is_told.wait(), 10)
        told.is_told.clear()
    told.recorder.end()
    await asyncio.wait_for(running, 10)
    assert told.ledger.commits == 2


async def test_what_is_seen_at_the_end_is_written_down_too():
    told = Told()
    (row,) = await told.placed()
    told.recorder.saw(row, transition(row, ENDED))
    told.recorder.end()
    await asyncio.wait_for(told.recorder.run(), 10)
    assert told.told == [("ended", 1), (1, "DISCONNECTED", True)]


async def test_who_sees_more_than_may_wait_to_be_written_waits(monkeypatch):
    monkeypatch.setattr(recording, "UNWRITTEN", 2)
    told = Told(2)
    rows = await told.placed()
    told.recorder.saw(rows[0], transition(rows[0], ENDED))
    await asyncio.wait_for(told.recorder.catch_up(), 10)
    told.recorder.saw(rows[1], transition(rows[1], ENDED))
    waiting = asyncio.ensure_future(told.recorder.catch_up())
    await asyncio.sleep(0)
    assert not waiting.done()
    running = asyncio.ensure_future(told.recorder.run())
    await asyncio.wait_for(waiting, 10)
    assert told.ledger.commits == 1
    running.cancel()


CALLBACK = Callback(10, "config", 0, NOW)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (WatchTimeout("up", callback=CALLBACK), "not followed to its end: its time was up"),
        (WatchTimeout("up", callback=CALLBACK, cause=ConnectionFailed("away")), "not followed to its end: away"),
        (WatchInterrupted("", callback=CALLBACK, cause=NotFound(404)), f"not followed to its end: {NotFound(404)}"),
        (WatchInterrupted("", callback=CALLBACK, cause=InvalidRequest(400)), f"not followed to its end: {InvalidRequest(400)}"),
        (WatchInterrupted("", callback=CALLBACK, cause=ConnectionFailed("away")), None),
        (WatchInterrupted("", callback=CALLBACK), None),
    ],
)  # fmt: skip
async def test_why_a_call_cannot_be_followed_to_its_end_by_anybody(error, why):
    assert why_lost(error) == why


async def test_of_many_failures_of_the_ledger_one_comes_out_with_every_call_that_is_not_written_down():
    first, second, third = await Told(3).placed()
    inner = ExceptionGroup("", [LedgerFailed("full", second, third), LookupError()])
    group = ExceptionGroup("", [ConnectionFailed("away"), LedgerFailed("the disk is full", first), inner])
    with pytest.raises(LedgerFailed, match="the disk is full") as caught:
        raise_what_matters(group)
    assert caught.value.rows == (first, second, third)
    assert caught.value.__suppress_context__


async def test_of_many_errors_of_the_client_the_first_comes_out_with_its_cause():
    error = ConnectionFailed("away")
    error.__cause__ = ClientMisuse("closed")
    with pytest.raises(ConnectionFailed) as caught:
        raise_what_matters(BaseExceptionGroup("", [BaseExceptionGroup("", [error]), ClientMisuse("closed")]))
    assert caught.value is error
    assert str(caught.value.__cause__) == "closed"
    raise_what_matters(ExceptionGroup("", [LookupError(), error]))  # what is not ours is not hidden
    with pytest.raises(LedgerRefused, match="another timeline"):
        raise_what_matters(ExceptionGroup("", [LedgerRefused("another timeline"), error]))
