"""`tenios batch` on a campaign in PostgreSQL: the same commands, more of them, and no password anywhere."""

import json
import signal
import sys

import pytest

from tenios_async.batch import Hours
from tenios_async.batch.postgres_session import PostgresSession
from tenios_async.batch.postgres_url import PostgresURL
from tenios_async.simulator import Fault, Manner, Script

pytestmark = pytest.mark.usefixtures("impatient")
AT_ONCE = Script((("DISCONNECTED", 0.0),))
ENDLESS = Script((("CALLING_A", 0.0), ("CALLING_B", 3600.0)))
NUMBERS = [f"+4922112345{index}" for index in range(5)]
PASSWORD = "s3cret-of-the-database"


@pytest.fixture
def url(postgres_url, configured, service, tmp_path, environment):
    """Where a campaign may be made; with a password that nobody asks for."""
    environment.chdir(tmp_path)
    service._script = AT_ONCE
    (tmp_path / "contacts.csv").write_text("callback_number,name\n" + "".join(f"{number},x\n" for number in NUMBERS))
    return postgres_url.replace("tester@", f"tester:{PASSWORD}@")


@pytest.fixture
def batch(tenios):
    def call(*arguments):
        done = tenios("batch", *arguments)
        assert PASSWORD not in done.out + done.err
        assert not any(number in done.out + done.err for number in NUMBERS)
        return done

    return call


@pytest.fixture
def ledger(batch, url):
    assert batch("create", "contacts.csv", url, "--prefix", "+49").code == 0
    return url


def test_a_campaign_from_its_list_to_its_export(ledger, batch, service, tmp_path):
    (tmp_path / "more.csv").write_text(f"callback_number\n{NUMBERS[0]}\n+49221999999\n")
    (tmp_path / "out.txt").write_text("+49221999999\n")
    (added,) = batch("add", ledger, "more.csv", "--json").events
    assert (added["taken"], added["repeated"]) == (1, 1)
    rehearsed = batch("run", ledger, "--dry-run", "--rate", "1/s")
    assert "would call 6" in rehearsed.out
    assert not service.inits
    done = batch("run", ledger, "--report", "report.html", "--rate", "100/s", "--opt-out", "out.txt")
    assert done.code == 0
    assert "1 contacts are on the opt-out list" in done.out
    assert "5 talked" in done.out
    assert service.inits == dict.fromkeys(NUMBERS, 1)
    assert PASSWORD not in (tmp_path / "report.html").read_text()
    assert batch("worker", ledger, "--concurrency", 500).code == 0
    (status,) = batch("status", ledger, "--json").events
    assert (status["talked"], status["refused"]) == (5, 1)
    assert "Reached" in batch("status", ledger).out
    assert batch("report", ledger, "other.html").code == 0
    assert batch("export", ledger, "result.jsonl").code == 0
    rows = [json.loads(line) for line in (tmp_path / "result.jsonl").read_text().splitlines()]
    assert [row["callback_number"] for row in rows] == [*NUMBERS, "+49221999999"]
    assert {row["tenios_status"] for row in rows} == {"DISCONNECTED", None}
    events = batch("run", ledger, "--json").events
    assert (events[-1]["event"], events[-1]["finished"]) == ("ended", {"DISCONNECTED": 5})


def test_doubts_are_listed_and_resolved(ledger, batch, service, postgres):
    service.fail_init(Fault.lost(Manner.DROP), number=NUMBERS[1])
    service.fail_init(Fault.lost(Manner.RESET), number=NUMBERS[2])
    done = batch("run", ledger)
    assert done.code == 4
    assert "2 calls are in doubt" in done.err
    assert [event["line"] for event in batch("resolve", ledger, "--json").events] == [3, 4]
    called_id = next(id_ for id_, callback in service.callbacks.items() if callback.number == NUMBERS[1])
    assert batch("resolve", ledger, "--line", 3, "--called", called_id).code == 0
    early = batch("resolve", ledger, "--line", 4, "--not-called")
    assert (early.code, "on its way" in early.err) == (2, True)
    schema = ledger.rpartition("schema=")[2]
    postgres.execute(
        f"UPDATE {schema}.calls SET intended_at = intended_at - 60, changed_at = changed_at - interval '60 s'"
    )
    assert batch("resolve", ledger, "--line", 4, "--not-called").code == 0
    assert batch("run", ledger).code == 0
    assert service.inits == dict.fromkeys(NUMBERS, 1) | {NUMBERS[2]: 2}


