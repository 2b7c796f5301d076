"""Workers that share a campaign: what is placed, followed, held back and handed over."""

import asyncio
import math
from collections import Counter
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import attrs
import psycopg
import pytest
from procrastinate.exceptions import ConnectorException
from procrastinate.manager import JobManager

from tenios_async import (
    BadCredentials,
    Callback,
    CallbackRequest,
    CallbackStatus,
    ClientMisuse,
    Polling,
    TeniosClient,
    WatchInterrupted,
)
from tenios_async.batch import (
    Campaign,
    Hours,
    LedgerFailed,
    LedgerRefused,
    NewRow,
    RowState,
    SQLiteLedger,
    TooManyRejects,
    controls,
    distributed,
    engine,
    jobs,
    postgres_campaign,
)
from tenios_async.batch.campaign import KIND
from tenios_async.batch.controls import Controls
from tenios_async.batch.distributed import Worker
from tenios_async.batch.engine import _Again
from tenios_async.batch.errors import LedgerError
from tenios_async.batch.ledger_file import LedgerFile
from tenios_async.batch.postgres import PostgresLedger
from tenios_async.batch.postgres_session import PostgresSession
from tenios_async.batch.postgres_url import PostgresURL
from tenios_async.batch.shared import Shared
from tenios_async.batch.standing import crash, intend, place, see
from tenios_async.batch.turns import Turn, Turns
from tenios_async.simulator import Fault, Manner, Script, Service, SimulatorServer

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("impatient")]
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
AT_ONCE = Script((("DISCONNECTED", 0.0),))
SHORT = Script((("CALLING_A", 0.2), ("DISCONNECTED", 0.3)))
ENDLESS = Script((("CALLING_A", 0.0), ("CALLING_B", 3600.0)))
FAST = Polling.fixed(0.2)


class Town:
    """A campaign, and a simulator that notes when it was asked to call whom."""

    def __init__(self, url, base_url, service):
        self.url, self.base_url, self.service = PostgresURL.parse(url), base_url, service

    @asynccontextmanager
    async def worker(self, *, key="key", **options):
        async with PostgresLedger(self.url, patience=10) as ledger:
            async with TeniosClient(key, base_url=self.base_url) as client:
                yield Worker(ledger, client, **{"heartbeat": 1.0, "polling": FAST, **options})

    async def work(self, **options):
        async with self.worker(**options) as worker:
            async with asyncio.timeout(50):
                return await worker.run()

    def states(self):
        with PostgresSession.read(self.url) as session:
            return Counter(str(row.standing.state) for row in session.rows())

    def set(self, *settings):
        with PostgresSession.write(self.url) as session:
            session.set(*settings)

    def ask(self, query):
        with PostgresSession.read(self.url) as session:
            return list(session.query(query))

    def tell(self, statement):
        with PostgresSession.read(self.url) as session:
            session.connection.execute(statement)

    @asynccontextmanager
    async def intending(self, row_id=1):
        """From when the intent of this row's call is on its way until the end of the block it is kept from arriving."""
        with PostgresSession.read(self.url) as session, session.transaction():
            session.connection.execute("SELECT 1 FROM calls WHERE id = %s FOR UPDATE", [row_id])
            waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            await self.until(lambda: self.ask(waiting))
            yield

    def hang_up(self):
        """All calls end."""
        for callback_id, callback in list(self.service.callbacks.items()):
            self.service.callbacks[callback_id] = attrs.evolve(callback, script=AT_ONCE)

    async def until(self, condition):
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110  # of another program
                await asyncio.sleep(0.05)


class Noting(Service):
    """Keeps the instants at which calls arrive."""

    def __init__(self, **options):
        super().__init__(**options)
        self.instants = []

    def handle(self, method, path, body):
        if path.endswith("init"):
            self.instants.append(asyncio.get_running_loop().time())
        return super().handle(method, path, body)


def not_now():
    """Hours that begin in two."""
    hour = datetime.now(UTC).hour
    return controls.within_hours(f"{(hour + 2) % 24}-{(hour + 3) % 24}", "UTC")


@pytest.fixture
def town(postgres_url):
    @asynccontextmanager
    async def make(contacts, *, script=AT_ONCE, delay=0):
        def fill(session):
            numbers = [f"+49123{index:06d}" for index in range(contacts)]
            rows = [
                NewRow(number, CallbackRequest("config", number, delay), index)
                for index, number in enumerate(numbers, 2)
            ]
            session.put_all(rows)

        PostgresSession.create(PostgresURL.parse(postgres_url), {"kind": KIND}, fill, with_jobs=True)
        service = Noting(script=script)
        async with SimulatorServer(service) as server:
            yield Town(postgres_url, server.base_url, service)
            service.assert_nobody_called_twice()

    return make


# --- made and moved


async def test_a_row_and_its_job_are_made_together_and_jobs_hold_no_number(postgres_url, tmp_path):
    contacts = tmp_path / "contacts.csv"
    lines = [f"+4922112345{index:02},{index}" for index in range(30)]
    contacts.write_text("callback_number,name\n" + "\n".join([*lines, lines[3], "nonsense,x"]) + "\n")
    options = {"callback_config_id": "config", "prefixes": ["+49"], "rejects": tmp_path / "rejects.csv"}
    with pytest.raises(TooManyRejects):
        postgres_campaign.create(postgres_url, contacts, max_bad=0, **options)
    url = PostgresURL.parse(postgres_url)
    with pytest.raises(LedgerRefused, match="no ledger"):
        PostgresSession.read(url).__enter__()
    taken = postgres_campaign.create(postgres_url, contacts, **options)
    assert (taken.taken, taken.repeated, taken.bad) == (30, 1, 1)
    assert (tmp_path / "rejects.csv").read_text().count("\n") == 3
    contacts.write_text("callback_number\n+4922112345\n" + lines[0].partition(",")[0] + "\n")
    with pytest.raises(ValueError, match="not overwritten"):
        postgres_campaign.add(postgres_url, contacts, rejects=contacts)
    taken = postgres_campaign.add(postgres_url, contacts)
    assert (taken.taken, taken.repeated) == (1, 1)
    with PostgresSession.read(url) as session:
        found = list(session.query("SELECT args, queueing_lock, lock FROM procrastinate_jobs ORDER BY id"))
        rows = [row.id for row in session.rows()]
        assert [row.line for row in session.rows()][:3] == [2, 3, 4]
        assert session.facts["rejected"] == 3
    assert found == [({"row": row_id}, None, None) for row_id in rows]


