"""The ledger in PostgreSQL: several programs, lost acknowledgements, what the database must promise, and its URL."""

import asyncio
import gc
import itertools
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from tenios_async import Callback, CallbackOutcomeUnknown, CallbackRequest, TeniosClient
from tenios_async.batch import (
    IllegalMove,
    LedgerFailed,
    LedgerRefused,
    NewRow,
    RowState,
    controls,
    postgres_link,
    postgres_session,
)
from tenios_async.batch.postgres import PostgresLedger, _Batch
from tenios_async.batch.postgres_link import Link
from tenios_async.batch.postgres_session import PostgresSession, connecting
from tenios_async.batch.postgres_tables import CHANGE
from tenios_async.batch.postgres_url import PostgresURL, is_postgres_url, without_passwords
from tenios_async.batch.row import Resolution
from tenios_async.batch.shared import Shared
from tenios_async.batch.standing import crash, intend, place
from tenios_async.simulator import Fault, Manner, Service, SimulatorServer

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
REQUEST = CallbackRequest("config", "+49221123456")
CALLBACK = Callback(10, "config", 0, NOW)
BACKEND = Path(__file__).with_name("asking.py")


@pytest.fixture
def url(postgres_url):
    """A ledger that is made."""
    PostgresLedger.create(postgres_url)
    return postgres_url


@pytest.fixture
def pauses(monkeypatch):
    """How long was slept each time, and nobody sleeps."""
    noted, sleep = [], asyncio.sleep

    async def note(seconds):
        noted.extend([seconds] if seconds else [])
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", note)
    return noted


# --- the URL

URLS = {
    "postgresql://h/db": ("postgresql://h/db", "tenios", "postgresql://h/db"),
    "postgresql://u:p%40ss@h:5433/db?schema=may": ("postgresql://u:p%40ss@h:5433/db", "may", "postgresql://h:5433/db?schema=may"),
    "postgres://u@h/db?schema=a&sslmode=require": ("postgresql://u@h/db?sslmode=require", "a", "postgresql://h/db?schema=a"),
    "postgresql:///db?host=/run/pg&password=x": ("postgresql:///db?host=/run/pg&password=x", "tenios", "postgresql:///run/pg/db"),
    "postgresql://u:p@h1:1,h2:2/db": ("postgresql://u:p@h1:1,h2:2/db", "tenios", "postgresql://h1:1,h2:2/db"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), URLS.items(), ids=range(len(URLS)))
def test_urls(text, expected):
    url = PostgresURL.parse(text)
    assert (url.conninfo, url.schema, str(url)) == expected
    assert str(url) in repr(url)
    assert "search_path=" + url.schema in connecting(url)


@pytest.mark.parametrize(
    "text",
    [
        "campaign.db", "postgresql://u:s3cret@h/db?schema=", "postgresql://u:s3cret@h/db?schema=Big", "postgresql://u:s3cret@h/db?schema=a&schema=b",
        "postgresql://u:s3cret@h/db?schema=pg_x", "postgresql://u:s3#cret@h/db", "postgresql://u:s3cret@h/db?x", "postgresql://u:s3cret@[h/db",
        "postgresql://u:s3cret@@h/db?foo=s3cret", "postgresql://u:s3cret s3cret@h/db", "postgresql://u:s3%zzcret@h/db",
        'postgresql://h/db?schema=a"b',
    ],
)  # fmt: skip
def test_urls_that_are_none(text):
    with pytest.raises(ValueError, match=r"postgresql|schema") as caught:
        connecting(PostgresURL.parse(text))
    assert "s3" not in str(caught.value)


@pytest.mark.parametrize(("sign", "written"), [(" ", "%20"), ("#", "%23")])
def test_a_url_that_is_none_says_how_a_sign_in_a_password_is_written(sign, written):
    with pytest.raises(ValueError, match=f"in a password it is written {written}"):
        PostgresURL.parse(f"postgresql://u:s3{sign}cret@h/db")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("postgresql://h/db?schema=may", "may"),
        ("postgresql://h/my%20db", "my db"),
        ("postgresql://h", "tenios"),
    ],
)
def test_what_a_url_names_is_called_by_its_schema_or_else_by_its_database(text, name):
    assert PostgresURL.parse(text).name == name


def test_passwords_are_taken_out_of_what_others_quote():
    text = "Unknown option: postgresql://u:s3/cr@et@h/db?sslpassword=s3cret&x=1 and POSTGRES://u:s3cret@h"
    assert without_passwords(text) == "Unknown option: postgresql://***@h/db?sslpassword=***&x=1 and POSTGRES://***@h"
    assert is_postgres_url("Postgres://x")
    assert not is_postgres_url("campaign.db")


@pytest.mark.asyncio
async def test_no_password_is_said_or_logged(postgres, caplog):
    caplog.set_level(logging.DEBUG)
    said = []
    for host in ("127.0.0.1:1", "nobody.invalid"):
        url = PostgresURL.parse(f"postgresql://somebody:s3cret@{host}/db?password=s3cret&connect_timeout=2")
        for opening in (
            lambda url=url: PostgresSession.read(url).__enter__(),
            lambda url=url: PostgresLedger.create(url),
        ):
            with pytest.raises(LedgerFailed) as caught:
                opening()
            said.append(str(caught.value))
        with pytest.raises(LedgerFailed) as caught:
            await PostgresLedger(url, patience=0).__aenter__()
        said.append(repr(caught.value) + repr(url))
    assert "s3cret" not in " ".join(said) + caplog.text
    assert all("127.0.0.1" in text or "nobody" in text for text in said)


