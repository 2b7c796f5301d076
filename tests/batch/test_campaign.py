"""A campaign from its contacts file to its export: what is taken, what is refused, what the figures say."""

import csv
import io
import logging
import math
import stat
from datetime import UTC, datetime, timedelta

import pytest

from tenios_async import Callback, CallbackRequest, CallbackStatus, Polling, TeniosClient
from tenios_async.batch import Campaign, LedgerRefused, RowState, SQLiteLedger, TooManyRejects
from tenios_async.batch.campaign import KIND
from tenios_async.batch.contacts import read_contacts
from tenios_async.batch.export import write_rows
from tenios_async.batch.figures import Outcome
from tenios_async.batch.ledger_file import LedgerFile
from tenios_async.batch.numbers import Numbers
from tenios_async.batch.reading import read_figures
from tenios_async.batch.row import NewRow
from tenios_async.batch.standing import IllegalMove, doubt, intend, lose, place, refuse, see
from tenios_async.simulator import Fault, Manner, Script, Service, SimulatorServer

N = [f"+4922112345{index}" for index in range(10)]
OPTIONS = {"callback_config_id": "config", "prefixes": ["+49"]}


@pytest.fixture
def contacts(tmp_path):
    def write(*numbers, name="contacts.csv", header="callback_number,name"):
        path = tmp_path / name
        path.write_text(header + "\n" + "".join(f"{number},=name {row}\n" for row, number in enumerate(numbers)))
        return path

    return write


@pytest.fixture
def path(tmp_path):
    return tmp_path / "campaign.db"


def rows(path):
    with LedgerFile.read(path) as ledger:
        return list(ledger.rows())


def test_what_is_taken_and_what_is_not(contacts, path, tmp_path):
    (tmp_path / "opt-out").write_text(f"{N[3]}\n")
    rejects = tmp_path / "rejects.csv"
    taken = Campaign.create(
        path, contacts(N[0], N[1], "+431234567", N[0], N[3]), opt_out=tmp_path / "opt-out", rejects=rejects, **OPTIONS
    )
    assert (taken.taken, taken.bad, taken.repeated, taken.opted_out, taken.rejected) == (2, 1, 1, 1, 3)
    assert [row["tenios_line"] for row in csv.DictReader(io.StringIO(rejects.read_text()))] == ["4", "5", "6"]
    assert [(row.key, row.line, row.extra) for row in rows(path)] == [
        (N[0], 2, {"name": "=name 0"}),
        (N[1], 3, {"name": "=name 1"}),
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        *(({"callback_config_id": value}, "callback_config_id must") for value in (None, 5, "", " ", "x" * 257)),
        *(({"max_bad": value}, "max_bad must be a whole number") for value in (math.nan, -1, 0.5, "5", None)),
    ],
)
def test_wrong_arguments_make_no_campaign(contacts, path, wrong, says):
    with pytest.raises(ValueError, match=says):
        Campaign.create(path, contacts("no number"), **OPTIONS | wrong)
    assert [file.name for file in path.parent.iterdir()] == ["contacts.csv"]


def test_the_same_person_written_in_two_ways_is_called_once(contacts, path):
    taken = Campaign.create(
        path, contacts("0221 123456", "+49 221 123456", "0049221123456"), callback_config_id="c", region="DE"
    )
    assert (taken.taken, taken.repeated) == (1, 2)


def test_an_existing_file_is_not_touched(contacts, path):
    Campaign.create(path, contacts(N[0]), **OPTIONS)
    before = path.read_bytes()
    with pytest.raises(LedgerRefused, match="exists"):
        Campaign.create(path, contacts(N[1]), **OPTIONS)
    assert path.read_bytes() == before


def test_too_many_bad_lines_leave_nothing_behind(contacts, path, tmp_path):
    with pytest.raises(TooManyRejects, match="line 4"):
        Campaign.create(path, contacts(N[0], "x", "y", N[1]), max_bad=1, **OPTIONS)
    assert [file.name for file in tmp_path.iterdir()] == ["contacts.csv"]


