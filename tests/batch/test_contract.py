"""What a ledger promises, whatever it is written on: the same tests over SQLite and PostgreSQL."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tenios_async import (
    Callback,
    CallbackOutcomeUnknown,
    CallbackRequest,
    CallbackStatus,
    ConnectionFailed,
    TeniosClient,
)
from tenios_async.batch import (
    IllegalMove,
    Ledger,
    LedgerFailed,
    LedgerRefused,
    NewRow,
    RowState,
    SQLiteLedger,
    Standing,
)
from tenios_async.batch.access import Access
from tenios_async.batch.ledger_file import LedgerFile
from tenios_async.batch.placing import place as place_row
from tenios_async.batch.postgres import PostgresLedger
from tenios_async.batch.postgres_session import PostgresSession
from tenios_async.batch.postgres_url import PostgresURL
from tenios_async.batch.row import Resolution
from tenios_async.batch.standing import (
    called,
    crash,
    doubt,
    exclude,
    intend,
    lose,
    not_called,
    place,
    refuse,
    see,
    withdraw,
)
from tenios_async.simulator import Fault, Manner, Service, SimulatorServer

from .memory import MemoryLedger

pytestmark = pytest.mark.asyncio
NOW = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)
REQUEST = CallbackRequest("config", "+49221123456", 30, "Gr\xfc\xdfe \U0001f4de", "5")
OTHER = CallbackRequest("config", "+49221999999")


class SQLite:
    def __init__(self, path):
        self.path = path

    def create(self):
        SQLiteLedger.create(self.path)

    def open(self):
        return SQLiteLedger(self.path)

    def read(self):
        return LedgerFile.read(self.path)


class Postgres:
    def __init__(self, url):
        self.url = PostgresURL.parse(url)

    def create(self):
        PostgresLedger.create(self.url)

    def open(self):
        return PostgresLedger(self.url, patience=5)

    def read(self):
        return PostgresSession.read(self.url)


@pytest.fixture(params=["sqlite", "postgres"])
def where(request, tmp_path):
    """A ledger that is made."""
    if request.param == "sqlite":
        made = SQLite(tmp_path / "calls.db")
    else:
        made = Postgres(request.getfixturevalue("postgres_url"))
    made.create()
    return made


async def test_it_is_made_once(where):
    with pytest.raises(LedgerRefused, match="exists"):
        where.create()


async def test_a_row_comes_back_as_it_was(where):
    async with where.open() as ledger:
        new = NewRow("key", REQUEST, 7, {"name": "M\xfcller", "tags": [1, None]})
        row = await ledger.put(new)
        assert (row.key, row.request, row.line, row.extra, row.standing) == ("key", REQUEST, 7, new.extra, Standing())
        assert await ledger.put(NewRow("key", OTHER)) == row
        assert await ledger.by_key("key") == row
        assert await ledger.by_key("nobody") is None
    async with where.open() as ledger:
        assert await ledger.by_key("key") == row
    with where.read() as looking:
        assert list(looking.rows()) == [row]
        assert looking.extras() == ["name", "tags"]


async def test_who_prints_a_row_prints_no_key_no_number_and_no_further_column(where):
    new = NewRow("CANARY-1", REQUEST, 7, {"name": "CANARY-2"})
    async with where.open() as ledger:
        shown = repr((new, await ledger.put(new)))
    for secret in ("CANARY", REQUEST.callback_number[1:]):
        assert secret not in shown


@pytest.mark.parametrize("callback_id", [10, "10", 10**40, "a-b"])
async def test_an_id_comes_back_as_it_was(where, callback_id):
    callback = Callback(callback_id, "config", 30, NOW)
    async with where.open() as ledger:
        row = await ledger.put(NewRow("key", REQUEST))
        await ledger.change(row.id, intend("a", NOW))
        await ledger.change(row.id, place("a", callback))
        assert (await ledger.by_key("key")).callback == callback
        assert [found.callback for found in await ledger.followed()] == [callback]


LIVES = {
    "talked": [
        intend("a", NOW), place("a", Callback(1, "config", 30, NOW)), see("a", CallbackStatus.CONNECTED, NOW, 3),
        see("a", CallbackStatus("NEW_STATE"), NOW, 4), see("a", CallbackStatus.DISCONNECTED, NOW + timedelta(seconds=9), 5),
    ],
    "lost in the middle of a talk": [
        intend("a", NOW), place("a", Callback(1, "config", 30, NOW)), see("a", CallbackStatus.CONNECTED, NOW, 3),
        lose("a", "gone", NOW),
    ],
    "refused": [intend("a", NOW), refuse("a", "NO", NOW)],
    "left out": [exclude("opted out", NOW)],
    "given back, and lost": [intend("a", NOW), withdraw("a"), intend("b", NOW), doubt("b", "no answer")],
    "a late answer": [intend("a", NOW), crash(), place("a", Callback("x", "config", 30, NOW)), lose("a", "gone", NOW)],
    "a late refusal": [intend("a", NOW), crash(), refuse("a", "NO", NOW)],
    "settled by a person": [intend("a", NOW), crash(), called("me", NOW, None)],
    "called again, and a stray": [
        intend("a", NOW), crash(), not_called("me", NOW + timedelta(minutes=1)), place("a", Callback(5, "config", 30, NOW)),
    ],
    "a stray that was followed to its end": [
        intend("a", NOW), crash(), not_called("me", NOW + timedelta(minutes=1)), place("a", Callback(5, "config", 30, NOW)),
        called("me", NOW, Callback(5, "config", 30, NOW)), see(None, CallbackStatus.DISCONNECTED, NOW, 1),
    ],
}  # fmt: skip


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "in one piece"])
@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES)
async def test_every_life_is_written_down(where, life, together):
    expected, standing = [], Standing()
    for move in life:
        standing = move(standing)
        expected.append(standing)
    async with where.open() as ledger:
        row = await ledger.put(NewRow("key", REQUEST))
        if together:
            assert await ledger.change_all([(row.id, move) for move in life]) == expected
        else:
            assert [await ledger.change(row.id, move) for move in life] == expected
        assert (await ledger.by_key("key")).standing == expected[-1]
        tally = await ledger.tally()
        assert tally == {(standing.state, standing.status): 1}
        assert await ledger.counts() == dict.fromkeys(RowState, 0) | {standing.state: 1}
    with where.read() as looking:
        seen = list(looking.query("SELECT status FROM transitions ORDER BY at, status"))
        statuses = [step.status for step in expected if step.status is not None]
    assert {status for (status,) in seen} == set(statuses)
    assert len(seen) == len(set(statuses))


async def test_a_move_that_changes_nothing_hides_none_that_follows(where):
    async with where.open() as ledger:
        row = await ledger.put(NewRow("key", REQUEST))
        intended, placed = (row.id, intend("a", NOW)), (row.id, place("a", Callback(10, "config", 30, NOW)))
        await ledger.change_all([intended, placed])
        await ledger.change_all([placed, (row.id, see("a", CallbackStatus.CONNECTED, NOW, 1))])
        assert (await ledger.by_key("key")).standing.status is CallbackStatus.CONNECTED


async def test_what_was_seen_of_a_call_is_told_with_when_and_after_what_for_how_long(where):
    later = NOW + timedelta(seconds=9)
    life = [
        intend("a", NOW),
        place("a", Callback(1, "config", 30, NOW)),
        see("a", CallbackStatus.CALLING_A, NOW, 1),
        see("a", CallbackStatus.CALLING_A, later, 2),
        see("a", CallbackStatus.CONNECTED, later, 3),
    ]
    async with where.open() as ledger:
        row = await ledger.put(NewRow("key", REQUEST))
        await ledger.change_all([(row.id, move) for move in life])
    with where.read() as looking:
        told = list(looking.query("SELECT call, status, at, previous, lasted FROM transitions ORDER BY at"))
    assert told == [
        (row.id, "CALLING_A", NOW.timestamp(), None, None),
        (row.id, "CONNECTED", later.timestamp(), "CALLING_A", 9),
    ]


async def test_a_change_that_is_not_open_changes_nothing_and_stops_no_other(where):
    async with where.open() as ledger:
        rows = [await ledger.put(NewRow(f"key {number}", REQUEST)) for number in range(3)]
        await ledger.change(rows[1].id, intend("another", NOW))
        results = await ledger.change_all([(row.id, intend("a", NOW)) for row in rows])
        assert [isinstance(result, IllegalMove) for result in results] == [False, True, False]
        assert (await ledger.by_key("key 1")).standing.attempt == "another"
        with pytest.raises(IllegalMove):
            await ledger.change(rows[1].id, see("a", CallbackStatus.CONNECTED, NOW, 1))
        assert (await ledger.counts())[RowState.SENDING] == 3


async def test_queued_by_number(where):
    async with where.open() as ledger:
        rows = [await ledger.put(NewRow(f"key {number}", REQUEST)) for number in range(5)]
        await ledger.change(rows[1].id, intend("a", NOW))
        assert await ledger.queued(2) == [rows[0], rows[2]]
        assert await ledger.queued(9, rows[2].id) == rows[3:]
    with where.read() as looking:
        assert looking.queued(1) == rows[:1]
        assert looking.last() == rows[-1].id


async def test_rows_are_read_by_their_states(where):
    async with where.open() as ledger:
        rows = [await ledger.put(NewRow(f"key {number}", REQUEST)) for number in range(3)]
        await ledger.change_all([(rows[1].id, intend("a", NOW)), (rows[2].id, exclude("opted out", NOW))])
    with where.read() as looking:
        assert [row.key for row in looking.rows()] == ["key 0", "key 1", "key 2"]
        assert [row.key for row in looking.rows(RowState.QUEUED, RowState.REFUSED)] == ["key 0", "key 2"]
        assert list(looking.rows(RowState.PLACED)) == []
        counts = {RowState.QUEUED: 1, RowState.SENDING: 1, RowState.REFUSED: 1}
        assert looking.counts() == dict.fromkeys(RowState, 0) | counts


async def test_what_is_read_within_a_snapshot_is_as_of_one_moment(where):
    async with where.open() as ledger:
        with where.read() as looking:
            with looking.snapshot():
                assert looking.last() == 0
                row = await ledger.put(NewRow("key", REQUEST))
                assert looking.last() == 0
            assert looking.last() == row.id


async def test_of_a_number_its_whole_part_is_asked_for(where):
    with where.read() as looking:
        assert list(looking.query(f"SELECT {looking.whole('? / 10.0')}", (57,))) == [(5,)]


async def test_of_rows_with_one_key_the_first_is_written(where):
    with where.read() as looking:
        with looking.transaction():
            written = looking.put_all([NewRow("a", REQUEST, 1), NewRow("b", REQUEST, 2), NewRow("a", REQUEST, 3)])
            assert written == [True, True, False]
            assert looking.put_all([NewRow("b", REQUEST, 4)]) == [False]
        assert [row.line for row in looking.rows()] == [1, 2]


async def test_a_fact_is_changed_and_the_others_stay(where):
    with where.read() as looking:
        kept = dict(looking.facts)
        for value in (1, [2]):
            with looking.transaction():
                looking.put_facts({"a": value})
            assert looking.facts == {**kept, "a": value}
    with where.read() as looking:
        assert looking.facts == {**kept, "a": [2]}


async def test_of_many_who_intend_one_does(where):
    async with where.open() as ledger:
        row = await ledger.put(NewRow("key", REQUEST))
        tries = [ledger.change(row.id, intend(f"attempt {number}", NOW)) for number in range(50)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        (standing,) = [result for result in results if isinstance(result, Standing)]
        assert standing.attempt == "attempt 0"
        assert [type(result) for result in results].count(IllegalMove) == 49
        assert (await ledger.by_key("key")).standing == standing


async def test_what_is_asked_for_at_once_is_done_in_that_order(where):
    async with where.open() as ledger:
        row = await ledger.put(NewRow("key", REQUEST))
        states = [
            standing.state
            for standing in await asyncio.gather(*(ledger.change(row.id, move) for move in LIVES["talked"]))
        ]
        assert states == [RowState.SENDING, *[RowState.PLACED] * 3, RowState.FINISHED]


async def test_a_change_whose_waiter_is_cancelled_comes_before_what_follows(where):
    async with where.open() as ledger:
        row = await ledger.put(NewRow("key", REQUEST))
        waiter = asyncio.ensure_future(ledger.change(row.id, intend("a", NOW)))
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert (await ledger.by_key("key")).standing.attempt == "a"
        with pytest.raises(IllegalMove):
            await ledger.change(row.id, intend("b", NOW))


async def test_one_that_is_not_opened_yet_says_so_and_may_be_closed(where):
    ledger = where.open()
    await ledger.aclose()
    with pytest.raises(LedgerFailed, match="is not open: use `async with"):
        await ledger.by_key("key")
    with pytest.raises(LedgerFailed, match="not open"):
        await ledger.change(1, intend("a", NOW))
    async with ledger:
        assert await ledger.by_key("key") is None


async def test_closing_writes_what_was_asked_for(where):
    ledger = where.open()
    async with ledger:
        row = await ledger.put(NewRow("key", REQUEST))
        waiter = asyncio.ensure_future(ledger.change(row.id, intend("a", NOW)))
        await asyncio.sleep(0)
    await ledger.aclose()
    assert (await waiter).attempt == "a"
    with pytest.raises(LedgerFailed, match="not open"):
        await ledger.put(NewRow("late", REQUEST))
    async with where.open() as again:
        assert (await again.by_key("key")).standing.attempt == "a"


@pytest.mark.parametrize("key", ["x", "\xfc" * 256, "\ud7ff\ue000"])
async def test_a_key_is_any_text_of_up_to_256_characters(where, key):
    async with where.open() as ledger:
        row = await ledger.put(NewRow(key, REQUEST))
        assert (row.key, await ledger.by_key(key)) == (key, row)


@pytest.mark.parametrize("key", ["", "x" * 257, 5, None, [1], "\ud800", "x\udfff"])
async def test_keys_that_are_none_trouble_nobody_else(where, key):
    service = Service()
    async with SimulatorServer(service) as server, TeniosClient("key", base_url=server.base_url) as client:
        async with where.open() as ledger:
            placing = asyncio.ensure_future(ledger.place_once(client, REQUEST, key="key"))
            for asking in (
                ledger.by_key(key),
                ledger.put(NewRow(key, REQUEST)),
                ledger.saw(key, CallbackStatus.CALLING_A),
                ledger.place_once(client, REQUEST, key=key),
            ):
                with pytest.raises(ValueError, match="key must be a text"):
                    await asking
            placed = await placing
            assert (await ledger.by_key("key")).callback == placed
            assert sum((await ledger.counts()).values()) == 1


async def test_what_is_no_client_and_no_request_leaves_nothing_behind(where):
    async with TeniosClient("key") as client, where.open() as ledger:
        for wrong in ((None, REQUEST), (TeniosClient, REQUEST)):
            with pytest.raises(ValueError, match="client must be a TeniosClient"):
                await ledger.place_once(*wrong, key="key")
        with pytest.raises(ValueError, match="request must be a CallbackRequest, not NoneType"):
            await ledger.place_once(client, None, key="key")
        assert await ledger.by_key("key") is None


async def test_a_state_that_was_seen_may_be_a_plain_text(where):
    async with where.open() as ledger:
        row = await ledger.put(NewRow("key", REQUEST))
        await ledger.change_all([(row.id, intend("a", NOW)), (row.id, place("a", Callback(10, "config", 30, NOW)))])
        await ledger.saw("key", "CONNECTED")
        for wrong in (None, 5, ""):
            with pytest.raises(ValueError, match="a status is"):
                await ledger.saw("key", wrong)
        assert (await ledger.by_key("key")).callback.status is CallbackStatus.CONNECTED
        await ledger.saw("key", "DISCONNECTED")
        assert (await ledger.by_key("key")).standing.state is RowState.FINISHED


async def test_nothing_is_seen_of_a_call_that_was_never_placed(where):
    """Nor of one in doubt, of which nobody knows the id; once it is known, there is a call to be seen."""
    async with where.open() as ledger:
        row = await ledger.put(NewRow("key", REQUEST))
        past = [
            intend("a", NOW),
            crash(),
            not_called("me", NOW + timedelta(minutes=1)),
            intend("b", NOW),
            doubt("b", "?"),
        ]
        for move in past:
            await ledger.change(row.id, move)
            with pytest.raises(ValueError, match="no call was placed with this key"):
                await ledger.saw("key", CallbackStatus.CALLING_A)
        with pytest.raises(ValueError, match="no call was placed with this key"):
            await ledger.saw("nobody", CallbackStatus.CALLING_A)
        await ledger.change(row.id, called("me", NOW, Callback(10, "config", 30, NOW)))
        await ledger.saw("key", CallbackStatus.CALLING_A)
        assert (await ledger.by_key("key")).callback.status is CallbackStatus.CALLING_A


async def test_a_call_that_was_given_back_and_then_turned_out_to_be_placed_is_seen_to_its_end(where):
    async with where.open() as ledger:
        row = await ledger.put(NewRow("key", REQUEST))
        past = [*LIVES["called again, and a stray"], called("me", NOW, Callback(5, "config", 30, NOW))]
        await ledger.change_all([(row.id, move) for move in past])
        await ledger.saw("key", CallbackStatus.DISCONNECTED)
        assert (await ledger.by_key("key")).standing.state is RowState.FINISHED


@pytest.mark.parametrize("count", ["x", None, True, 1.0, -1, 2**63])
async def test_counts_that_are_none_trouble_nobody_else(where, count):
    async with where.open() as ledger:
        row = await ledger.put(NewRow("key", REQUEST))
        for name, arguments in (("limit", (count,)), ("after", (1, count))):
            with pytest.raises(ValueError, match=f"{name} must be a whole number"):
                await ledger.queued(*arguments)
        assert await ledger.queued(2**63 - 1) == [row]


async def arrived(service):
    """When a request to place a call has."""
    while not service.inits:  # noqa: ASYNC110  # it has no event
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("how", ["left", "cancelled"])
async def test_closing_waits_for_the_calls_that_are_being_placed(where, how):
    """Whichever of ledger and client is closed first; whoever asks for such a call too gets it."""
    service = Service(latency=0.3)
    async with SimulatorServer(service) as server:
        async with TeniosClient("key", base_url=server.base_url) as client, where.open() as ledger:
            placing, too = (asyncio.ensure_future(ledger.place_once(client, REQUEST, key="key")) for _ in range(2))
            await arrived(service)
            if how == "cancelled":
                placing.cancel()
        assert ((await too).id, placing.done()) == (10, True)
    async with where.open() as ledger:
        assert (await ledger.by_key("key")).callback == await too
    assert service.inits.total() == 1


async def test_while_it_is_closed_no_further_call_is_placed(where):
    service = Service(latency=0.3)
    async with SimulatorServer(service) as server, TeniosClient("key", base_url=server.base_url) as client:
        ledger = where.open()
        async with ledger:
            placing = asyncio.ensure_future(ledger.place_once(client, REQUEST, key="key"))
            await arrived(service)
            closing = asyncio.ensure_future(ledger.aclose())
            await asyncio.sleep(0)
            with pytest.raises(LedgerFailed, match="being closed; nothing was sent"):
                await ledger.place_once(client, OTHER, key="other")
            assert await placing
            await closing
        async with ledger:
            assert await ledger.place_once(client, OTHER, key="other")
    assert service.inits.total() == 2


async def test_who_cannot_wait_is_told_what_to_do_about_a_call_that_was_not_written_down(where):
    service = Service(latency=0.3)
    async with SimulatorServer(service) as server, TeniosClient("key", base_url=server.base_url) as client:
        ledger = await where.open().__aenter__()
        placing = asyncio.ensure_future(ledger.place_once(client, REQUEST, key="key"))
        await arrived(service)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ledger.aclose(), 0.01)
        with pytest.raises(LedgerFailed) as caught:
            await placing
    for said in ("placed as callback 10", "not written down", "do not place it again"):
        assert said in str(caught.value)
    assert "Row(" not in str(caught.value)
    assert "tenios batch resolve LEDGER --key KEY --called 10" in str(caught.value)
    assert [row.callback.id for row in caught.value.rows] == [10]


# --- one call


async def test_a_hundred_who_ask_at_once_get_the_same_callback(where):
    service = Service()
    async with SimulatorServer(service) as server, TeniosClient("key", base_url=server.base_url) as client:
        async with where.open() as ledger:
            callbacks = await asyncio.gather(*(ledger.place_once(client, REQUEST, key="key") for _ in range(100)))
        async with where.open() as ledger:
            callbacks.append(await ledger.place_once(client, REQUEST, key="key"))
            with pytest.raises(ValueError, match="another request"):
                await ledger.place_once(client, OTHER, key="key")
    assert len(set(callbacks)) == 1
    assert service.inits.total() == 1


async def test_a_doubt_is_shared_and_stays(where):
    service = Service()
    service.fail_init(Fault.lost(Manner.DROP))
    async with SimulatorServer(service) as server, TeniosClient("key", base_url=server.base_url) as client:
        for _ in range(2):
            async with where.open() as ledger:
                asked = [ledger.place_once(client, REQUEST, key="key") for _ in range(10)]
                errors = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(error) for error in errors} == {CallbackOutcomeUnknown}
    assert service.inits.total() == 1


async def test_a_refusal_is_shared_by_all_who_waited_for_it(where):
    """Nobody who waited asks TENIOS again."""
    service = Service(latency=0.1)
    service.fail_init(Fault.refused("BAD_NUMBER"))
    async with SimulatorServer(service) as server, TeniosClient("key", base_url=server.base_url) as client:
        async with where.open() as ledger:
            asked = [ledger.place_once(client, REQUEST, key="key") for _ in range(10)]
            errors = await asyncio.gather(*asked, return_exceptions=True)
    assert {str(error) for error in errors} == {str(errors[0])}
    assert "BAD_NUMBER" in str(errors[0])
    assert service.inits.total() == 1


async def test_what_was_refused_or_not_sent_may_be_asked_for_again(where):
    service = Service()
    service.fail_init(Fault(400))
    async with where.open() as ledger:
        async with TeniosClient("key", base_url="http://127.0.0.1:9") as nobody:
            with pytest.raises(ConnectionFailed):
                await ledger.place_once(nobody, REQUEST, key="key", timeout=0.2)
        async with SimulatorServer(service) as server, TeniosClient("key", base_url=server.base_url) as client:
            with pytest.raises(Exception, match="400"):
                await ledger.place_once(client, REQUEST, key="key")
            assert (await ledger.place_once(client, REQUEST, key="key")).id == 10
    assert service.inits.total() == 2


async def test_a_row_that_somebody_else_has_moved_is_not_dialled(where):
    service = Service()
    async with SimulatorServer(service) as server, TeniosClient("key", base_url=server.base_url) as client:
        async with where.open() as ledger:
            row = await ledger.put(NewRow("key", REQUEST))
            await ledger.change(row.id, intend("another", NOW))
            with pytest.raises(IllegalMove):
                await place_row(ledger, client, row)
            assert (await ledger.by_key("key")).standing.attempt == "another"
    assert service.inits.total() == 0


async def test_the_intent_is_there_for_everybody_before_the_first_byte(where):
    seen = []

    class Watched(Service):
        def handle(self, method, path, body):
            with where.read() as looking:
                seen.append([row.standing.state for row in looking.rows()])
            return super().handle(method, path, body)

    async with SimulatorServer(Watched()) as server, TeniosClient("key", base_url=server.base_url) as client:
        async with where.open() as ledger:
            await ledger.place_once(client, REQUEST, key="key")
    assert seen == [[RowState.SENDING]]


async def test_no_more_rows_are_in_sending_than_there_are_connections(where):
    """Whoever is placed last has its answer written down before the next one's intent."""
    sending = []

    class Watched(Service):
        def handle(self, method, path, body):
            with where.read() as looking:
                sending.append(looking.counts()[RowState.SENDING])
            return super().handle(method, path, body)

    async with SimulatorServer(Watched()) as server:
        async with TeniosClient("key", base_url=server.base_url, max_connections=3) as client, where.open() as ledger:
            requests = [CallbackRequest("config", f"+4922100{number:05}") for number in range(60)]
            await asyncio.gather(*(ledger.place_once(client, r, key=r.callback_number) for r in requests))
    assert len(sending) == 60
    assert max(sending) <= 3