# --- what the database must promise


def test_a_ledger_may_be_made_in_a_schema_that_is_there(postgres, postgres_url):
    postgres.execute(f"CREATE SCHEMA {PostgresURL.parse(postgres_url).schema}")
    PostgresLedger.create(postgres_url)
    with PostgresSession.read(PostgresURL.parse(postgres_url)) as session:
        assert session.last() == 0


def test_what_stands_in_its_place_already_is_left_alone(postgres, postgres_url):
    schema = PostgresURL.parse(postgres_url).schema
    postgres.execute(f"CREATE SCHEMA {schema}")
    postgres.execute(f"CREATE TABLE {schema}.facts ()")
    with pytest.raises(LedgerRefused, match="such tables already; nothing was changed"):
        PostgresLedger.create(postgres_url)
    tables = f"SELECT tablename FROM pg_tables WHERE schemaname = '{schema}'"
    assert postgres.execute(tables) == [("facts",)]


def test_of_two_who_make_it_at_once_one_does(postgres, postgres_url):
    url = PostgresURL.parse(postgres_url)
    with ThreadPoolExecutor(1) as thread:

        def others(_):
            making = thread.submit(PostgresLedger.create, url)
            waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            assert any(postgres.execute(waits) for _ in iter(making.done, True))
            return making

        made = []
        PostgresSession.create(url, {"kind": "keyed"}, lambda session: made.append(others(session)))
        with pytest.raises(LedgerRefused, match="such tables already"):
            made[0].result()
    with PostgresSession.read(url) as session:
        assert session.facts == {"kind": "keyed"}


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (psycopg.OperationalError("no\n  route"), "cannot be written or read: no route. Nothing more was dialled"),
        (psycopg.OperationalError(), "cannot be written or read: OperationalError."),
    ],
)
def test_what_the_database_says_is_said_in_one_line(error, says):
    assert f"here {says}" in str(postgres_session.failure("here", error))


@pytest.mark.asyncio
async def test_what_is_no_ledger_is_refused(postgres_url):
    with pytest.raises(LedgerRefused, match="no ledger"):
        await PostgresLedger(postgres_url).__aenter__()
    with pytest.raises(LedgerRefused, match="no ledger"):
        PostgresSession.read(PostgresURL.parse(postgres_url)).__enter__()


@pytest.mark.asyncio
async def test_another_version_is_refused(postgres, url):
    schema = PostgresURL.parse(url).schema
    postgres.execute(f"UPDATE {schema}.mark SET version = 2")
    with pytest.raises(LedgerRefused, match="version 2, and this release writes 1"):
        await PostgresLedger(url).__aenter__()
    with pytest.raises(LedgerRefused, match="version 2"):
        PostgresSession.read(PostgresURL.parse(url)).__enter__()


@pytest.mark.asyncio
async def test_a_database_that_may_forget_is_refused(postgres, url, postgres_url):
    """Its fsync is off."""
    postgres.stop()
    postgres.start("fsync=off")
    try:
        with pytest.raises(LedgerRefused, match="fsync"):
            await PostgresLedger(url).__aenter__()
        with pytest.raises(LedgerRefused, match="fsync"):
            PostgresLedger.create(postgres_url + "_other")
        with PostgresSession.read(PostgresURL.parse(url)) as session:
            assert session.facts == {"kind": "keyed"}
            with pytest.raises(LedgerRefused, match="fsync"):
                session.transaction().__enter__()
    finally:
        postgres.restart()


@pytest.mark.asyncio
async def test_a_commit_that_may_be_forgotten_is_noticed(url, monkeypatch):
    monkeypatch.setattr(postgres_link, "connecting", lambda url: connecting(url, durably=False))
    async with PostgresLedger(url) as ledger:
        row = await ledger.put(NewRow("key", REQUEST))
        with pytest.raises(LedgerRefused, match="synchronous_commit"):
            await ledger.change(row.id, intend("a", NOW))
    monkeypatch.setattr(postgres_session, "connecting", postgres_link.connecting)
    with PostgresSession.write(PostgresURL.parse(url)) as session:
        with pytest.raises(LedgerRefused, match="synchronous_commit"), session.transaction():
            session.put_all([NewRow("other", REQUEST)])
        assert [row.key for row in session.rows()] == ["key"]