async def test_what_opted_out_since_is_not_called(town, tmp_path):
    async with town(5) as here:
        (tmp_path / "out.txt").write_text("+49123000001\n+49123999999\n")
        with PostgresSession.write(here.url) as session:
            session.facts = {"region": None, "prefixes": ["+49"]}
            assert [postgres_campaign.leave_out(session, tmp_path / "out.txt") for _ in range(2)] == [1, 0]
        await here.work()
        assert here.states() == {"FINISHED": 4, "REFUSED": 1}
        assert "+49123000001" not in here.service.inits


async def test_a_campaign_moves_with_everything_that_is_known(postgres_url, tmp_path):
    path, contacts = tmp_path / "campaign.db", tmp_path / "contacts.csv"
    contacts.write_text(
        "callback_number,name\n" + "".join(f"+4922112345{index},M\xfcller\n" for index in range(10, 18))
    )
    Campaign.create(path, contacts, callback_config_id="config", prefixes=["+49"])
    with LedgerFile.write(path) as file:
        with file.transaction():
            for row_id in range(1, 6):
                file.change(row_id, intend(f"a{row_id}", NOW))
            for row_id in (1, 2):
                file.change(row_id, place(f"a{row_id}", Callback(row_id, "config", 0, NOW)))
            file.change(1, see("a1", CallbackStatus.CONNECTED, NOW, 2))
            file.change(1, see("a1", CallbackStatus.DISCONNECTED, NOW + timedelta(seconds=5), 4))
            for row_id in (3, 4):
                file.change(row_id, crash())
            file.resolve(list(file.rows())[3], NOW, who="A. Person", was_called=True)
    with LedgerFile.write(path), pytest.raises(LedgerRefused, match="in use"):
        postgres_campaign.migrate(path, postgres_url)
    with pytest.raises(LedgerRefused, match="1 calls were being placed"):
        postgres_campaign.migrate(path, postgres_url)
    async with SQLiteLedger(path):
        pass  # who opens it after a crash puts them in doubt
    with LedgerFile.read(path) as file:
        before, seen = list(file.rows()), list(file.query("SELECT * FROM transitions"))
    assert postgres_campaign.migrate(path, postgres_url) == 8
    with PostgresSession.read(PostgresURL.parse(postgres_url)) as session:
        assert list(session.rows()) == before
        assert sorted(session.query("SELECT * FROM transitions")) == sorted(seen)
        assert list(session.query("SELECT who FROM resolutions")) == [("A. Person",)]
        assert session.facts["source"] == "contacts.csv"
        placing = "SELECT (args ->> 'row')::int FROM procrastinate_jobs WHERE queueing_lock IS NULL ORDER BY 1"
        assert list(session.query(placing)) == [(6,), (7,), (8,)]
        assert next(session.query("SELECT count(*) FROM procrastinate_jobs WHERE queueing_lock IS NOT NULL")) == (16,)
    for opening in (LedgerFile.write, lambda moved: postgres_campaign.migrate(moved, postgres_url)):
        with pytest.raises(LedgerRefused, match="has moved to"):
            opening(path)
    with LedgerFile.read(path) as file, pytest.raises(LedgerRefused, match="moved"), file.transaction():
        file.resolve(list(file.rows())[2], NOW, who="A. Person", was_called=True)
    service = Service(script=AT_ONCE)
    async with SimulatorServer(service) as server:
        here = Town(postgres_url, server.base_url, service)
        service.callbacks.clear()
        progress = await here.work()
    assert service.inits.total() == 3
    assert progress.unknown == 2
    assert progress.queued == progress.following.total() == 0


async def test_a_move_that_fails_leaves_the_file_as_it_was(postgres, postgres_url, tmp_path, monkeypatch):
    path = tmp_path / "calls.db"
    SQLiteLedger.create(path)
    async with SQLiteLedger(path) as ledger:
        await ledger.put(NewRow("key", CallbackRequest("config", "+49221123456")))
    values = postgres_campaign._values
    monkeypatch.setattr(postgres_campaign, "_values", lambda row: (row.id, "other", *values(row)[2:]))
    with pytest.raises(LedgerError, match="did not arrive"):
        postgres_campaign.migrate(path, postgres_url)
    monkeypatch.undo()
    with pytest.raises(LedgerRefused, match="no ledger"):
        PostgresSession.read(PostgresURL.parse(postgres_url)).__enter__()
    LedgerFile.write(path).close()
    # Whoever loses the connection while it commits does not know whether it has arrived: it is found out by asking.
    create = PostgresSession.create

    def lost(*arguments, **options):
        create(*arguments, **options)
        raise ConnectionError("lost")

    monkeypatch.setattr(PostgresSession, "create", lost)
    with pytest.raises(ConnectionError):
        postgres_campaign.migrate(path, postgres_url)
    monkeypatch.undo()
    for opening in (LedgerFile.write, lambda moved: postgres_campaign.migrate(moved, postgres_url)):
        with pytest.raises(LedgerRefused, match="has moved"):
            opening(path)
    async with PostgresLedger(postgres_url) as ledger:
        assert (await ledger.by_key("key")).id == 1
        assert (await ledger.put(NewRow("next", CallbackRequest("config", "+49221123456")))).id > 1


async def test_a_move_that_loses_what_people_said_is_none(postgres_url, tmp_path, monkeypatch):
    path = tmp_path / "calls.db"
    SQLiteLedger.create(path)
    async with SQLiteLedger(path) as ledger:
        row = await ledger.put(NewRow("key", CallbackRequest("config", "+49221123456")))
        await ledger.change_all([(row.id, intend("a", NOW)), (row.id, crash())])
    with LedgerFile.read(path) as file, file.transaction():
        file.resolve(next(file.rows()), NOW, who="A. Person", was_called=True)
    copy = postgres_campaign._copy

    def losing(source, session):
        copy(source, session)
        session.connection.execute("DELETE FROM resolutions")

    monkeypatch.setattr(postgres_campaign, "_copy", losing)
    with pytest.raises(LedgerError, match="resolutions did not arrive"):
        postgres_campaign.migrate(path, postgres_url)
    monkeypatch.undo()
    assert postgres_campaign.migrate(path, postgres_url) == 1


