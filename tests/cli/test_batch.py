"""`tenios batch`: what each command does, says and ends with."""

import contextlib
import csv
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import attrs
import pytest

from tenios_async.batch import RowState
from tenios_async.batch.cells import unguarded
from tenios_async.batch.ledger_file import LedgerFile
from tenios_async.cli import campaigns
from tenios_async.simulator import Fault, Manner, Script

AT_ONCE = Script((("DISCONNECTED", 0.0),))
ENDLESS = Script((("CALLING_A", 0.0), ("CALLING_B", 3600.0)))
NUMBERS = [f"+4922112345{index}" for index in range(5)]


@pytest.fixture
def ledger(configured, service, tenios, tmp_path, environment):
    environment.chdir(tmp_path)
    service._script = AT_ONCE
    (tmp_path / "contacts.csv").write_text("callback_number,name\n" + "".join(f"{number},x\n" for number in NUMBERS))
    assert tenios("batch", "create", "contacts.csv", "campaign.db", "--prefix", "+49").code == 0
    return tmp_path / "campaign.db"


def show(done):
    """Nobody's number is shown unless asked for."""
    assert not any(number in done.out + done.err for number in NUMBERS)
    return done


def a_minute_passes(path):
    with LedgerFile.read(path) as ledger, ledger.transaction():
        for row in ledger.rows(RowState.UNKNOWN):
            ago = row.standing.intended_at - timedelta(minutes=1)
            ledger.change(row.id, lambda standing, ago=ago: attrs.evolve(standing, intended_at=ago))


def test_create_says_what_it_took_and_calls_nobody(ledger, tenios, service, tmp_path):
    (tmp_path / "more.csv").write_text(f"Telefon;x\n{NUMBERS[0]};\n+43123456789;\n0221 999999;\n")
    options = ("--column", "callback_number=Telefon", "--region", "DE", "--rejects", "rejects.csv", "--json")
    (event,) = tenios("batch", "create", "more.csv", "second.db", *options).events
    assert (event["taken"], event["bad"], event["repeated"]) == (2, 1, 0)
    assert "country" in (tmp_path / "rejects.csv").read_text()
    assert not service.inits


def test_what_is_said_of_a_file_without_a_known_column_can_be_followed(configured, tenios, tmp_path, environment):
    environment.chdir(tmp_path)
    (tmp_path / "d.csv").write_text(f"Name,Nummer\nA,{NUMBERS[0]}\n")
    command = ("batch", "create", "d.csv", "b.db", "--prefix", "+49")
    done = tenios(*command)
    assert done.code == 2
    (advice,) = re.findall(r"--column \S+=NAME", done.err)
    done = tenios(*command, *advice.replace("NAME", "Nummer").split(), "--json")
    assert (done.code, done.events[0]["taken"]) == (0, 1)
    done = tenios("batch", "add", "b.db", "d.csv", "--column", "number=Nummer")
    assert "fields are callback_number, callback_config_id, delay" in done.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["create", "contacts.csv", "campaign.db", "--prefix", "+49"], "exists"),
        (["create", "contacts.csv", "new.db"], "--region"),
        (["create", "nobody.csv", "new.db", "--prefix", "+49"], "nobody.csv"),
        (["create", "contacts.csv", "new.db", "--prefix", "+49", "--column", "x"], "--column"),
        (["create", "contacts.csv", "new.db", "--prefix", "+41", "--max-bad", "2"], "Nothing was taken"),
        (["run", "missing.db"], "there is no ledger"), (["run", "contacts.csv"], "not a ledger"),
        (["status", "missing.db"], "there is no ledger"), (["report", "missing.db", "x.html"], "there is no ledger"),
        (["create", "contacts.csv", "new.db", "--prefix", "+49", "--config-id", ""], "--config-id"),
        (["run", "campaign.db", "--tz", "Europe/Berlin"], "give both"),
        (["resolve", "campaign.db", "--line", "2", "--called", "7", "--called", "8"], "one id"),
        (["run", "campaign.db", "--rate", "fast"], "5/s"), (["run", "campaign.db", "--hours", "9-18"], "--tz"),
        (["run", "campaign.db", "--hours", "late", "--tz", "Europe/Berlin"], "hours"), (["run", "campaign.db", "--max-unknown", "200%"], "5%"),
        (["run", "campaign.db", "--concurrency", "0"], "concurrency"), (["export", "campaign.db", "x.xls"], ".csv"),
        (["resolve", "campaign.db", "--called", "--not-called"], "exclude"), (["resolve", "campaign.db", "--called"], "--line"),
        (["resolve", "campaign.db", "--line", "2", "--not-called"], "not in doubt"),
        (["resolve", "campaign.db", "--line", "2"], "--not-called"), (["resolve", "campaign.db", "--who", "A"], "--not-called"),
        (["resolve", "campaign.db", "--all", "--called", "7"], "one call"),
        (["report", "campaign.db", "x.html", "--tz", "Mars/Olympus"], "no time zone 'Mars/Olympus'"),
        (["report", "campaign.db", "x.html", "--tz", "Europe"], "no time zone 'Europe'; write for instance Europe/Berlin"),
        (["add", "campaign.db", "nobody.csv"], "nobody.csv"), (["create", "contacts.csv", "missing/new.db", "--prefix", "+49"], "missing/new.db"),
    ],
)  # fmt: skip
def test_what_is_refused_with_a_line_that_says_why(ledger, tenios, service, tmp_path, arguments, says):
    done = show(tenios("batch", *arguments))
    assert done.code == 2
    assert says in done.err
    assert not service.inits
    assert not (tmp_path / "new.db").exists()