@pytest.mark.asyncio
async def test_a_standby_is_no_place_for_a_ledger(postgres, url, postgres_url):
    """Whoever had it open waits for it to become the primary; here not for long."""
    async with PostgresLedger(url, patience=0) as ledger:
        row = await ledger.put(NewRow("key", REQUEST))
        signal = postgres.data / "standby.signal"
        signal.touch()
        await asyncio.to_thread(postgres.restart)
        try:
            with pytest.raises(LedgerFailed, match="terminating"):
                await ledger.by_key("key")
            with pytest.raises(LedgerFailed, match="is a standby"):
                await ledger.by_key("key")
            for opening in (
                PostgresSession.write(PostgresURL.parse(url)).__enter__,
                lambda: PostgresLedger.create(postgres_url + "_other"),
            ):
                with pytest.raises(LedgerRefused, match="name its primary"):
                    opening()
            with pytest.raises(LedgerRefused, match="name its primary"):
                await PostgresLedger(url).__aenter__()
        finally:
            signal.unlink()
            await asyncio.to_thread(postgres.restart)
        assert await ledger.by_key("key") == row


def test_a_ledger_without_its_mark_is_refused(postgres, url):
    postgres.execute(f"DELETE FROM {PostgresURL.parse(url).schema}.mark")
    with pytest.raises(LedgerRefused, match="damaged"):
        PostgresSession.read(PostgresURL.parse(url)).__enter__()


@pytest.mark.parametrize(
    ("new", "says"),
    [
        (NewRow("a\0b", REQUEST), "there is a NUL"),
        (NewRow("a", CallbackRequest("config\0", "+49221123456"), 7), "line 7: there is a NUL"),
    ],
)
def test_a_text_that_postgresql_cannot_hold_is_refused(url, new, says):
    with PostgresSession.write(PostgresURL.parse(url)) as session:
        with pytest.raises(ValueError, match=says), session.transaction():
            session.put_all([NewRow("before", REQUEST), new])
        assert session.last() == 0


@pytest.mark.asyncio
async def test_a_key_that_postgresql_cannot_hold_is_refused(url):
    async with PostgresLedger(url) as ledger:
        with pytest.raises(ValueError, match="there is a NUL"):
            await ledger.by_key("a\0b")


@pytest.mark.asyncio
async def test_after_a_failover_nothing_is_dialled_until_a_person_says_so(postgres, url):
    """To a standby that may have been behind, or to a backup: the ledger may have forgotten who was called."""
    schema = PostgresURL.parse(url).schema
    async with PostgresLedger(url, patience=5) as ledger:
        row = await ledger.put(NewRow("key", REQUEST))
        postgres.execute(f"UPDATE {schema}.mark SET timeline = '00000000'")
        postgres.cut_connections()
        with pytest.raises(LedgerRefused, match="accept-failover"):
            await ledger.change(row.id, intend("a", NOW))
    with pytest.raises(LedgerRefused, match="accept-failover"):
        await PostgresLedger(url).__aenter__()
    with PostgresSession.read(PostgresURL.parse(url)) as session:
        assert [found.key for found in session.rows()] == ["key"]
        with pytest.raises(LedgerRefused, match="accept-failover"):
            session.transaction().__enter__()


# --- as plain programs use it


def test_it_is_called_by_its_schema_and_shown_without_its_password(url):
    with PostgresSession.read(PostgresURL.parse(url.replace("tester@", "tester:s3cret@"))) as session:
        assert (session.name, session.where) == (session._url.schema, str(PostgresURL.parse(url)))


def test_a_ledger_for_single_calls_has_no_jobs(url):
    with PostgresSession.read(PostgresURL.parse(url)) as session:
        assert not session.has_jobs


def test_what_holds_for_all_is_read_as_it_was_set(url):
    with PostgresSession.write(PostgresURL.parse(url)) as session:
        assert session.controls() == controls.Controls()
        session.set(controls.at_rate(2), controls.paused(is_paused=True))
        assert session.controls() == controls.Controls(rate=2, is_paused=True)


def test_a_failover_that_is_accepted_is_one_no_more(postgres, url):
    postgres.execute(f"UPDATE {PostgresURL.parse(url).schema}.mark SET timeline = '00000000'")
    with PostgresSession.read(PostgresURL.parse(url)) as session:
        session.set(controls.accepting(session.timeline))
        with session.transaction():
            session.put_all([NewRow("key", REQUEST)])


@pytest.mark.asyncio
async def test_whoever_is_to_be_called_or_followed_has_a_job(postgres, postgres_url):
    url = PostgresURL.parse(postgres_url)
    PostgresSession.create(url, {}, with_jobs=True)
    with PostgresSession.write(url) as session:
        with session.transaction():
            session.put_all([NewRow(f"{number}", REQUEST) for number in range(2)])
        async with PostgresLedger(url) as ledger:
            await ledger.change_all([(row.id, move) for row in session.rows() for move in (intend("a", NOW), crash())])
        postgres.execute(f"UPDATE {url.schema}.calls SET changed_at = changed_at - interval '1 minute'")
        later = NOW + timedelta(minutes=1)
        first, second = session.rows()
        with session.transaction():
            session.resolve(first, later, who="me", was_called=False)
            session.resolve(second, later, who="me", was_called=True, callback=CALLBACK)
        assert [row.standing.state for row in session.rows()] == [RowState.QUEUED, RowState.PLACED]
        ((shard,),) = session.query("SELECT shard FROM calls WHERE id = ?", (second.id,))
        jobs = list(session.query("SELECT task_name, args FROM procrastinate_jobs ORDER BY id"))
    assert jobs == [
        ("tenios.place", {"row": first.id}),
        ("tenios.place", {"row": second.id}),
        ("tenios.place", {"row": first.id}),
        ("tenios.watch", {"shard": shard}),
    ]