async def test_a_move_that_was_broken_off_goes_on_to_where_it_went(postgres_url, tmp_path):
    path = tmp_path / "calls.db"
    SQLiteLedger.create(path)
    with LedgerFile.write(path) as file:
        postgres_campaign._mark(file, str(PostgresURL.parse(postgres_url)))
    with pytest.raises(LedgerRefused, match="was on its way to"):
        postgres_campaign.migrate(path, postgres_url + "_other")
    assert postgres_campaign.migrate(path, postgres_url) == 0


# --- placed and followed


async def test_two_workers_call_everybody_once_and_end(town):
    async with town(120, script=SHORT) as here:
        first, second = await asyncio.gather(here.work(), here.work(counting=True))
        assert here.states() == {"FINISHED": 120}
        assert sorted(here.service.inits.values()) == [1] * 120
        assert first.placed_now + second.placed_now == 120
        assert min(first.placed_now, second.placed_now) > 0
        assert first.polls + second.polls >= 120
        assert first.finished == {CallbackStatus.DISCONNECTED: 120}
        assert here.ask("SELECT count(*) FROM procrastinate_jobs WHERE task_name = 'tenios.place'") == [(0,)]


async def test_a_job_that_is_delivered_twice_calls_once(town):
    async with town(30, script=SHORT) as here:
        with PostgresSession.read(here.url) as session:
            jobs.defer_placing(session.connection, [row.id for row in session.rows()] * 2)
        await asyncio.gather(here.work(), here.work())
        assert here.service.inits.total() == 30
        with PostgresSession.read(here.url) as session:
            jobs.defer_placing(session.connection, [row.id for row in session.rows()])
        await here.work()
        assert here.service.inits.total() == 30


async def test_rows_whose_jobs_are_lost_are_called_all_the_same(town):
    async with town(5) as here:
        with PostgresSession.read(here.url) as session:
            session.connection.execute("DELETE FROM procrastinate_jobs WHERE id % 2 = 0")
        await here.work()
        assert here.states() == {"FINISHED": 5}


async def test_what_another_worker_left_is_put_in_doubt_or_followed_and_never_dialled(town):
    async with town(3, script=SHORT) as here:
        async with PostgresLedger(here.url) as ledger, TeniosClient("key", base_url=here.base_url) as client:
            placed = await client.init_callback("config", "+49123000000")
            await ledger.change_all([(1, intend("a", NOW)), (2, intend("b", NOW)), (1, place("a", placed))])
            await here.work(left_alone=0.5)
            assert here.states() == {"FINISHED": 2, "UNKNOWN": 1}
            assert here.service.inits == {"+49123000000": 1, "+49123000002": 1}
            late = Callback(11, "config", 0, NOW)  # the answer of the attempt that owns it settles it
            assert (await ledger.change(2, place("b", late))).state is RowState.PLACED
        here.service.callbacks.pop(11)
        with PostgresSession.read(here.url) as session:
            assert next(session.query("SELECT polls > 0, status FROM calls WHERE id = 1")) == (True, "DISCONNECTED")


async def test_no_more_calls_of_one_worker_are_under_way_than_asked_for(town):
    async with town(12, script=Script((("CALLING_A", 0.5), ("DISCONNECTED", 0.5)))) as here:
        await here.work(concurrency=3)
        starts = here.service.instants
        for later, earlier in zip(starts[3:], starts, strict=False):
            assert later - earlier >= 1.0
        assert here.states() == {"FINISHED": 12}


async def test_a_worker_that_leaves_hands_over(town):
    async with town(4, script=Script((("CALLING_A", 0.5), ("DISCONNECTED", 3.0)))) as here:
        async with here.worker() as worker:
            leaving = asyncio.create_task(worker.run())
            await here.until(lambda: here.states() == {"PLACED": 4})
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
        assert here.ask("SELECT count(*) FROM procrastinate_jobs WHERE status = 'doing'") == [(0,)]
        await here.work()
        assert here.states() == {"FINISHED": 4}


async def test_a_worker_that_leaves_before_it_begins_begins_nothing(town):
    async with town(3) as here, here.worker() as worker:
        worker.leave()
        await worker.run()
        assert here.states() == {"QUEUED": 3}


async def test_a_worker_that_leaves_mends_nothing(town):
    async with town(1) as here, here.worker(left_alone=0.0) as worker:
        here.tell("UPDATE calls SET state = 'SENDING', attempt = 'a', intended_at = 0, changed_at = 'epoch'")
        worker.leave()
        await worker._mend()
        assert here.states() == {"SENDING": 1}


async def test_a_worker_that_has_nothing_to_do_ends_while_it_registers(town, monkeypatch):
    """A cancellation may be lost then: `asyncio.wait_for` does so up to Python 3.11, and psycopg waits by it."""
    register = JobManager.register_worker

    async def losing(self):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.5)
        return await register(self)

    monkeypatch.setattr(JobManager, "register_worker", losing)
    async with town(3) as here:
        here.set(controls.stopped("enough"))
        assert (await here.work()).stopped == "enough"
        assert here.states() == {"QUEUED": 3}


async def test_shards_are_shared_out_among_those_that_live(town):
    held = "SELECT worker_id, count(*) FROM procrastinate_jobs WHERE task_name = 'tenios.watch' AND status = 'doing' GROUP BY 1"
    async with town(2, script=ENDLESS) as here, here.worker() as first, here.worker() as second:
        runs = [asyncio.create_task(first.run())]
        await here.until(lambda: [count for _, count in here.ask(held)] == [16])
        runs.append(asyncio.create_task(second.run()))
        await here.until(lambda: [count for _, count in here.ask(held)] == [8, 8])
        for run in runs:
            run.cancel()
        await asyncio.wait(runs)


# --- held back