def test_adding_keeps_the_rules_and_takes_nobody_twice(contacts, path, tmp_path):
    Campaign.create(path, contacts(N[0], N[1]), **OPTIONS)
    taken = Campaign.add(path, contacts(N[1], N[2], "+41446681800"))
    assert (taken.taken, taken.repeated, taken.bad) == (1, 1, 1)
    with LedgerFile.read(path) as ledger:
        assert ledger.facts["rejected"] == 2
        assert ledger.facts["callback_config_id"] == "config"
    with pytest.raises(TooManyRejects):
        Campaign.add(path, contacts(N[4], "bad"), max_bad=0)
    assert [row.key for row in rows(path)] == [N[0], N[1], N[2]]


@pytest.mark.parametrize("name", ["rejects.csv", "rejects.jsonl"])
def test_who_opted_out_is_not_taken_when_the_rejects_come_back(contacts, path, tmp_path, name):
    """Without the opt-out list, that is."""
    (tmp_path / "opt-out").write_text(f"{N[1]}\n")
    listed = contacts(N[0], N[1])
    if name.endswith("l"):
        listed = tmp_path / "contacts.jsonl"
        listed.write_text(f'{{"number": "{N[0]}"}}\n{{"number": "{N[1]}"}}\n')
    Campaign.create(path, listed, opt_out=tmp_path / "opt-out", rejects=tmp_path / name, **OPTIONS)
    taken = Campaign.add(path, tmp_path / name)
    assert (taken.taken, taken.opted_out) == (0, 1)
    assert [row.key for row in rows(path)] == [N[0]]


@pytest.mark.asyncio
async def test_a_campaign_that_runs_takes_no_contacts_and_no_second_run(contacts, path):
    Campaign.create(path, contacts(N[0]), **OPTIONS)
    async with Campaign(path):
        with pytest.raises(LedgerRefused, match="in use"):
            Campaign.add(path, contacts(N[1]))
        with pytest.raises(LedgerRefused, match="in use"):
            await Campaign(path).__aenter__()


@pytest.mark.asyncio
async def test_a_campaign_runs_once_at_a_time_and_can_be_stopped(contacts, path):
    """What is open when it is stopped is followed to its end, and the next run calls the others."""
    Campaign.create(path, contacts(*N), **OPTIONS)
    service = Service(script=Script.talk(), speed=1000)
    async with (
        SimulatorServer(service) as server,
        TeniosClient("key", base_url=server.base_url) as client,
        Campaign(path) as campaign,
    ):
        campaign.stop("nobody runs it yet: nothing is stopped")
        refused = []

        async def stop_at_the_first_sight(row, transition):
            with pytest.raises(RuntimeError, match="running already") as error:
                await campaign.run(client)
            refused.append(error)
            campaign.stop("enough")

        progress = await campaign.run(client, concurrency=1, hook=stop_at_the_first_sight, polling=Polling(speed=1000))
        assert refused
        assert (progress.finished.total(), progress.queued, progress.stopped) == (1, 9, "enough")
        assert service.inits.total() == 1
        progress = await campaign.run(client, polling=Polling(speed=1000))
        assert (progress.finished.total(), progress.queued) == (10, 0)
    service.assert_nobody_called_twice()


@pytest.mark.asyncio
async def test_a_path_that_is_mistyped_calls_nobody(tmp_path):
    with pytest.raises(LedgerRefused, match="there is no ledger"):
        await Campaign(tmp_path / "campaing.db").__aenter__()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.asyncio
async def test_a_ledger_of_place_once_is_no_campaign(path, contacts):
    SQLiteLedger.create(path)
    with pytest.raises(LedgerRefused, match="no campaign"):
        await Campaign(path).__aenter__()
    with pytest.raises(LedgerRefused, match="no campaign"):
        Campaign.add(path, contacts(N[0]))
    async with SQLiteLedger(path):
        pass  # and it is not kept locked