def test_a_run_calls_everybody_once_and_says_so(ledger, tenios, service, tmp_path):
    done = show(tenios("batch", "run", "campaign.db", "--report", "report.html"))
    assert done.code == 0
    assert service.inits == dict.fromkeys(NUMBERS, 1)
    assert "5 of 5 placed" in done.out
    assert "the report is in report.html" in done.out
    assert "5 talked" in done.out
    assert "5 (100 %)" in done.out.replace("\xa0", " ")
    assert "<html" in (tmp_path / "report.html").read_text()
    assert tenios("batch", "run", "campaign.db").code == 0
    assert service.inits.total() == 5


def test_a_run_in_json(ledger, tenios, service):
    events = show(tenios("batch", "run", "campaign.db", "--json")).events
    ends = [event for event in events if event["event"] == "transition"]
    assert sorted(event["line"] for event in ends) == [2, 3, 4, 5, 6]
    assert {event["status"] for event in ends} == {"DISCONNECTED"}
    assert events[-1]["event"] == "ended"
    assert (events[-1]["finished"], events[-1]["exit_code"]) == ({"DISCONNECTED": 5}, 0)


def test_numbers_are_shown_to_who_asks(ledger, tenios):
    assert NUMBERS[0] in tenios("batch", "run", "campaign.db", "--dry-run", "--show-numbers").out
    events = tenios("batch", "run", "campaign.db", "--json", "--show-numbers").events
    assert {event["number"] for event in events if event["event"] == "transition"} == set(NUMBERS)


def test_a_rehearsal_calls_nobody(ledger, tenios, service, tmp_path):
    (tmp_path / "stop").touch()
    options = ("--dry-run", "--rate", "30/m", "--limit", 3, "--stop-file", "stop")
    done = show(tenios("batch", "run", "campaign.db", *options))
    assert (done.code, service.inits.total()) == (0, 0)
    assert "would call 3" in done.out
    assert "0:06" in done.out
    assert "stop file" in done.out
    (event,) = tenios("batch", "run", "campaign.db", *options, "--json").events
    assert (event["would_call"], event["seconds"], event["is_stopped"]) == (3, 6, True)


def test_a_rehearsal_says_when_the_hours_begin(ledger, tenios, service):
    in_three_days = f"{datetime.now(UTC) + timedelta(days=3):%a} 9-10"
    options = ("--dry-run", "--hours", in_three_days, "--tz", "UTC")
    done = show(tenios("batch", "run", "campaign.db", *options))
    assert "09:00 UTC, by the hours" in done.out
    (event,) = tenios("batch", "run", "campaign.db", *options, "--json").events
    opens_at = datetime.fromisoformat(event["opens_at"])
    assert (opens_at.hour, opens_at.minute) == (9, 0)
    assert opens_at > datetime.now(UTC)
    assert not service.inits