async def test_the_rate_holds_over_all_workers_and_is_changed_while_they_work(town):
    async with town(60) as here:
        here.set(controls.at_rate(1 / 3600))
        both = asyncio.gather(here.work(), here.work())
        await here.until(lambda: here.service.instants)
        here.set(controls.at_rate(10))  # what the slow rate has put far ahead keeps nobody waiting
        await here.until(lambda: len(here.service.instants) >= 16)
        evenly = here.service.instants[1:16]
        assert evenly[-1] - evenly[0] >= 14 / 10 - 0.3
        here.set(controls.at_rate(math.inf))
        await both
        assert here.states() == {"FINISHED": 60}


async def test_pause_resume_and_stop_hold_for_all(town):
    async with town(150) as here, here.worker() as first, here.worker() as second:
        here.set(controls.at_rate(20))
        runs = [asyncio.create_task(worker.run()) for worker in (first, second)]
        await here.until(lambda: len(here.service.instants) >= 5)
        here.set(controls.paused(is_paused=True))
        for worker in (first, second):
            await here.until(lambda worker=worker: worker.progress.waiting_for == "somebody to end the pause")
        await here.until(lambda: not here.states()["SENDING"])
        paused_at = len(here.service.instants)
        await asyncio.sleep(0.5)  # ten calls, if it did not hold
        assert len(here.service.instants) == paused_at
        here.set(controls.going_on())
        await here.until(lambda: len(here.service.instants) > paused_at + 5)
        here.set(controls.stopped("enough"))
        for run in runs:
            assert (await run).stopped == "enough"
        states = here.states()
        assert states["QUEUED"] == 150 - here.service.inits.total() > 0
        assert set(states) == {"QUEUED", "FINISHED"}
        here.set(controls.going_on(), controls.at_rate(math.inf))
        await here.work()
        assert here.states() == {"FINISHED": 150}


async def test_a_limit_counts_over_all_workers(town):
    async with town(50) as here:
        here.set(controls.with_limit(20))
        here.service.fail_init(Fault(429), Fault(429))  # given back, and its turn too
        for progress in await asyncio.gather(here.work(), here.work()):
            assert "as many" in progress.stopped
        assert here.states() == {"FINISHED": 20, "QUEUED": 30}
        assert len({callback.number for callback in here.service.callbacks.values()}) == 20
        here.service.inits.clear()  # which counts what was refused too


async def test_a_limit_counts_for_a_call_that_needed_no_turn_when_it_began(town):
    async with town(1) as here, here.worker() as worker:
        running = asyncio.create_task(worker.run())
        async with here.intending():
            here.set(controls.with_limit(1))
            await here.until(lambda: worker._controls.is_metered)
        await running
        assert here.states() == {"FINISHED": 1}
        assert here.ask("SELECT turns_left FROM controls") == [(0,)]


async def test_a_limit_is_used_up_to_its_last_call(town):
    """Turns are drawn before their moment: that none is left does not mean that all were used."""
    async with town(5) as here:
        here.set(controls.with_limit(3), controls.at_rate(4))
        for progress in await asyncio.gather(here.work(), here.work()):
            assert "as many" in progress.stopped
        assert here.states() == {"FINISHED": 3, "QUEUED": 2}
        progress = await here.work()
        assert (progress.placed_now, "as many" in progress.stopped) == (0, True)
        here.set(controls.with_limit(math.inf))
        assert (await here.work()).stopped is None
        assert here.states() == {"FINISHED": 5}


async def test_why_it_is_over_is_not_forgotten_while_its_jobs_end(town, monkeypatch):
    decided, live, leave = [], Shared.live, Worker.leave

    async def slow(*args):  # from then on
        await asyncio.sleep(3600 if decided else 0)
        return await live(*args)

    monkeypatch.setattr(Shared, "live", slow)
    monkeypatch.setattr(Worker, "leave", lambda worker: decided.append(worker) or leave(worker))
    monkeypatch.setattr(distributed, "ATTEND_EVERY", 0.0)
    async with town(2) as here:
        here.set(controls.with_limit(1))
        assert "as many" in (await here.work()).stopped


async def test_a_breaker_that_trips_stops_all(town):
    async with town(200) as here:
        here.set(controls.at_rate(40))
        here.service.fail_init(*[Fault.lost(Manner.DROP)] * 200)
        for progress in await asyncio.gather(here.work(), here.work()):
            assert "resolve" in progress.stopped
        assert 10 <= here.states()["UNKNOWN"] < 200
        here.service._faults.clear()
        here.set(controls.going_on(), controls.at_rate(math.inf))  # what was before does not count
        progress = await here.work()
        assert progress.stopped is None
        assert here.states()["QUEUED"] == 0


async def test_wrong_credentials_stop_placing_and_give_the_call_back(town):
    async with town(20) as here:
        here.service._access_key = "key"
        here.set(controls.at_rate(10))
        progress = await here.work(key="wrong")
        assert isinstance(progress.cause, BadCredentials)
        assert here.states() == {"QUEUED": 20}
        here.service.inits.clear()
        here.set(controls.going_on(), controls.at_rate(math.inf))
        await here.work()
        assert here.states() == {"FINISHED": 20}


async def test_calls_for_which_tenios_cannot_be_reached_are_given_back_and_wait(town):
    async with town(1) as here, PostgresLedger(here.url) as ledger:
        async with TeniosClient("key", base_url="http://127.0.0.1:9", timeout=0.2) as nobody:
            worker = Worker(ledger, nobody, heartbeat=1.0)
            running = asyncio.create_task(worker.run())
            await here.until(lambda: math.isfinite(worker._pause_ends))
            worker.leave()
            await running
        assert here.states() == {"QUEUED": 1}
        await here.work()
        assert here.states() == {"FINISHED": 1}


async def test_a_worker_that_may_not_look_ends_and_leaves_the_calls_to_others(town):
    async with town(1, script=ENDLESS) as here:
        here.service._access_key = "key"
        async with here.worker() as good:
            running = asyncio.create_task(good.run())
            await here.until(lambda: here.states() == {"PLACED": 1})
            running.cancel()
            await asyncio.wait([running])
        with pytest.raises(BadCredentials):
            await here.work(key="wrong")
        assert here.states() == {"PLACED": 1}