def test_what_holds_for_all_is_shown_and_changed(ledger, batch, service, postgres):
    options = ("--rate", "30/m", "--limit", 7, "--max-unknown", "10%", "--pause", "--json")
    (shown,) = batch("control", ledger, *options).events
    assert shown == {
        "event": "controls", "rate": 0.5, "limit": 7, "is_paused": True, "stopped": None, "hours": None,
        "tz": None, "max_unknown": 0.1,
    }  # fmt: skip
    assert "paused; 0.5 calls a second, over all workers, 7 calls may be placed yet" in batch("control", ledger).out
    assert batch("control", ledger, "--hours", "9-18", "--tz", "UTC", "--json").events[0]["hours"] == "9-18"
    for wrong in (("--hours", "always", "--tz", "UTC"), ("--hours", "9-18"), ("--limit", "no"), ("--rate", "no")):
        assert batch("control", ledger, *wrong).code == 2
    (free,) = batch("control", ledger, "--rate", "none", "--limit", "none", "--hours", "always", "--json").events
    assert (free["rate"], free["limit"], free["hours"]) == (None, None, None)
    assert "going on" in batch("control", ledger, "--resume").out
    assert "stopped for all" in batch("control", ledger, "--stop").out
    done = batch("worker", ledger)
    assert (done.code, "placing was stopped" in done.err) == (5, True)
    assert not service.inits
    schema = ledger.rpartition("schema=")[2]
    postgres.execute(f"UPDATE {schema}.mark SET timeline = '00000000'")
    refused = batch("run", ledger)
    assert (refused.code, "--accept-failover" in refused.err) == (2, True)
    assert not service.inits
    assert batch("control", ledger, "--accept-failover").code == 0
    done = batch("run", ledger, "--limit", 2, "--rate", "100/s")
    assert (done.code, service.inits.total()) == (5, 2)


def test_the_hours_hold_for_all(ledger, batch):
    (shown,) = batch("control", ledger, "--hours", "Mon-Fri 9-18", "--tz", "Europe/Berlin", "--json").events
    assert (shown["hours"], shown["tz"]) == ("Mon-Fri 9-18", "Europe/Berlin")
    assert "in the hours Mon-Fri 9-18 (Europe/Berlin)" in batch("control", ledger).out
    with PostgresSession.read(PostgresURL.parse(ledger)) as session:
        assert session.controls().hours == Hours.parse("Mon-Fri 9-18", tz="Europe/Berlin")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["create", "contacts.csv", "LEDGER", "--prefix", "+49"], "exists"), (["create", "nobody.csv", "OTHER", "--prefix", "+49"], "nobody.csv"),
        (["create", "contacts.csv", "OTHER", "--prefix", "+41", "--max-bad", "2"], "Nothing was taken"),
        (["run", "OTHER"], "there is no ledger"), (["worker", "OTHER"], "there is no ledger"), (["control", "OTHER"], "there is no ledger"),
        (["run", "LEDGER?x#y"], "%23"), (["run", "LEDGER", "--bogus", "LEDGER"], "--bogus"), (["worker", "LEDGER", "LEDGER"], "Unused"),
        (["worker", "campaign.db"], "is a file"), (["control", "campaign.db"], "is a file"), (["migrate", "campaign.db", "other.db"], "is a file"),
        (["migrate", "campaign.db", "OTHER"], "there is no ledger"), (["control", "LEDGER", "--pause", "--stop"], "exclude"),
        (["control", "LEDGER", "--hours", "9-18"], "--tz"), (["worker", "LEDGER", "--concurrency", "0"], "concurrency"),
        (["status", "postgresql://tester:" + PASSWORD + "@%zz/db"], "percent-encoded"),
    ],
)  # fmt: skip
def test_what_is_refused_with_a_line_that_says_why(ledger, batch, service, arguments, says):
    done = batch(*[word.replace("LEDGER", ledger).replace("OTHER", ledger + "_other") for word in arguments])
    assert done.code == 2
    assert says in done.err
    assert not service.inits