def test_a_rehearsal_knows_who_opted_out(ledger, tenios, service, tmp_path):
    (tmp_path / "opt-out").write_text(f"{NUMBERS[0]}\n{NUMBERS[3]}\n+49221999999\n")
    done = show(tenios("batch", "run", "campaign.db", "--dry-run", "--opt-out", "opt-out"))
    assert "would call 3" in done.out
    assert "2 others are on the opt-out list" in done.out
    assert (done.out.count("***450"), done.out.count("***451")) == (0, 1)
    (event,) = tenios("batch", "run", "campaign.db", "--dry-run", "--opt-out", "opt-out", "--json").events
    assert (event["would_call"], event["opted_out"], event["queued"]) == (3, 2, 5)
    assert "missing" in tenios("batch", "run", "campaign.db", "--dry-run", "--report", "missing/x.html").err
    assert not service.inits


def test_a_limit_leaves_the_rest_for_the_next_run(ledger, tenios, service):
    done = show(tenios("batch", "run", "campaign.db", "--limit", 2))
    assert done.code == 5
    assert "as many" in done.err
    assert service.inits.total() == 2
    assert tenios("batch", "run", "campaign.db").code == 0
    assert service.inits == dict.fromkeys(NUMBERS, 1)


def test_a_wrong_key_stops_it_and_rings_nobody(ledger, tenios, service, environment):
    environment.setenv("TENIOS_ACCESS_KEY", "wrong")
    done = show(tenios("batch", "run", "campaign.db"))
    assert done.code == 3
    assert "configuration id" in done.err
    environment.setenv("TENIOS_ACCESS_KEY", service._access_key)
    assert tenios("batch", "run", "campaign.db").code == 0


def test_doubts_are_listed_and_resolved(ledger, tenios, service):
    service.fail_init(Fault.lost(Manner.DROP), number=NUMBERS[1])
    service.fail_init(Fault.lost(Manner.RESET), number=NUMBERS[2])
    service.fail_init(Fault.error(503), number=NUMBERS[3])
    done = show(tenios("batch", "run", "campaign.db"))
    assert done.code == 4
    assert "3 calls are in doubt" in done.err
    listed = show(tenios("batch", "resolve", "campaign.db", "--json")).events
    assert [event["line"] for event in listed] == [3, 4, 5]
    assert "--not-called" in show(tenios("batch", "resolve", "campaign.db")).out
    called_id = next(id_ for id_, callback in service.callbacks.items() if callback.number == NUMBERS[1])
    assert tenios("batch", "resolve", "campaign.db", "--line", 3, "--called", called_id, "--who", "A. Person").code == 0
    assert tenios("batch", "resolve", "campaign.db", "--number", NUMBERS[2], "--called").code == 0
    early = tenios("batch", "resolve", "campaign.db", "--line", 5, "--not-called")
    assert early.code == 2
    assert "still be on its way" in early.err
    a_minute_passes(ledger)
    assert tenios("batch", "resolve", "campaign.db", "--all", "--not-called").code == 0
    assert tenios("batch", "run", "campaign.db").code == 0
    assert (service.inits[NUMBERS[1]], service.inits[NUMBERS[2]], service.inits[NUMBERS[3]]) == (1, 1, 2)
    assert "nothing is in doubt" in tenios("batch", "resolve", "campaign.db").out


def test_status_report_and_export_while_it_runs(ledger, tenios, service, start, tmp_path):
    service._script = ENDLESS
    running = start("batch", "run", "campaign.db", "--json")
    for _ in NUMBERS:
        assert json.loads(running.stdout.readline())["status"] == "CALLING_A"
    (event,) = tenios("batch", "status", "campaign.db", "--json").events
    assert (event["under_way"], event["queued"]) == (5, 0)
    assert "5" in show(tenios("batch", "status", "campaign.db")).out
    assert tenios("batch", "report", "campaign.db", "report.html", "--tz", "Europe/Berlin").code == 0
    assert tenios("batch", "export", "campaign.db", "out.jsonl").code == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["callback_number"] for row in rows] == NUMBERS
    assert {row["tenios_state"] for row in rows} == {"PLACED"}
    assert (tmp_path / "out.jsonl").stat().st_mode & 0o777 == 0o600
    refused = tenios("batch", "run", "campaign.db")
    assert (refused.code, "in use" in refused.err) == (2, True)
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "what is open is kept" in err
    service._script = AT_ONCE
    for callback_id, callback in list(service.callbacks.items()):
        service.callbacks[callback_id] = attrs.evolve(callback, script=AT_ONCE)
    assert tenios("batch", "run", "campaign.db").code == 0
    assert service.inits == dict.fromkeys(NUMBERS, 1)