async def test_nothing_rings_outside_the_hours(town):
    async with town(3) as here:
        here.set(not_now())
        async with here.worker() as worker:
            running = asyncio.create_task(worker.run())
            await here.until(lambda: worker.progress.waiting_for is not None)
            assert "hours" in worker.progress.waiting_for
            assert here.service.inits.total() == 0
            here.set(controls.within_hours(None, None))
            await running
        assert here.states() == {"FINISHED": 3}


async def test_a_stop_file_stops_all(town, tmp_path):
    async with town(50, script=SHORT) as here:
        here.set(controls.at_rate(5))
        stop = Path(tmp_path) / "stop"
        both = asyncio.gather(here.work(stop_file=stop), here.work())
        await here.until(lambda: len(here.service.instants) >= 3)
        stop.touch()
        for progress in await both:
            assert "stop file" in progress.stopped
        assert here.service.inits.total() < 50


async def test_a_ledger_for_place_once_is_no_campaign(postgres_url):
    PostgresLedger.create(postgres_url)
    async with PostgresLedger(postgres_url) as ledger:
        with pytest.raises(LedgerRefused, match="no campaign"):
            await Worker(ledger, None).run()
        with pytest.raises(ValueError, match="concurrency"):
            Worker(ledger, None, concurrency=0)
        with pytest.raises(ValueError, match="concurrency"):
            Worker(ledger, None, concurrency="5")


# --- what ends a call that is about to leave


@pytest.mark.parametrize(
    "brake",
    [None, lambda: controls.stopped("enough"), lambda: controls.paused(is_paused=True), not_now],
    ids=["stop file", "stopped", "paused", "hours"],
)
async def test_a_call_whose_intent_is_being_written_when_placing_is_held_back_does_not_leave(town, tmp_path, brake):
    stop = tmp_path / "stop"
    async with town(1) as here, here.worker(stop_file=stop) as worker:
        running = asyncio.create_task(worker.run())
        async with here.intending():
            if brake is None:
                stop.touch()
            else:
                here.set(brake())
                await here.until(lambda: worker._controls != Controls())
        worker.leave()
        await running
        assert not here.service.inits
        assert here.states() == {"QUEUED": 1}
        here.set(controls.going_on(), controls.within_hours(None, None))
        await here.work()
        assert here.states() == {"FINISHED": 1}


async def test_a_call_for_which_there_is_no_turn_once_its_intent_is_written_is_placed_later(town, monkeypatch):
    """Its own has passed meanwhile, and TENIOS asks to be left alone."""
    monkeypatch.setattr("tenios_async.batch.turns.AFTER_INTENT", 0.1)
    async with town(1) as here, here.worker() as worker:
        here.set(controls.at_rate(10))
        running = asyncio.create_task(worker.run())
        async with here.intending():
            here.set(controls.left_alone(3600))
            await asyncio.sleep(0.05)
        worker.leave()
        await running
        assert not here.service.inits
        assert here.states() == {"QUEUED": 1}
        here.tell("UPDATE controls SET pause_ends = clock_timestamp()")
        await here.work()
        assert here.states() == {"FINISHED": 1}


async def test_the_first_reason_to_stop_counts(town):
    async with town(1, script=ENDLESS) as here, here.worker() as worker:
        running = asyncio.create_task(worker.run())
        await here.until(lambda: here.states() == {"PLACED": 1})
        here.set(controls.stopped("enough"))
        await worker.stop("wrong credentials", BadCredentials(400))
        here.hang_up()
        progress = await running
        assert (progress.stopped, progress.cause) == ("enough", None)


async def test_nothing_is_placed_while_nobody_says_what_holds_for_all(town, monkeypatch):
    """Say, since a question to the database is never answered; or the machine was suspended, and is a minute late."""
    monkeypatch.setattr(distributed, "STALE", 0.5)
    answered, learn = asyncio.Event(), Shared.controls

    async def silent(shared):
        await answered.wait()
        return await learn(shared)

    async with town(60) as here, here.worker() as worker:
        here.set(controls.at_rate(20))
        running = asyncio.create_task(worker.run())
        await here.until(lambda: here.service.instants)
        monkeypatch.setattr(Shared, "controls", silent)
        await here.until(lambda: worker.progress.waiting_for == "the database, to say what holds for all")
        here.set(controls.stopped("enough"))
        answered.set()
        assert (await running).stopped == "enough"
        assert here.states()["QUEUED"] > 0


async def test_a_question_that_takes_long_keeps_nobody_from_knowing_what_holds(town, monkeypatch):
    monkeypatch.setattr(distributed, "STALE", 0.5)
    async with town(20) as here, here.worker() as worker:
        here.set(controls.at_rate(10))
        running = asyncio.create_task(worker.run())
        await here.until(lambda: here.service.instants)
        with PostgresSession.read(here.url) as session, monkeypatch.context() as slow:
            session.connection.execute("SELECT pg_advisory_lock(7)")
            slow.setattr("tenios_async.batch.shared._OPEN", "SELECT true, true, true FROM pg_advisory_lock(7)")
            await here.until(lambda: len(here.service.instants) == 20)
        await running


async def test_a_client_that_is_closed_before_a_call_uses_up_no_turn(town, monkeypatch):
    take = Turns.take

    async def closing(turns):
        turn = await take(turns)
        await worker._client.aclose()
        return turn

    monkeypatch.setattr(Turns, "take", closing)
    async with town(1) as here, here.worker() as worker:
        here.set(controls.with_limit(1))
        with pytest.raises(ClientMisuse):
            await worker.run()
        assert here.states() == {"QUEUED": 1}
        assert here.ask("SELECT turns_left FROM controls") == [(1,)]


async def test_a_call_does_not_leave_where_it_is_not_known_what_holds_by_then(town, monkeypatch):
    arrive, learn, goes_on = Turns.arrive, Worker._learn, asyncio.Event()
    goes_on.set()

    async def late(turns, turn, began):
        goes_on.clear()
        worker._known_at -= 60
        monkeypatch.setattr(Turns, "arrive", arrive)
        return await arrive(turns, turn, began)

    async def learning(worker):
        await goes_on.wait()
        await learn(worker)
        worker._known_at -= 0 if goes_on.is_set() else 60

    async with town(1) as here, here.worker() as worker:
        here.set(controls.with_limit(5))
        monkeypatch.setattr(Turns, "arrive", late)
        monkeypatch.setattr(Worker, "_learn", learning)
        running = asyncio.create_task(worker.run())
        await here.until(lambda: not goes_on.is_set() and worker.progress.waiting_for is not None)
        assert not here.service.instants
        goes_on.set()
        await running
        assert here.states() == {"FINISHED": 1}