@pytest.mark.asyncio
async def test_of_what_was_said_of_a_call_the_last_counts(postgres, url):
    async with PostgresLedger(url) as ledger:
        row = await ledger.put(NewRow("key", REQUEST))
        with PostgresSession.read(ledger.url) as session:
            for minutes, who, was_called in ((1, "me", False), (2, "you", True)):
                await ledger.change_all([(row.id, intend(who, NOW)), (row.id, crash())])
                postgres.execute(f"UPDATE {ledger.url.schema}.calls SET changed_at = changed_at - interval '1 minute'")
                with session.transaction():
                    session.resolve(row, NOW + timedelta(minutes=minutes), who=who, was_called=was_called)
            assert session.resolutions() == {row.id: Resolution("called", "you", NOW + timedelta(minutes=2))}


@pytest.mark.asyncio
async def test_whoever_stops_in_the_middle_of_a_word_about_a_call_keeps_it_from_nobody_for_long(url):
    async with PostgresLedger(url) as ledger:
        row = await ledger.put(NewRow("key", REQUEST))
        await ledger.change_all([(row.id, intend("a", NOW)), (row.id, crash())])
    with PostgresSession.read(PostgresURL.parse(url)) as session, session.transaction():
        session.resolve(row, NOW, who="me", was_called=True)
        assert list(session.query("SHOW idle_in_transaction_session_timeout")) == [("10s",)]


@pytest.mark.asyncio
async def test_of_those_who_opted_out_whoever_was_called_stays(url):
    async with PostgresLedger(url) as ledger:
        rows = [await ledger.put(NewRow(f"{number}", REQUEST)) for number in range(4)]
        await ledger.change(rows[0].id, intend("a", NOW))
        with PostgresSession.write(ledger.url) as session:
            for count in (2, 0):
                with session.transaction():
                    assert session.exclude(["0", "1", "2", "7"], "opted out", NOW) == count
            assert [row.standing.state for row in session.rows()] == [
                RowState.SENDING, RowState.REFUSED, RowState.REFUSED, RowState.QUEUED,
            ]  # fmt: skip
            assert next(session.rows(RowState.REFUSED)).standing.reason == "opted out"


# --- one program


@pytest.mark.asyncio
async def test_what_is_asked_while_it_is_closed_fails(url):
    ledger = await PostgresLedger(url).__aenter__()
    row = await ledger.put(NewRow("key", REQUEST))
    changing = asyncio.ensure_future(ledger.change(row.id, intend("a", NOW)))
    await asyncio.sleep(0)  # it is asked for
    closing, asking = asyncio.ensure_future(ledger.aclose()), asyncio.ensure_future(ledger.by_key("key"))
    await closing
    assert (await changing).attempt == "a"
    with pytest.raises(LedgerFailed, match="closed"):
        await asking


@pytest.mark.asyncio
async def test_a_further_connection_that_is_closed_asks_nothing_more(url):
    async with PostgresLedger(url) as ledger:
        link = ledger.link()
        asking = asyncio.ensure_future(link.ask("SELECT 1"))
        await asyncio.sleep(0)  # it is asked for
        await link.close()
        assert await asking == [(1,)]
        assert not link._tasks
        with pytest.raises(LedgerFailed, match="closed"):
            await link.ask("SELECT 1")


@pytest.mark.asyncio
async def test_what_the_database_cannot_do_is_a_failure_at_once(url):
    async with PostgresLedger(url) as ledger:
        link = ledger.link()
        with pytest.raises(LedgerFailed, match="nonsense"):
            await link.ask("SELECT 1 FROM nonsense")
        assert await link.ask("SELECT 1") == [(1,)]
        await link.close()


@pytest.mark.asyncio
async def test_a_connection_on_which_something_was_broken_off_is_not_used_again(url):
    link = Link(PostgresURL.parse(url), patience=0)
    (before,) = await link.ask("SELECT pg_backend_pid()")
    with pytest.raises(LedgerFailed, match="cancel"):
        await link.ask("SELECT pg_cancel_backend(pg_backend_pid())")
    (after,) = await link.ask("SELECT pg_backend_pid()")
    assert before != after
    await link.close()


@pytest.mark.asyncio
async def test_whoever_leaves_or_is_refused_leaves_no_connection_behind(postgres, url, postgres_url):
    async with PostgresLedger(url) as ledger:
        await ledger.queued(1)
    with pytest.raises(LedgerRefused) as caught:
        await PostgresLedger(postgres_url + "_other").__aenter__()
    others = "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    assert any(postgres.execute(others) == [] for _ in range(10_000))  # it has no event
    assert "no ledger" in str(caught.value)  # what it holds is held until here


@pytest.mark.asyncio
async def test_what_changes_nothing_is_not_counted_as_a_change(url):
    async with PostgresLedger(url) as ledger:
        row = await ledger.put(NewRow("key", REQUEST))
        await ledger.change(row.id, intend("a", NOW))
        for _ in range(2):
            assert (await ledger.change(row.id, place("a", CALLBACK))).state is RowState.PLACED
        assert await ledger._ask("SELECT changes FROM calls") == [(2,)]