@pytest.mark.asyncio
async def test_from_the_list_to_the_export(contacts, path, tmp_path):
    """Over a real socket; the export is a contacts file again."""
    Campaign.create(path, contacts(*N[:4]), **OPTIONS)
    service = Service(speed=1000, script=Script.talk())
    service.script(N[2], Script.customer_silent())
    seen = []
    async with SimulatorServer(service) as server, TeniosClient("key", base_url=server.base_url) as client:
        async with Campaign(path) as campaign:
            progress = await campaign.run(
                client,
                polling=Polling.fixed(0.02),
                hook=lambda row, transition: seen.append((row.line, transition.status)),
            )
    assert service.inits == dict.fromkeys(N[:4], 1)
    assert progress.finished == {CallbackStatus.DISCONNECTED: 3, CallbackStatus.CALL_B_FAILED: 1}
    assert {line for line, status in seen if status.is_terminal} == {2, 3, 4, 5}
    file = io.StringIO()
    with LedgerFile.read(path) as ledger:
        assert write_rows(tmp_path / "x.csv", file, ledger.rows(), ledger.extras()) == 4
    assert not [
        cell for row in csv.reader(io.StringIO(file.getvalue())) for cell in row if cell[:1] in ("=", "+", "-", "@")
    ]
    (tmp_path / "again.csv").write_text(file.getvalue())
    again = list(read_contacts(tmp_path / "again.csv", callback_config_id="c", numbers=Numbers(prefixes=["+49"])))
    assert [row.request for row in again] == [row.request for row in rows(path)]
    assert [row.extra for row in again] == [row.extra for row in rows(path)]
    states = [row["tenios_status"] for row in csv.DictReader(io.StringIO(file.getvalue()))]
    assert states == ["DISCONNECTED", "DISCONNECTED", "CALL_B_FAILED", "DISCONNECTED"]


@pytest.fixture
def mixed(path):
    """One row in each state, at known moments."""
    began = datetime(2026, 11, 23, 9, tzinfo=UTC)

    def fill(ledger):
        with ledger.transaction():
            for index in range(9):
                ledger.put(NewRow(N[index], CallbackRequest("config", N[index]), index + 2))

            def moment(seconds):
                return began + timedelta(seconds=seconds)

            def placed(row):
                ledger.change(row, intend("a", moment(row)))
                ledger.change(row, place("a", Callback(row + 9, "config", 0, moment(row + 1))))

            for row in range(1, 6):
                placed(row)
            for row, ending in ((1, "DISCONNECTED"), (2, "CALL_A_FAILED"), (3, "CALL_B_FAILED")):
                ledger.change(row, see("a", CallbackStatus.CALLING_A, moment(10), 1))
                ledger.change(row, see("a", CallbackStatus(ending), moment(20 + row), 3))
            ledger.change(4, lose("a", "TENIOS does not know it", moment(30)))
            ledger.change(5, see("a", CallbackStatus.CALLING_B, moment(11), 1))
            ledger.change(5, see("a", CallbackStatus.CONNECTED, moment(12), 2))
            ledger.change(6, intend("a", moment(6)))
            ledger.change(6, refuse("a", "INVALID_FIELDS", moment(7)))
            ledger.change(7, intend("a", moment(7)))
            ledger.change(7, doubt("a", "no answer in time"))
            ledger.change(8, intend("a", moment(8)))

    facts = {"kind": KIND, "created_at": began.isoformat(), "callback_config_id": "config", "source": "contacts.csv"}
    LedgerFile.create(path, {**facts, "rejected": 4}, fill)
    return path