async def test_two_jobs_for_one_shard_are_no_trouble(town, caplog):
    """As they are where a person has just said that a call of it was placed. One of them ends as it is given back."""
    async with town(3, script=ENDLESS) as here, here.worker() as first, here.worker() as second:
        runs = [asyncio.create_task(first.run())]
        await here.until(lambda: here.states() == {"PLACED": 3} and len(first._watches) == 16)
        with PostgresSession.write(here.url) as session, session.transaction():
            jobs.defer_watching(session.connection, range(16))
        runs.append(asyncio.create_task(second.run()))
        await here.until(lambda: len(first._watches) == len(second._watches) == 8)
        twins = "SELECT count(*) FROM procrastinate_jobs WHERE task_name = 'tenios.watch' AND status = 'todo'"
        assert here.ask(twins) == [(8,)]
        for run in runs:
            run.cancel()
        await asyncio.wait(runs)
    assert "begins anew" not in caplog.text


# --- a ledger that fails, and a client that is closed


async def test_after_a_failover_workers_end_and_what_is_open_stays(town, postgres):
    async with town(3, script=ENDLESS) as here, here.worker() as worker:
        running = asyncio.create_task(worker.run())
        await here.until(lambda: here.states() == {"PLACED": 3})
        here.tell("UPDATE mark SET timeline = '00000000'")
        postgres.cut_connections()
        with pytest.raises(LedgerRefused, match="accept-failover"):
            await running
        assert here.states() == {"PLACED": 3}


async def test_calls_that_cannot_be_written_down_are_all_told_of_and_count_towards_the_limit(town):
    async with town(3) as here:
        here.set(controls.with_limit(3))
        here.service.latency = 0.5
        here.tell("ALTER TABLE calls ADD CONSTRAINT is_full CHECK (state <> 'PLACED')")
        with pytest.raises(LedgerFailed, match="is_full") as caught:
            await here.work()
        assert {row.standing.callback_id for row in caught.value.rows} == set(here.service.callbacks)
        assert here.states()["SENDING"] == len(here.service.callbacks)
        assert here.ask("SELECT turns_left FROM controls") == [(3 - len(here.service.callbacks),)]


async def test_what_follows_hides_no_call_that_could_not_be_written_down(town):
    async with town(1) as here, here.worker() as worker:
        with PostgresSession.read(here.url) as session:
            (row,) = session.rows()
        worker._fail(LedgerFailed("the disk is full", row))
        worker._fail(ClientMisuse("the client is closed"))
        with pytest.raises(LedgerFailed, match="disk is full") as caught:
            await worker.run()
    assert caught.value.rows == (row,)


async def test_a_client_that_is_closed_meanwhile_ends_the_worker_and_keeps_what_is_open(town):
    async with town(10, script=ENDLESS) as here, here.worker(concurrency=2) as worker:
        running = asyncio.create_task(worker.run())
        await here.until(lambda: here.states() == {"PLACED": 2, "QUEUED": 8})
        await worker._client.aclose()
        with pytest.raises((WatchInterrupted, ClientMisuse)):
            await running
        assert here.states() == {"PLACED": 2, "QUEUED": 8}


async def test_a_client_that_is_closed_places_nothing(town):
    async with town(3) as here, here.worker() as worker:
        await worker._client.aclose()
        with pytest.raises(ClientMisuse):
            await worker.run()
        assert here.states() == {"QUEUED": 3}


# --- jobs that are taken over, and jobs that fail


@pytest.mark.parametrize(
    "loss",
    [
        "DELETE FROM procrastinate_workers",
        "DELETE FROM procrastinate_jobs WHERE status = 'doing' AND task_name = 'tenios.watch'",
    ],
    ids=["it", "its jobs"],
)
async def test_a_worker_that_was_taken_for_dead_begins_anew(town, caplog, loss):
    """It was suspended, and others have replaced what it did."""
    followed = "SELECT coalesce(max(worker_id), 0), count(*) FROM procrastinate_jobs WHERE status = 'doing' AND task_name = 'tenios.watch'"
    async with town(1, script=ENDLESS) as here:
        running = asyncio.create_task(here.work())
        await here.until(lambda: here.states() == {"PLACED": 1} and here.ask(followed)[0][1] == 16)
        ((former, _),) = here.ask(followed)
        here.tell(loss)
        await here.until(lambda: (found := here.ask(followed)[0])[1] == 16 and found[0] > former)
        here.hang_up()
        await running
        assert here.states() == {"FINISHED": 1}
    assert "begins anew" in caplog.text


async def test_a_worker_that_cannot_ask_whose_its_jobs_are_begins_anew(town, monkeypatch, caplog):
    """Somebody else may follow its shards by now."""
    list_jobs = JobManager.list_jobs_async

    async def failing(self, **asked):
        if "status" in asked and "begins anew" not in caplog.text:
            raise ConnectorException
        return await list_jobs(self, **asked)

    monkeypatch.setattr(JobManager, "list_jobs_async", failing)
    async with town(1, script=ENDLESS) as here:
        running = asyncio.create_task(here.work())
        await here.until(lambda: "begins anew" in caplog.text)
        here.hang_up()
        await running
        assert here.states() == {"FINISHED": 1}


async def test_jobs_of_a_worker_that_has_died_are_replaced(town):
    async with town(5) as here:
        with PostgresSession.write(here.url) as session, session.transaction():
            jobs.defer_watching(session.connection, [0])
        mending = "INSERT INTO procrastinate_jobs (queue_name, task_name, queueing_lock) VALUES ('{}', '{}', '{}')"
        here.tell(mending.format(jobs.KEEPING, jobs.MEND, jobs.MEND))
        here.tell("UPDATE procrastinate_jobs SET status = 'doing'")
        former = here.ask("SELECT max(id) FROM procrastinate_jobs")
        await here.work()
        assert here.states() == {"FINISHED": 5}
        assert here.ask(f"SELECT count(*) FROM procrastinate_jobs WHERE id <= {former[0][0]}") == [(0,)]