@pytest.mark.asyncio
async def test_what_fails_when_nobody_waits_for_it_any_more_troubles_nobody(postgres, url, caplog):
    async with PostgresLedger(url) as ledger:
        row, link = await ledger.put(NewRow("key", REQUEST)), ledger.link()
        postgres.execute(f"ALTER TABLE {ledger.url.schema}.calls ADD CONSTRAINT is_full CHECK (state <> 'SENDING')")
        waiters = [
            asyncio.ensure_future(ledger.change(row.id, intend("a", NOW))),
            asyncio.ensure_future(link.ask("SELECT 1 / 0")),
        ]
        await asyncio.sleep(0)
        for waiter in waiters:
            waiter.cancel()
        await asyncio.wait(waiters)
        assert all(waiter.cancelled() for waiter in waiters)
        assert await ledger.by_key("key") == row
        await link.close()
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]


@pytest.mark.asyncio
async def test_a_row_that_is_not_there_is_not_changed(url):
    async with PostgresLedger(url) as ledger:
        with pytest.raises(LedgerRefused, match="no row 7"):
            await ledger.change(7, intend("a", NOW))


@pytest.mark.asyncio
async def test_rows_are_loaded_by_their_numbers_for_many_who_ask_at_once(url):
    async with PostgresLedger(url) as ledger:
        first, second = [await ledger.put(NewRow(f"{number}", REQUEST)) for number in range(2)]
        loads = [ledger.load([second.id, 7, first.id]), ledger.load([]), ledger.load([first.id])]
        assert await asyncio.gather(*loads) == [[second, None, first], [], [first]]


@pytest.mark.asyncio
async def test_changes_that_are_asked_for_at_once_share_a_commit(url):
    async with PostgresLedger(url) as ledger:
        rows = [await ledger.put(NewRow(f"{number}", REQUEST)) for number in range(20)]
        await asyncio.gather(*(ledger.change(row.id, intend("a", NOW)) for row in rows))
        assert await ledger._ask("SELECT count(DISTINCT xmin::text) FROM calls") == [(1,)]


@pytest.mark.asyncio
async def test_a_commit_is_of_no_more_changes_than_one_piece_holds(url, monkeypatch):
    monkeypatch.setattr(postgres_link, "LARGEST", 5)
    async with PostgresLedger(url) as ledger:
        rows = [await ledger.put(NewRow(f"{number}", REQUEST)) for number in range(13)]
        changes = iter([(row.id, intend("a", NOW)) for row in rows])
        asked = [ledger.change_all(list(itertools.islice(changes, count))) for count in (1, 3, 2, 2, 4, 1)]
        assert [len(results) for results in await asyncio.gather(*asked)] == [1, 3, 2, 2, 4, 1]
        commits = "SELECT count(*)::int FROM calls GROUP BY xmin::text ORDER BY min(id)"
        assert await ledger._ask(commits) == [(4,), (4,), (5,)]


@pytest.mark.asyncio
async def test_what_is_remembered_of_a_row_is_not_asked_for_again(url, monkeypatch):
    async with PostgresLedger(url) as ledger:
        rows = [await ledger.put(NewRow(f"{number}", REQUEST)) for number in range(2)]
        await ledger.load([row.id for row in rows])
        monkeypatch.delattr(_Batch, "_look")
        for row in rows:
            await ledger.change(row.id, intend("a", NOW))
            assert (await ledger.change(row.id, place("a", CALLBACK))).callback_id == 10


@pytest.mark.asyncio
async def test_not_every_row_is_remembered(url, monkeypatch):
    """A program that runs for long sees many, and forgets."""
    monkeypatch.setattr("tenios_async.batch.postgres.REMEMBERED", 2)
    async with PostgresLedger(url) as ledger:
        rows = [await ledger.put(NewRow(f"{number}", REQUEST)) for number in range(5)]
        for move in (intend("a", NOW), place("a", CALLBACK)):
            for row in rows:
                assert (await ledger.change(row.id, move)).attempt == "a"
                assert len(ledger._known) <= 2
        assert (await ledger.counts())[RowState.PLACED] == 5


# --- several programs