def test_the_figures_are_those_of_the_rows(mixed):
    with LedgerFile.read(mixed) as ledger:
        figures = read_figures(ledger, datetime(2026, 11, 23, 10, tzinfo=UTC))
        assert ledger.counts() == dict.fromkeys(RowState, 1) | {RowState.FINISHED: 4, RowState.SENDING: 1}
    assert figures.outcomes == {
        Outcome.TALKED: 1, Outcome.CUSTOMER_NOT_REACHED: 1, Outcome.AGENT_NOT_REACHED: 1, Outcome.REFUSED: 1,
        Outcome.UNOBSERVED: 1, Outcome.UNKNOWN: 1, Outcome.UNDER_WAY: 2, Outcome.QUEUED: 1,
    }  # fmt: skip
    assert (figures.rejected, figures.polls, figures.source) == (4, 11, "contacts.csv")
    assert figures.refusals == {"INVALID_FIELDS": 1}
    (in_doubt,) = figures.doubts
    assert (in_doubt.line, in_doubt.reason, in_doubt.at.second) == (8, "no answer in time", 7)
    assert N[6] not in repr(figures)
    assert figures.time_in_state["CALLING_A"].count == 3
    assert figures.time_in_state["CALLING_A"].seconds == pytest.approx(11 + 12 + 13)
    assert (figures.time_in_state["CALLING_B"].count, figures.time_in_state["CALLING_B"].seconds) == (1, 1.0)
    assert sum(count for bucket in figures.timeline.buckets for count in bucket.values()) == 6
    assert figures.first_placed_at == datetime(2026, 11, 23, 9, 0, 2, tzinfo=UTC)


def test_figures_of_a_campaign_that_has_not_begun(contacts, path):
    Campaign.create(path, contacts(N[0]), **OPTIONS)
    with LedgerFile.read(path) as ledger:
        figures = read_figures(ledger, datetime.now(UTC))
    assert (figures.timeline, figures.polls, figures.rows.queued) == (None, 0, 1)


def test_what_a_person_says_is_written_down_with_name_and_time(mixed):
    now = datetime(2026, 11, 23, 10, tzinfo=UTC)
    with LedgerFile.read(mixed) as ledger:
        (row,) = ledger.rows(RowState.UNKNOWN)
        with ledger.transaction():
            ledger.resolve(row, now, who="Somebody", was_called=True, callback=Callback(99))
        with pytest.raises(IllegalMove), ledger.transaction():
            ledger.resolve(row, now, who="Somebody", was_called=False)
        told = list(ledger.query("SELECT call, attempt, verdict, who, at FROM resolutions"))
        assert told == [(7, "a", "called", "Somebody", now.timestamp())]
        assert ledger.by_key(N[6]).callback.id == 99


def test_after_a_crash_what_was_being_placed_is_in_doubt(mixed):
    with LedgerFile.write(mixed) as ledger:
        assert ledger.recover() == 1
        assert ledger.recover() == 0
        states = [row.id for row in ledger.rows(RowState.UNKNOWN)]
    assert states == [7, 8]


@pytest.mark.asyncio
async def test_no_number_and_no_key_is_logged(contacts, path, caplog):
    caplog.set_level(logging.DEBUG)
    Campaign.create(path, contacts(*N[:4], "+43221123456"), **OPTIONS)
    service = Service(script=Script((("DISCONNECTED", 0.0),)))
    service.fail_init(Fault.lost(Manner.DROP), Fault(400), Fault.busy("0"))
    async with SimulatorServer(service) as server, TeniosClient("CANARY-KEY", base_url=server.base_url) as client:
        async with Campaign(path) as campaign:
            await campaign.run(client, hook=lambda *_: 1 / 0)
            shown = repr((campaign, campaign.ledger, campaign.progress, rows(path)))
    logged = caplog.text + "".join(repr(vars(record)) for record in caplog.records)
    assert "a hook raised" in logged
    for secret in (*N[:4], "+43221123456", "CANARY-KEY"):
        assert secret.lstrip("+") not in logged + shown


def test_rejects_are_not_written_over_what_is_needed(contacts, path, tmp_path):
    bad, opt_out, other = contacts("bad"), tmp_path / "opt-out", tmp_path / "other.db"
    opt_out.write_text("")
    SQLiteLedger.create(other)
    for rejects in (bad, opt_out, path, other):
        before = {file: file.read_bytes() for file in tmp_path.iterdir()}
        with pytest.raises(ValueError, match="not overwritten"):
            Campaign.create(path, bad, opt_out=opt_out, rejects=rejects, **OPTIONS)
        assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    Campaign.create(path, contacts(N[0], name="good.csv"), **OPTIONS)
    for rejects in (bad, path):
        with pytest.raises(ValueError, match="not overwritten"):
            Campaign.add(path, bad, rejects=rejects)
    assert [row.key for row in rows(path)] == [N[0]]