async def test_a_dead_job_that_could_not_be_ended_is_found_again(town, monkeypatch, caplog):
    """The connection was lost meanwhile; where somebody else has ended it there is nothing to be told."""
    finish, asked = JobManager.finish_job_by_id_async, []

    async def failing(self, job_id, *how, **options):
        asked.append(job_id)
        if len(asked) == 1:
            raise ConnectorException from psycopg.OperationalError("the connection is lost")
        await finish(self, job_id, *how, **options)
        if job_id == asked[0]:
            await finish(self, job_id, *how, **options)  # there is no such job any more, and the database says so

    async with town(1) as here:
        here.tell("UPDATE procrastinate_jobs SET status = 'doing'")
        ((former,),) = here.ask("SELECT max(id) FROM procrastinate_jobs")
        monkeypatch.setattr(JobManager, "finish_job_by_id_async", failing)
        await here.work()
        assert here.states() == {"FINISHED": 1}
        assert here.ask(f"SELECT count(*) FROM procrastinate_jobs WHERE id <= {former}") == [(0,)]
    assert asked.count(asked[0]) == 2
    assert caplog.text.count("begins anew") == 1


async def test_a_job_that_fails_is_done_again(town, monkeypatch, caplog):
    """The ledger could not say what was to be done: it holds a number that is none."""
    monkeypatch.setattr(_Again, "AFTER_ERROR", 0.1)
    async with town(3) as here:
        here.tell("UPDATE calls SET callback_number = 'nonsense' WHERE id = 2")
        running = asyncio.create_task(here.work())
        await here.until(lambda: "a job failed" in caplog.text)
        here.tell("UPDATE calls SET callback_number = key WHERE id = 2")
        await running
        assert here.states() == {"FINISHED": 3}


async def test_a_call_whose_answer_outlasts_the_grace_of_a_worker_that_leaves_is_in_doubt(town, monkeypatch):
    monkeypatch.setattr(engine, "GRACE", 0.2)
    async with town(1) as here, here.worker() as worker:
        here.service.fail_init(Fault.stalled())
        running = asyncio.create_task(worker.run())
        await here.until(lambda: here.service.inits)
        worker.leave()
        await running
        assert here.states() == {"UNKNOWN": 1}
        await here.work()


# --- turns


async def test_turns_are_evenly_spaced_however_many_draw_them(town):
    async with town(1) as here, PostgresLedger(here.url) as ledger:
        here.set(controls.at_rate(100))
        moments = []

        async def draw(link):
            values = {"wanted": 3, "ahead": controls.AHEAD, "horizon": 60.0}
            for _ in range(10):
                ((count, first, gap, _, _),) = await link.ask(controls.DRAW, values)
                moments.extend(first + gap * number for number in range(count))

        links = [ledger.link() for _ in range(3)]
        await asyncio.gather(*map(draw, links))
        for link in links:
            await link.close()
        moments.sort()
        assert len(moments) == 90
        assert all(later - earlier > 0.01 - 1e-4 for earlier, later in pairwise(moments))


async def test_what_holds_is_felt_with_the_next_turn(town):
    async with town(1) as here, PostgresLedger(here.url) as ledger, Shared(ledger) as shared:
        here.set(
            controls.at_rate(1 / 60),
            controls.with_limit(5),
            controls.allowing_doubts(0.5),
            controls.within_hours("9-18", "Europe/Berlin"),
        )
        count, first, gap, present, _ = await shared.draw(10)
        assert (count, gap) == (1, pytest.approx(60))
        assert first == pytest.approx(present, abs=0.05)
        assert await shared.draw(10) is None  # a minute ahead is too far
        here.set(controls.at_rate(1000))
        assert (await shared.draw(10))[0] == 4  # of the limit
        assert await shared.draw(10) is None
        held = await shared.controls()
        assert (held.rate, held.turns_left, held.max_unknown, held.is_metered) == (1000, 0, 0.5, True)
        assert held.hours == Hours.parse("9-18", tz="Europe/Berlin")
        await shared.change(controls.given_back(1, 1))
        for braking, releasing in [
            (controls.paused(is_paused=True), controls.paused(is_paused=False)),
            (controls.stopped("x"), controls.going_on()),
        ]:
            here.set(braking)
            assert await shared.draw(1) is None
            here.set(releasing)
        await shared.change(controls.left_alone(60))
        assert await shared.draw(1) is None
        assert 59 < (await shared.controls()).pause <= 60
        assert await shared.change(controls.stopped("y")) is True
        assert await shared.change(controls.stopped("z")) is False
        assert (await shared.controls()).stopped == "y"


@pytest.mark.parametrize("when", ["before it was written", "before its acknowledgement"])
async def test_a_turn_is_given_back_once_though_its_connection_is_lost(town, monkeypatch, when):
    """Or more would be called than the limit says."""
    execute, losses = psycopg.AsyncConnection.execute, []

    async def losing(connection, query, values=()):
        if b"turns_left +" in query and not losses:
            losses.append(when)
            if when == "before its acknowledgement":
                await execute(connection, query, values)
            await connection.close()
            raise psycopg.OperationalError("the connection was lost")
        return await execute(connection, query, values)

    async with town(1) as here, PostgresLedger(here.url) as ledger, Shared(ledger) as shared:
        here.set(controls.with_limit(5))
        monkeypatch.setattr(psycopg.AsyncConnection, "execute", losing)
        await shared.change(controls.given_back(1, 1))
        assert (await shared.controls()).turns_left == (5 if when == "before it was written" else 6)
        await shared.change(controls.given_back(1, 1))
        assert (await shared.controls()).turns_left == (6 if when == "before it was written" else 7)
    assert losses


class Given:
    """Turns as they are laid down: how many, in how many seconds the first is, and the gap. Its clock is far ahead."""

    def __init__(self, *given):
        self.given, self.back = list(given), 0

    async def draw(self, wanted):
        if not self.given:
            return None
        count, first, gap = self.given.pop(0)
        now = asyncio.get_running_loop().time() + 1e6
        return count, now + first, gap, now, 7

    async def change(self, setting):
        count, limit = setting.values
        assert limit == 7
        self.back += count