def test_who_opted_out_since_is_not_called(ledger, tenios, service, tmp_path):
    (tmp_path / "opt-out").write_text(f"{NUMBERS[1]}\n+41446681800\n")
    done = show(tenios("batch", "run", "campaign.db", "--opt-out", "opt-out"))
    assert (done.code, service.inits[NUMBERS[1]], service.inits.total()) == (0, 0, 4)
    assert "1 refused" in done.out
    (tmp_path / "opt-out").write_text("12\n")
    assert tenios("batch", "run", "campaign.db", "--opt-out", "opt-out").code == 2


def test_ctrl_c_while_the_list_is_read_leaves_nothing(ledger, start, tmp_path):
    """The list goes on until nobody reads it: a process that is about to wait for more would not notice the signal."""
    os.mkfifo(tmp_path / "endless.csv")
    creating = start("batch", "create", "endless.csv", "new.db", "--prefix", "+49")
    pipe = os.open(tmp_path / "endless.csv", os.O_WRONLY)
    os.write(pipe, b"callback_number\n")
    creating.send_signal(signal.SIGINT)
    with contextlib.suppress(BrokenPipeError):
        while True:
            os.write(pipe, b"+49221123456\n")
    os.close(pipe)
    _, err = creating.communicate(timeout=30)
    assert (creating.returncode, "Traceback" in err) == (130, False)
    assert not list(tmp_path.glob("new.db*"))


def test_added_contacts_are_called_too(ledger, tenios, service, tmp_path):
    tenios("batch", "run", "campaign.db")
    (tmp_path / "more.csv").write_text(f"callback_number\n{NUMBERS[0]}\n+49221999999\n")
    assert "1 contact is taken" in tenios("batch", "add", "campaign.db", "more.csv").out
    tenios("batch", "run", "campaign.db")
    assert service.inits == dict.fromkeys([*NUMBERS, "+49221999999"], 1)


def test_a_disk_that_is_full_is_8(ledger, tenios, service, environment):
    """Calls that were placed and cannot be written down are told of, with what to do; they are in doubt at once."""
    from tenios_async.batch import LedgerFailed

    change = LedgerFile.change
    changes = 0

    def fail(*arguments):
        nonlocal changes
        changes += 1
        if changes > 1:
            raise LedgerFailed("campaign.db cannot be written: the disk is full")
        return change(*arguments)

    environment.setattr(LedgerFile, "change", fail)
    done = show(tenios("batch", "run", "campaign.db", "--concurrency", 1))
    assert (done.code, service.inits.total()) == (8, 1)
    assert "disk is full" in done.err
    advice = done.err.partition("once the disk is mended: tenios ")[2].splitlines()[0].split()
    environment.setattr(LedgerFile, "change", change)
    assert [event["line"] for event in tenios("batch", "resolve", "campaign.db", "--json").events] == [2]
    assert advice == ["batch", "resolve", "campaign.db", "--line", "2", "--called", "10"]
    assert tenios(*advice).code == 0
    assert tenios("batch", "run", "campaign.db").code == 0
    assert service.inits == dict.fromkeys(NUMBERS, 1)


def test_what_a_program_that_died_was_placing_is_listed_before_the_next_run(ledger, tenios):
    """And not while that program lives."""
    from tenios_async.batch.standing import intend

    with LedgerFile.write(ledger) as file:
        with file.transaction():
            file.change(1, intend("a", datetime.now(UTC)))
        assert "nothing is in doubt" in tenios("batch", "resolve", "campaign.db").out
        assert tenios("batch", "resolve", "campaign.db", "--line", 2, "--called").code == 2
    assert tenios("batch", "resolve", "campaign.db", "--line", 2, "--called").code == 0


@pytest.mark.parametrize("over", ["campaign.db", "campaign.db-wal", "campaign.db.lock", "second.db"])
def test_no_report_and_no_export_is_written_over_a_ledger(ledger, tenios, service, tmp_path, over):
    """A mistyped command must not lose who was called."""
    tenios("batch", "create", "contacts.csv", "second.db", "--prefix", "+49")
    before = (tmp_path / over).read_bytes() if (tmp_path / over).exists() else None
    for command in (["report", "campaign.db", over], ["run", "campaign.db", "--report", over]):
        done = tenios("batch", *command)
        assert (done.code, "not overwritten" in done.err) == (2, True)
    assert ((tmp_path / over).read_bytes() if (tmp_path / over).exists() else None) == before
    assert not service.inits
    (tmp_path / "campaign.db").rename(tmp_path / "campaign.csv")
    done = tenios("batch", "export", "campaign.csv", "campaign.csv")
    assert (done.code, "not overwritten" in done.err) == (2, True)