async def test_programs_that_only_look_need_not_know_what_it_is_written_on(where):
    with where.read() as looking:
        promised = {name for name in vars(Access) if not name.startswith("_")}
        assert "resolve" in promised
        assert promised <= set(dir(looking))


async def test_a_person_settles_a_doubt(where):
    async with where.open() as ledger:
        rows = [await ledger.put(NewRow(f"key {number}", REQUEST)) for number in range(2)]
        await ledger.change_all([(row.id, move) for row in rows for move in (intend("a", NOW), crash())])
        rows = [await ledger.by_key(row.key) for row in rows]
    with where.read() as looking:
        with looking.transaction():
            looking.resolve(rows[0], NOW, who="A. Person", was_called=True)
        with pytest.raises(IllegalMove), looking.transaction():
            looking.resolve(rows[0], NOW, who="A. Person", was_called=True)
        with pytest.raises(IllegalMove, match="on its way"), looking.transaction():
            looking.resolve(rows[1], NOW, who="A. Person", was_called=False)
        found = list(looking.query("SELECT call, attempt, verdict, who FROM resolutions"))
        assert looking.resolutions() == {rows[0].id: Resolution("called", "A. Person", NOW)}
    assert found == [(rows[0].id, "a", "called", "A. Person")]


@pytest.mark.parametrize(("line", "which"), [(None, "key key 0"), (7, "line 7")])
async def test_the_id_that_a_person_gives_is_not_that_of_another_call(where, line, which):
    callback = Callback(10, "config", 0, NOW)
    async with where.open() as ledger:
        rows = [await ledger.put(NewRow(f"key {number}", REQUEST, line)) for number in range(2)]
        await ledger.change_all([(row.id, intend("a", NOW)) for row in rows])
        await ledger.change_all([(rows[0].id, place("a", callback)), (rows[1].id, crash())])
    with where.read() as looking:
        with pytest.raises(IllegalMove, match=f"that of {which}"), looking.transaction():
            looking.resolve(rows[1], NOW, who="A. Person", was_called=True, callback=callback)
        assert looking.counts()[RowState.UNKNOWN] == 1


# --- one of somebody's own


async def test_a_ledger_of_ones_own_places_a_call_once():
    service = Service()
    async with SimulatorServer(service) as server, TeniosClient("key", base_url=server.base_url) as client:
        async with MemoryLedger() as ledger:
            first, again = [await ledger.place_once(client, REQUEST, key="key") for _ in range(2)]
    assert first == again
    assert service.inits.total() == 1


@pytest.mark.parametrize("left_out", ["put", "by_key", "queued", "followed", "counts", "tally", "change_all", "_close"])
async def test_a_ledger_of_ones_own_that_lacks_something_is_not_made(left_out):
    lacking = type("Lacking", (MemoryLedger,), {left_out: getattr(Ledger, left_out)})
    with pytest.raises(TypeError, match=left_out):
        lacking()