async def test_turns_that_nobody_waits_for_any_more_are_given_back():
    turns = Turns(Given((3, 0.0, 0.0), (1, 60.0, 1.0)))
    assert not turns.is_holding
    assert math.isinf((await turns.take()).moment)
    assert turns.is_holding
    await turns.tidy()
    assert (turns.is_holding, turns._shared.back) == (False, 2)
    waiting = asyncio.ensure_future(turns.take())  # a minute
    while not turns.is_holding:  # noqa: ASYNC110  # that is what is tested
        await asyncio.sleep(0)
    await turns.tidy()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert turns.is_holding
    await turns.tidy()
    assert (turns.is_holding, turns._shared.back) == (False, 3)


@pytest.mark.looptime
async def test_a_turn_that_is_over_is_void():
    """A worker that stalled does not catch up in one burst."""
    given, loop = Given((5, -1.0, 0.25)), asyncio.get_running_loop()
    turns = Turns(given)
    assert (await turns.take()).moment == pytest.approx(loop.time())  # the fifth of the five
    assert await turns.take() is None
    assert given.back == 4


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("gap", "late", "is_taken"), [(0.01, 0.019, True), (0.01, 0.021, False), (60.0, 2.9, True), (60.0, 3.1, False)]
)
async def test_how_late_a_turn_may_be_taken(gap, late, is_taken):
    """A slow rate forgives more: its next turn is far away."""
    turns, loop = Turns(Given((1, 0.0, gap))), asyncio.get_running_loop()
    turn = await turns.take()
    await asyncio.sleep(late)
    assert await turns.arrive(turn, loop.time()) == (turn if is_taken else None)


async def test_an_answer_that_was_slow_says_little_about_the_clock_of_the_database():
    from tenios_async.batch.turns import TRUSTED, _Clock

    clock = _Clock()
    clock.told(10.0, 10.01, 1010.0)
    clock.told(11.0, 12.0, 1011.0)  # said at once, and answered late
    assert clock.here(1020.0) == pytest.approx(20.0, abs=0.01)
    clock.told(11.0 + TRUSTED, 11.1 + TRUSTED, 1011.05 + TRUSTED)  # a faster one is too long ago
    clock.told(12.0 + TRUSTED, 13.0 + TRUSTED, 1012.9 + TRUSTED)
    assert clock.here(1020.0) == pytest.approx(20.0, abs=0.001)
    clock.told(14.0 + TRUSTED, 15.0 + TRUSTED, 4614.5 + TRUSTED)  # it was set an hour ahead, or this machine suspended
    assert clock.here(4620.0) == pytest.approx(20.0, abs=0.001)


async def test_a_turn_is_given_back_to_the_limit_under_which_it_was_drawn(town, monkeypatch):
    """Those that were drawn without one, or under another, do not count towards the new one."""
    monkeypatch.setattr(distributed, "BACKOFF", 0.1)
    monkeypatch.setattr(distributed, "BACKOFF_MAX", 0.2)
    async with town(40) as here, here.worker(concurrency=40) as worker:
        here.set(controls.at_rate(500))
        here.service.latency = 1.0
        here.service.fail_init(*[Fault(429)] * 20)
        running = asyncio.create_task(worker.run())
        await here.until(lambda: here.service.inits.total() >= 20)
        here.set(controls.with_limit(2))
        asked = here.service.inits.total()
        await running
        assert here.service.inits.total() - asked <= 2 + 10  # and what had been begun
        assert here.ask("SELECT turns_left FROM controls") == [(0,)]
        here.service.inits.clear()  # which counts what was refused too


async def test_a_call_that_is_in_doubt_counts_towards_the_limit_though_its_row_was_swept_meanwhile(town):
    async with town(3) as here:
        here.set(controls.with_limit(1), controls.allowing_doubts(1))
        here.service.latency = 2.5
        async with (
            PostgresLedger(here.url, patience=10) as ledger,
            TeniosClient("key", base_url=here.base_url, timeout=1.5) as client,
        ):
            await Worker(ledger, client, heartbeat=1.0, polling=FAST, left_alone=0.3).run()
        assert here.service.inits.total() == 1
        assert here.states() == {"UNKNOWN": 1, "QUEUED": 2}
        assert here.ask("SELECT turns_left, reason FROM controls, calls WHERE calls.state = 'UNKNOWN'") == [
            (0, "no answer in time")
        ]


async def test_without_a_rate_one_moment_is_as_good_as_another():
    turns = Turns(Given((2, 0.0, 0.0)))
    for _ in range(2):
        turn = await turns.take()
        assert math.isinf(turn.moment)
        assert await turns.arrive(turn, -60) == turn


@pytest.mark.looptime
async def test_a_call_leaves_at_its_moment_however_long_its_intent_takes():
    turns, loop = Turns(Given((1, 0.3, 1.0), (1, 0.5, 1.0), (1, 0.5, 1.0))), asyncio.get_running_loop()
    began = loop.time()
    turn = await turns.take()
    assert turn.moment == pytest.approx(began + 0.3) == loop.time()  # nothing is known of intents yet
    await asyncio.sleep(0.2)  # this one takes long: its moment has passed, and it gets another
    assert (await turns.arrive(turn, turn.moment)).moment == loop.time() == pytest.approx(turn.moment + 0.7)
    turn = await turns.take()
    assert turn.moment == pytest.approx(loop.time() + 0.2)  # the next one is begun so much earlier
    assert await turns.arrive(turn, loop.time()) == turn
    assert loop.time() == pytest.approx(turn.moment)


@pytest.mark.looptime
async def test_a_call_whose_intent_is_written_does_not_wait_for_ever_for_a_turn():
    turns, loop = Turns(Given()), asyncio.get_running_loop()
    assert not await turns.arrive(Turn(loop.time() - 1, 7), loop.time())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *((controls.at_rate, value) for value in (0, math.nan, "5/s")),
        *((controls.with_limit, value) for value in (-1, 0.5, "5")),
        *((controls.allowing_doubts, value) for value in (2, "5%")),
    ],
)
async def test_settings_that_are_none(setting, value):
    with pytest.raises(ValueError, match="must be"):
        setting(value)
    with pytest.raises(ValueError, match="zone"):
        controls.within_hours("9-18", "Mars/Olympus")