IMPATIENT = """
import sys
from tenios_async.cli import campaigns, run

campaigns.TOLD_EVERY = 0.01
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.parametrize(("option", "code"), [((), 5), (("--json",), 141)])
def test_nobody_is_called_any_more_where_nobody_reads_what_it_says(ledger, service, tenios, option, code):
    """`tenios batch run ... | head -1`: what is open is followed to its end, and the next run goes on."""
    service.latency = 0.2
    program = ["-m", "tenios_async"] if option else ["-c", IMPATIENT]
    command = [sys.executable, *program, "batch", "run", "campaign.db", "--concurrency", "1", *option]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as running:
        running.stdout.close()
        err = running.stderr.read()
    assert running.returncode == code
    assert err == ("" if option else "tenios: placing was stopped: nobody reads what it says\n")
    assert service.inits.total() < 5
    assert tenios("batch", "run", "campaign.db").code == 0
    assert service.inits == dict.fromkeys(NUMBERS, 1)


def test_what_it_waits_for_is_told_now_and_then(ledger, tenios, service, environment, tmp_path):
    environment.setattr(campaigns, "TOLD_EVERY", 0.01)
    (tmp_path / "more.csv").write_text("callback_number\n+49221999999\n")
    service.fail_init(Fault.busy("1"))
    events = tenios("batch", "run", "campaign.db", "--json").events
    told = [event for event in events if event["event"] == "progress"]
    assert {"TENIOS, which asks for fewer calls"} <= {event["waiting_for"] for event in told}
    service.fail_init(Fault.busy("1"))
    assert tenios("batch", "add", "campaign.db", "more.csv").code == 0
    assert "waiting for TENIOS, which asks for fewer calls" in show(tenios("batch", "run", "campaign.db")).out


def test_a_report_that_finds_no_room_at_the_end_hides_nothing(ledger, tenios, service, tmp_path):
    """The calls were made: how they went is what the command ends with."""
    handle = service.handle

    def take_its_place(*request):
        (tmp_path / "report.html").mkdir(exist_ok=True)
        return handle(*request)

    service.handle = take_its_place
    done = show(tenios("batch", "run", "campaign.db", "--report", "report.html"))
    assert (done.code, service.inits.total()) == (0, 5)
    assert "the report was not written" in done.err


@pytest.mark.parametrize("report", ["missing/report.html", "."])
def test_a_report_that_cannot_be_written_is_found_out_before_anybody_is_called(ledger, tenios, service, report):
    done = show(tenios("batch", "run", "campaign.db", "--report", report))
    assert (done.code, service.inits.total()) == (2, 0)
    assert report in done.err
    assert "cannot be written" in done.err or "folder" in done.err


def test_a_line_of_several_lists_is_not_guessed(ledger, tenios, service, tmp_path):
    more = ["+49221999990", "+49221999991"]
    (tmp_path / "more.csv").write_text("callback_number\n" + "".join(f"{number}\n" for number in more))
    tenios("batch", "add", "campaign.db", "more.csv")
    service.fail_init(Fault.lost(Manner.DROP), number=NUMBERS[0])
    service.fail_init(Fault.lost(Manner.DROP), number=more[0])
    tenios("batch", "run", "campaign.db", "--max-unknown", "100%")
    listed = tenios("batch", "resolve", "campaign.db", "--json").events
    assert [(event["line"], event["source"]) for event in listed] == [(2, "contacts.csv"), (2, "more.csv")]
    assert "2 of more.csv" in show(tenios("batch", "resolve", "campaign.db")).out
    tenios("batch", "report", "campaign.db", "report.html")
    written = (tmp_path / "report.html").read_text()
    assert "2 of more.csv" in written
    assert "7 from contacts.csv and more.csv" in written
    a_minute_passes(ledger)
    done = tenios("batch", "resolve", "campaign.db", "--line", 2, "--not-called")
    assert (done.code, "several" in done.err) == (2, True)
    assert tenios("batch", "resolve", "campaign.db", "--number", more[0], "--not-called").code == 0
    assert [event["source"] for event in tenios("batch", "resolve", "campaign.db", "--json").events] == ["contacts.csv"]
    assert tenios("batch", "resolve", "campaign.db", "--line", 2, "--line", 2, "--called", "--who", "=A").code == 0
    assert tenios("batch", "export", "campaign.db", "out.csv").code == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = {unguarded(row["callback_number"]): row for row in csv.DictReader(file)}
    first, added = rows[NUMBERS[0]], rows[more[0]]
    assert (first["tenios_verdict"], first["tenios_verdict_by"]) == ("called", "'=A")
    assert (added["tenios_verdict"], rows[more[1]]["tenios_verdict"]) == ("not called", "")
    assert datetime.fromisoformat(added["tenios_verdict_at"]).tzinfo is not None


def test_a_number_may_be_named_as_the_list_writes_it(tenios, ledger, service, tmp_path):
    (tmp_path / "cologne.csv").write_text("callback_number\n0221 1234567\n")
    tenios("batch", "create", "cologne.csv", "cologne.db", "--region", "DE")
    service.fail_init(Fault.lost(Manner.DROP))
    tenios("batch", "run", "cologne.db", "--max-unknown", "100%")
    assert tenios("batch", "resolve", "cologne.db", "--number", "0221/1234567", "--called").code == 0


def test_who_has_no_name_is_asked_for_one(ledger, tenios, service, environment):
    def nobody():
        raise KeyError("getpwuid(): uid not found: 4711")

    service.fail_init(Fault.lost(Manner.DROP))
    tenios("batch", "run", "campaign.db")
    environment.setattr("getpass.getuser", nobody)
    done = tenios("batch", "resolve", "campaign.db", "--all", "--called")
    assert (done.code, "--who" in done.err) == (2, True)
    assert tenios("batch", "resolve", "campaign.db", "--all", "--called", "--who", "A").code == 0


def test_a_doubt_of_place_once_is_named_by_its_key(ledger, tenios, tmp_path):
    from tenios_async import CallbackRequest
    from tenios_async.batch import NewRow, SQLiteLedger
    from tenios_async.batch.standing import doubt, intend

    SQLiteLedger.create("calls.db")
    with LedgerFile.write("calls.db") as calls, calls.transaction():
        for row, key in enumerate(("order 1", "order 2", f"web {NUMBERS[1]}"), 1):
            calls.put(NewRow(key, CallbackRequest("config-id", NUMBERS[0])))
            calls.change(row, intend("a", datetime.now(UTC)))
            calls.change(row, doubt("a", "no answer"))
    listed = show(tenios("batch", "resolve", "calls.db", "--json")).events
    assert [event["key"] for event in listed] == ["order 1", "order 2", "web +49******451"]
    assert f"web {NUMBERS[1]}" in tenios("batch", "resolve", "calls.db", "--show-numbers").out
    assert "order 2" in show(tenios("batch", "resolve", "calls.db")).out
    assert "--key" in tenios("batch", "resolve", "calls.db", "--number", NUMBERS[0], "--called").err
    assert tenios("batch", "resolve", "calls.db", "--key", "order 2", "--called", "7").code == 0
    done = show(tenios("batch", "resolve", "calls.db", "--key", NUMBERS[1], "--called"))
    assert (done.code, "not in doubt" in done.err) == (2, True)
    listed = tenios("batch", "resolve", "calls.db", "--json").events
    assert [event["key"] for event in listed] == ["order 1", "web +49******451"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_list_may_come_through_a_pipe(ledger, start, tenios, tmp_path):
    """It is read once: `tenios batch create <(zcat contacts.csv.gz) ...`."""
    os.mkfifo(tmp_path / "pipe")
    creating = start("batch", "create", "pipe", "piped.db", "--prefix", "+49", "--json")
    content = (tmp_path / "contacts.csv").read_bytes()
    (tmp_path / "pipe").write_bytes(content)
    out, _ = creating.communicate(timeout=30)
    assert json.loads(out)["taken"] == 5
    with LedgerFile.read(tmp_path / "piped.db") as piped:
        assert piped.facts["source_sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_rejects_may_go_into_a_pipe(ledger, start, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bad.csv").write_text("callback_number\n12\n")
    creating = start("batch", "create", "bad.csv", "new.db", "--prefix", "+49", "--rejects", "pipe")
    assert "12,2," in (tmp_path / "pipe").read_text()
    assert creating.wait(30) == 0
