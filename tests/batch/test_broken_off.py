"""Commands on a ledger in PostgreSQL that are killed: all of it is there or nothing, and the same command goes on."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tenios_async.batch import Campaign, LedgerRefused, postgres_campaign
from tenios_async.batch.ledger_file import LedgerFile
from tenios_async.batch.postgres_session import PostgresSession
from tenios_async.batch.postgres_url import PostgresURL

pytestmark = pytest.mark.timeout(180)
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
ROOT = Path(__file__).parents[2]
OPTIONS = ["--config-id", "config", "--prefix", "+49"]
FIRST, MORE = [f"+492211234{index}" for index in range(3)], [f"+492219999{index}" for index in range(2)]
KILLED, DONE, REFUSED = -9, 0, 2


@pytest.fixture
def command():
    """Gives a command to a program that dies after so many steps: how it ended, and how many there are in all."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    words = [sys.executable, "-m", "tests.batch.dying_command"]
    with subprocess.Popen(words, text=True, cwd=ROOT, **pipes) as program:

        def call(steps, *words):
            print(json.dumps([steps, "batch", *map(str, words)]), file=program.stdin, flush=True)
            return tuple(map(int, program.stdout.readline().split()))

        yield call
        program.communicate()


def moments(count):
    """After which of so many steps: the first and last ones, where all but the database's own work is done, and some."""
    return sorted({*range(1, 4), *range(4, count - 4, max(1, count // 4)), *range(count - 4, count + 1)})


@pytest.fixture
def lists(tmp_path):
    """Two lists of contacts."""
    for name, numbers in (("first", FIRST), ("more", MORE)):
        (tmp_path / f"{name}.csv").write_text("\n".join(["callback_number", *numbers, ""]))
    return tmp_path / "first.csv", tmp_path / "more.csv"


def found(url):
    """Whom a ledger has, each with its job; None where there is no ledger."""
    try:
        with PostgresSession.read(PostgresURL.parse(url)) as session:
            placing = "SELECT (args ->> 'row')::int FROM procrastinate_jobs WHERE queueing_lock IS NULL ORDER BY 1"
            rows = list(session.rows())
            assert [row_id for (row_id,) in session.query(placing)] == [row.id for row in rows]
            return [row.key for row in rows]
    except LedgerRefused:
        return None


@needs_fork
def test_create(command, lists, postgres_url):
    def words(url):
        return ("create", lists[0], url, *OPTIONS)

    code, count = command(0, *words(postgres_url))
    assert (code, found(postgres_url)) == (DONE, FIRST)
    ends = []
    for steps in moments(count):
        url = f"{postgres_url}_{steps}"
        assert command(steps, *words(url))[0] == KILLED
        there = found(url)
        assert there in (None, FIRST)
        assert command(0, *words(url))[0] == (DONE if there is None else REFUSED)
        assert found(url) == FIRST
        ends.append(there is None)
    assert ends == sorted(ends, reverse=True)
    assert set(ends) == {True, False}


@needs_fork
def test_add(command, lists, postgres_url):
    def make(url):
        postgres_campaign.create(url, lists[0], callback_config_id="config", prefixes=["+49"])
        return ("add", url, lists[1])

    code, count = command(0, *make(postgres_url))
    assert (code, found(postgres_url)) == (DONE, FIRST + MORE)
    ends = []
    for steps in moments(count):
        words = make(url := f"{postgres_url}_{steps}")
        assert command(steps, *words)[0] == KILLED
        there = found(url)
        assert there in (FIRST, FIRST + MORE)
        assert command(0, *words)[0] == DONE
        assert found(url) == FIRST + MORE
        ends.append(there == FIRST)
    assert ends == sorted(ends, reverse=True)
    assert set(ends) == {True, False}


@needs_fork
def test_migrate(command, lists, postgres_url, tmp_path):
    """At no moment are there two ledgers that may be run."""

    def make(path):
        Campaign.create(path, lists[0], callback_config_id="config", prefixes=["+49"])
        return path

    path = make(tmp_path / "campaign.db")
    assert _may_be_run(path)
    code, count = command(0, "migrate", path, postgres_url)
    assert (code, found(postgres_url)) == (DONE, FIRST)
    ends = []
    for steps in moments(count):
        words = ("migrate", path := make(tmp_path / f"{steps}.db"), url := f"{postgres_url}_{steps}")
        assert command(steps, *words)[0] == KILLED
        there, may_be_run = found(url), _may_be_run(path)
        assert there in (None, FIRST)
        assert there is None or not may_be_run
        assert command(0, *words)[0] == (DONE if there is None else REFUSED)
        assert (found(url), _may_be_run(path)) == (FIRST, False)
        ends.append(there is None)
    assert ends == sorted(ends, reverse=True)
    assert set(ends) == {True, False}


def test_a_migration_keeps_its_mark_while_an_earlier_one_may_still_arrive(lists, postgres, postgres_url, tmp_path):
    """The program was killed, and the server commits what it had begun after the same command was given again."""
    path, url = tmp_path / "campaign.db", PostgresURL.parse(postgres_url)
    Campaign.create(path, lists[0], callback_config_id="config", prefixes=["+49"])
    with LedgerFile.write(path) as file:
        facts = {**file.facts, "moved_from": file.identity}
        postgres_campaign._mark(file, str(url))
    is_begun = threading.Event()

    def fill(session):
        is_begun.set()
        while not postgres.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
            time.sleep(0.01)  # until the other one waits for this

    earlier = threading.Thread(target=PostgresSession.create, args=(url, facts, fill), kwargs={"with_jobs": True})
    earlier.start()
    assert is_begun.wait(30)
    with pytest.raises(LedgerRefused, match="already"):
        postgres_campaign.migrate(path, postgres_url)
    earlier.join()
    assert not _may_be_run(path)


def _may_be_run(path):
    try:
        LedgerFile.write(path).close()
    except LedgerRefused:
        return False
    return True