def test_a_database_that_is_away_is_8(batch, environment):
    environment.setenv("TENIOS_ACCESS_KEY", "x")
    for command in ("run", "worker", "status", "control"):
        done = batch(command, f"postgresql://tester:{PASSWORD}@127.0.0.1:1/db")
        assert done.code == 8
        assert "127.0.0.1" in done.err


def test_a_file_moves_and_is_not_run_any_more(batch, url, service):
    assert batch("create", "contacts.csv", "campaign.db", "--prefix", "+49").code == 0
    assert batch("run", "campaign.db", "--limit", 2).code == 5
    (moved,) = batch("migrate", "campaign.db", url, "--json").events
    assert moved["rows"] == 5
    for command in (["run", "campaign.db"], ["add", "campaign.db", "contacts.csv"], ["migrate", "campaign.db", url]):
        done = batch(*command)
        assert (done.code, "has moved" in done.err) == (2, True)
    assert batch("status", "campaign.db").code == 0
    assert batch("run", url).code == 0
    assert service.inits == dict.fromkeys(NUMBERS, 1)


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no SIGTERM that a program can catch")
def test_sigterm_leaves_what_is_open_to_the_others(ledger, batch, service, start, postgres):
    service._script = ENDLESS
    worker = start("batch", "worker", ledger, "--json")
    for _ in NUMBERS:
        assert json.loads(worker.stdout.readline())["status"] == "CALLING_A"
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=30)
    assert worker.returncode == 130
    assert "left to the other workers" in err
    assert "Traceback" not in err
    assert PASSWORD not in err
    schema = ledger.rpartition("schema=")[2]
    assert postgres.execute(f"SELECT state, count(*) FROM {schema}.calls GROUP BY state") == [("PLACED", 5)]
    jobs = f"SELECT task_name, status::text, count(*) FROM {schema}.procrastinate_jobs GROUP BY 1, 2"
    assert postgres.execute(jobs) == [("tenios.watch", "todo", 16)]
    assert service.inits == dict.fromkeys(NUMBERS, 1)


def test_a_worker_that_nobody_reads_leaves_what_is_open_to_the_others(ledger, service, start, postgres):
    service._script = ENDLESS
    worker = start("batch", "worker", ledger, "--json")
    worker.stdout.close()
    assert worker.stderr.read() == ""
    assert worker.wait(30) == 141
    schema = ledger.rpartition("schema=")[2]
    states = postgres.execute(f"SELECT DISTINCT state FROM {schema}.calls")
    assert ("PLACED",) in states
    assert set(states) <= {("PLACED",), ("QUEUED",)}
    assert postgres.execute(f"SELECT DISTINCT status::text FROM {schema}.procrastinate_jobs") == [("todo",)]


def test_calls_that_were_placed_and_cannot_be_written_down_are_told_of(ledger, batch, service, postgres):
    """With what to do, once they count as left by this worker."""
    schema = ledger.rpartition("schema=")[2]
    postgres.execute(f"ALTER TABLE {schema}.calls ADD CONSTRAINT is_full CHECK (state <> 'PLACED')")
    done = batch("worker", ledger, "--concurrency", 1)
    assert (done.code, service.inits.total()) == (8, 1)
    assert "--line 2 --called 10" in done.err
    postgres.execute(f"ALTER TABLE {schema}.calls DROP CONSTRAINT is_full")
    postgres.execute(f"UPDATE {schema}.calls SET changed_at = changed_at - interval '60 s'")
    assert batch("worker", ledger).code == 4
    assert batch("resolve", ledger, "--line", 2, "--called", 10).code == 0
    assert batch("worker", ledger).code == 0
    assert service.inits == dict.fromkeys(NUMBERS, 1)


def test_without_the_extra_it_is_one_line(url, batch, monkeypatch):
    from tenios_async.cli import ledgers

    monkeypatch.setattr(ledgers, "find_spec", lambda name: None)
    for command in (["status", url], ["create", "contacts.csv", url, "--prefix", "+49"], ["worker", url]):
        done = batch(*command)
        assert (done.code, "tenios_async[distributed]" in done.err) == (2, True)