@pytest.mark.asyncio
async def test_of_many_programs_one_makes_the_change(url):
    ledgers = [PostgresLedger(url) for _ in range(5)]
    for ledger in ledgers:
        await ledger.__aenter__()
    rows = [await ledgers[0].put(NewRow(f"key {number}", REQUEST)) for number in range(20)]
    for ledger in ledgers:
        await ledger.load([row.id for row in rows])  # what each of them remembers is soon out of date
    for row in rows:
        tries = [ledger.change(row.id, intend(f"{number}", NOW)) for number, ledger in enumerate(ledgers)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["IllegalMove"] * 4 + ["Standing"]
    for ledger in ledgers:
        await ledger.aclose()


@pytest.mark.asyncio
async def test_what_another_program_has_done_in_the_same_way_is_not_taken_for_ones_own(url):
    async with PostgresLedger(url) as first, PostgresLedger(url) as second:
        row = await first.put(NewRow("key", REQUEST))
        await first.change(row.id, intend("a", NOW))
        await second.load([row.id])
        await first.change(row.id, crash())
        with pytest.raises(IllegalMove):
            await second.change(row.id, crash())


@pytest.mark.asyncio
async def test_of_several_who_stop_the_calls_the_first_does_and_its_reason_counts(url):
    async with PostgresLedger(url) as ledger, Shared(ledger) as first, Shared(ledger) as second:
        assert await first.change(controls.stopped("mine"))
        assert not await second.change(controls.stopped("yours"))
        assert (await second.controls()).stopped == "mine"


@pytest.mark.asyncio
async def test_what_is_remembered_proves_no_refusal(url):
    """Another program has given the row back since."""
    async with PostgresLedger(url) as first, PostgresLedger(url) as second:
        row = await first.put(NewRow("key", REQUEST))
        await first.change(row.id, intend("a", NOW))
        await first.change(row.id, crash())
        with PostgresSession.read(PostgresURL.parse(url)) as session:
            session.connection.execute("UPDATE calls SET changed_at = changed_at - interval '1 minute'")
            with session.transaction():
                session.resolve(row, NOW + timedelta(minutes=1), who="me", was_called=False)
        assert (await first.change(row.id, intend("b", NOW))).attempt == "b"
        assert (await second.change(row.id, place("b", CALLBACK))).callback_id == 10
        assert (await first.change(row.id, place("b", CALLBACK))).callback_id == 10


@pytest.mark.asyncio
async def test_a_clock_that_is_ahead_frees_no_call_that_may_be_on_its_way(url):
    async with PostgresLedger(url) as ledger:
        row = await ledger.put(NewRow("key", REQUEST))
        await ledger.change(row.id, intend("a", NOW))
        await ledger.change(row.id, crash())
    with PostgresSession.read(PostgresURL.parse(url)) as session:
        with pytest.raises(IllegalMove, match="on its way"), session.transaction():
            session.resolve(row, NOW + timedelta(minutes=1), who="me", was_called=False)


@pytest.mark.asyncio
async def test_place_once_from_several_programs(url):
    """Web backends that know nothing of each other."""
    service = Service()
    async with SimulatorServer(service) as server, TeniosClient("key", base_url=server.base_url) as client:
        async with PostgresLedger(url) as first, PostgresLedger(url) as second, PostgresLedger(url) as third:
            asked = [
                ledger.place_once(client, CallbackRequest("config", f"+4922100000{key}"), key=f"order {key}")
                for key in range(10)
                for ledger in (first, second, third) * 3
            ]
            callbacks = await asyncio.gather(*asked)
    assert len(set(callbacks)) == 10
    assert set(service.inits.values()) == {1}


@pytest.mark.asyncio
async def test_place_once_from_several_processes(url):
    """All ask at once, each for itself, for calls that are placed and calls whose answers are lost."""
    service = Service()
    service.latency = 0.05  # so that the others find it on its way
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    async with SimulatorServer(service) as server:
        command = [sys.executable, BACKEND, url, server.base_url]
        backends = [await asyncio.create_subprocess_exec(*command, **pipes) for _ in range(4)]
        for backend in backends:
            assert await backend.stdout.readline() == b"open\n"
        for key in range(12):
            is_lost = key % 3 == 2
            if is_lost:
                service.fail_init(Fault.lost(Manner.DROP))
            for backend in backends:
                backend.stdin.write(f"order-{key} +4922100000{key:02}\n".encode())
            (answer,) = {await backend.stdout.readline() for backend in backends}
            assert (b"in doubt" in answer) is is_lost
        for backend in backends:
            backend.stdin.close()
            assert await backend.wait() == 0
    assert service.inits == {f"+4922100000{key:02}": 1 for key in range(12)}


@pytest.mark.asyncio
async def test_whoever_asks_while_another_program_places_it_waits_for_what_becomes_of_it(url):
    async with PostgresLedger(url) as first, PostgresLedger(url) as second:
        rows = [await first.put(NewRow(f"{number}", REQUEST)) for number in range(2)]
        await first.change_all([(row.id, intend("a", NOW)) for row in rows])
        asked = [asyncio.ensure_future(second.place_once(TeniosClient("key"), REQUEST, key=row.key)) for row in rows]
        done, _ = await asyncio.wait(asked, timeout=0.3)
        assert not done
        await first.change(rows[0].id, place("a", CALLBACK))
        await first.change(rows[1].id, crash())
        assert await asked[0] == CALLBACK
        with pytest.raises(CallbackOutcomeUnknown, match="ended while"):
            await asked[1]


@pytest.mark.asyncio
async def test_whoever_waits_for_another_program_asks_ever_more_seldom(url, pauses):
    async with PostgresLedger(url) as first, PostgresLedger(url) as second:
        row = await first.put(NewRow("key", REQUEST))
        await first.change(row.id, intend("a", NOW))
        asking = asyncio.ensure_future(second.place_once(TeniosClient("key"), REQUEST, key="key"))
        while len(pauses) < 6:
            await first.by_key("key")
        await first.change(row.id, place("a", CALLBACK))
        assert await asking == CALLBACK
    assert pauses[:6] == [0.05, 0.1, 0.2, 0.4, 0.5, 0.5]


@pytest.mark.asyncio
async def test_closing_waits_for_no_call_of_another_program(url):
    async with PostgresLedger(url) as first:
        row = await first.put(NewRow("key", REQUEST))
        await first.change(row.id, intend("a", NOW))
        async with PostgresLedger(url) as second:
            asking = asyncio.ensure_future(second.place_once(TeniosClient("key"), REQUEST, key="key"))
            done, _ = await asyncio.wait([asking], timeout=0.3)
            assert not done
        with pytest.raises(CallbackOutcomeUnknown, match="by somebody else"):
            await asking


@pytest.mark.asyncio
async def test_a_call_of_a_program_that_died_is_in_doubt_after_a_while_and_its_answer_still_counts(url):
    async with PostgresLedger(url) as ledger:
        row = await ledger.put(NewRow("key", REQUEST))
        await ledger.change(row.id, intend("a", NOW))
        assert not await ledger.give_up_on(row.id, 60)
        await asyncio.sleep(0.05)
        assert await ledger.give_up_on(row.id, 0.01)
        assert (await ledger.by_key("key")).standing.state is RowState.UNKNOWN
        assert (await ledger.change(row.id, place("a", CALLBACK))).state is RowState.PLACED
        assert not await ledger.give_up_on(row.id, 0)


@pytest.mark.asyncio
async def test_whoever_asks_for_a_call_of_a_program_that_died_learns_that_it_is_in_doubt(postgres, url):
    async with PostgresLedger(url) as ledger:
        row = await ledger.put(NewRow("key", REQUEST))
        await ledger.change(row.id, intend("a", NOW))
        postgres.execute(f"UPDATE {ledger.url.schema}.calls SET changed_at = changed_at - interval '61 s'")
        with pytest.raises(CallbackOutcomeUnknown, match="ended while"):
            await ledger.place_once(TeniosClient("key"), REQUEST, key="key")


# --- a database that goes away


@pytest.mark.asyncio
async def test_a_database_that_is_away_is_asked_ever_more_seldom(pauses):
    link = Link(PostgresURL.parse("postgresql://u@127.0.0.1:1/db"), patience=60)
    asking = asyncio.ensure_future(link.ask("SELECT 1"))
    while len(pauses) < 7:  # noqa: ASYNC110  # it has no event
        await asyncio.sleep(0)
    await link.close()
    with pytest.raises(LedgerFailed, match="refused"):
        await asking
    assert pauses[:7] == [0.05, 0.1, 0.2, 0.4, 0.8, 1, 1]


@pytest.mark.parametrize("when", ["before it was written", "before its acknowledgement"])
@pytest.mark.asyncio
async def test_a_connection_that_is_lost_while_a_change_is_written(url, monkeypatch, when):
    """The row is read again, and neither written twice nor taken for somebody else's."""
    write, losses = _Batch._write, []

    async def losing(self, connection, change):
        if len(losses) < 3:
            losses.append(when)
            if when == "before its acknowledgement":
                await connection.execute(CHANGE.encode(), change.columns())
            await connection.close()
            raise psycopg.OperationalError("the connection was lost")
        await write(self, connection, change)

    async with PostgresLedger(url, patience=10) as ledger:
        rows = [await ledger.put(NewRow(f"{number}", REQUEST)) for number in range(3)]
        monkeypatch.setattr(_Batch, "_write", losing)
        changes = [(row.id, intend("mine", NOW)) for row in rows] + [(rows[1].id, place("mine", CALLBACK))]
        results = await ledger.change_all(changes)
        assert [result.state for result in results] == [RowState.SENDING] * 3 + [RowState.PLACED]
        assert (await ledger.change(rows[0].id, place("mine", CALLBACK))).state is RowState.PLACED
    with PostgresSession.read(PostgresURL.parse(url)) as session:
        assert list(session.query("SELECT changes FROM calls ORDER BY id")) == [(2,), (1,), (1,)]
    assert losses


@pytest.mark.parametrize("is_made", [True, False])
@pytest.mark.parametrize("only_once", [True, False])
@pytest.mark.asyncio
async def test_what_is_made_only_once_is_not_made_again_where_its_connection_is_lost(
    url, monkeypatch, only_once, is_made
):
    execute, losses = psycopg.AsyncConnection.execute, []
    adding = "UPDATE calls SET polls = polls + 1"

    async def losing(connection, query, values=()):
        if query == adding.encode() and not losses:
            losses.append(1)
            if is_made:
                await execute(connection, query, values)
            await connection.close()
            raise psycopg.OperationalError("the connection was lost")
        return await execute(connection, query, values)

    async with PostgresLedger(url) as ledger:
        row = await ledger.put(NewRow("key", REQUEST))
        link = ledger.link()
        monkeypatch.setattr(psycopg.AsyncConnection, "execute", losing)
        assert await link.tell(adding, only_once=only_once) == (0 if only_once else 1)
        (once,) = await ledger.load([row.id])
        assert once.standing.polls == is_made + (not only_once)
        assert await link.tell(adding, only_once=only_once) == 1
        await link.close()


@pytest.mark.asyncio
async def test_a_commit_that_comes_after_its_row_was_looked_at_again_is_no_other_change(url, monkeypatch):
    """As behind a standby that is waited for: its connection is lost, and what it wrote is seen by nobody yet."""
    write, held = _Batch._write, []

    async def losing(self, connection, change):
        if not held:
            held.append(await psycopg.AsyncConnection.connect(connecting(PostgresURL.parse(url))))
            await held[0].execute(CHANGE.encode(), change.columns())
            await connection.close()
            raise psycopg.OperationalError("the connection was lost")
        again, waiting = asyncio.create_task(write(self, connection, change)), []
        while not waiting:
            waiting = await (await held[0].execute("SELECT FROM pg_locks WHERE NOT granted")).fetchall()
        await held[0].commit()
        await held[0].close()
        await again

    async with PostgresLedger(url, patience=10) as ledger:
        rows = [await ledger.put(NewRow(f"{number}", REQUEST)) for number in range(3)]
        monkeypatch.setattr(_Batch, "_write", losing)
        changes = [(row.id, intend("mine", NOW)) for row in rows]
        results = await ledger.change_all([*changes, (rows[1].id, place("mine", CALLBACK)), changes[2]])
        assert [getattr(result, "state", None) for result in results] == [RowState.SENDING] * 3 + [
            RowState.PLACED,
            None,
        ]
    with PostgresSession.read(PostgresURL.parse(url)) as session:
        assert list(session.query("SELECT changes FROM calls ORDER BY id")) == [(1,), (1,), (1,)]


@pytest.mark.asyncio
async def test_after_a_lost_acknowledgement_what_somebody_else_did_since_counts(url, monkeypatch):
    """The intent had been written, and the row was put in doubt before it was looked at again: nothing is sent."""
    write, lost = _Batch._write, []
    async with PostgresLedger(url, patience=10) as ledger, PostgresLedger(url) as other:
        row = await ledger.put(NewRow("key", REQUEST))

        async def losing(self, connection, change):
            if lost:
                return await write(self, connection, change)
            lost.append(1)
            await connection.execute(CHANGE.encode(), change.columns())
            await other.change(row.id, crash())
            await connection.close()
            raise psycopg.OperationalError("the connection was lost")

        monkeypatch.setattr(_Batch, "_write", losing)
        with pytest.raises(IllegalMove):
            await ledger.change(row.id, intend("mine", NOW))
        assert (await other.by_key("key")).standing.state is RowState.UNKNOWN


@pytest.mark.parametrize("how", ["fast", "immediate"])
@pytest.mark.asyncio
async def test_a_restart_is_sat_out(postgres, url, how):
    async with PostgresLedger(url, patience=30) as ledger:
        row = await ledger.put(NewRow("key", REQUEST))
        restarting = asyncio.create_task(asyncio.to_thread(postgres.restart, how, away=0.5))
        names = [f"attempt {number}" for number in range(30)]
        outcomes = []
        for name in names:
            try:
                outcomes.append(await ledger.change(row.id, intend(name, NOW)))
            except IllegalMove:
                outcomes.append(None)
            await asyncio.sleep(0.05)
        await restarting
        (won,) = [outcome for outcome in outcomes if outcome is not None]
        assert (await ledger.by_key("key")).standing == won


@pytest.mark.asyncio
async def test_a_database_that_stays_away_is_a_failure_and_nothing_is_dialled(postgres, url):
    service = Service()
    async with SimulatorServer(service) as server, TeniosClient("key", base_url=server.base_url) as client:
        async with PostgresLedger(url, patience=0.3) as ledger:
            await ledger.put(NewRow("key", REQUEST))
            await asyncio.to_thread(postgres.stop, "immediate")
            try:
                with pytest.raises(LedgerFailed, match="Nothing more was dialled"):
                    await ledger.place_once(client, REQUEST, key="key")
            finally:
                await asyncio.to_thread(postgres.start)
            assert service.inits.total() == 0
            assert (await ledger.place_once(client, REQUEST, key="key")).id == 10  # it is back


@pytest.mark.asyncio
async def test_connections_are_cut_in_the_middle_of_many_calls(postgres, url):
    service = Service()
    service.fail_init(*[Fault.lost(Manner.DROP)] * 3)
    async with SimulatorServer(service) as server, TeniosClient("key", base_url=server.base_url) as client:
        async with PostgresLedger(url, patience=30) as first, PostgresLedger(url, patience=30) as second:

            async def cut():
                while True:
                    await asyncio.sleep(0.03)
                    await asyncio.to_thread(postgres.cut_connections, 0.5)

            cutting = asyncio.create_task(cut())
            requests = [CallbackRequest("config", f"+4922100{number:04}") for number in range(150)]
            asked = [
                ledger.place_once(client, request, key=request.callback_number)
                for request in requests
                for ledger in (first, second)
            ]
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
            cutting.cancel()
            await asyncio.wait([cutting])
            counts = await first.counts()
    service.assert_nobody_called_twice()
    assert {type(outcome) for outcome in outcomes} <= {Callback, CallbackOutcomeUnknown}
    assert (counts[RowState.PLACED], counts[RowState.UNKNOWN]) == (147, 3)
