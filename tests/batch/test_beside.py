"""The file beside a ledger, and the checksums in it: what was recorded is never forgotten unnoticed."""

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tenios_async import CallbackRequest
from tenios_async.batch import IllegalMove, LedgerFailed, LedgerRefused, NewRow, RowState, SQLiteLedger
from tenios_async.batch.beside import Beside, beside, record_beside, witnessed
from tenios_async.batch.errors import LedgerInUse
from tenios_async.batch.ledger_file import LedgerFile
from tenios_async.batch.standing import Standing, crash, intend

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
CONTACTS, DIALLED = 50, 10
BOTH = pytest.mark.parametrize("opening", [LedgerFile.write, LedgerFile.read])

DIE = f"""
import os, sys
from datetime import UTC, datetime
from tenios_async.batch.ledger_file import LedgerFile
from tenios_async.batch.standing import intend

ledger = LedgerFile.write(sys.argv[1])
for row in range(1, {DIALLED} + 1):
    with ledger.transaction():
        ledger.change(row, intend("attempt", datetime.now(UTC)))
os._exit(9)
"""


def number(row):
    return f"+49221{row:06}"


def make(path):
    def fill(ledger):
        with ledger.transaction():
            for row in range(1, CONTACTS + 1):
                ledger.put(NewRow(number(row), CallbackRequest("config", number(row))))

    LedgerFile.create(path, {}, fill)
    return path


@pytest.fixture(scope="module")
def remains(tmp_path_factory):
    """What a program left behind that died after ten intents, none of which is in the file itself yet."""
    path = make(tmp_path_factory.mktemp("remains") / "calls.db")
    assert subprocess.run([sys.executable, "-c", DIE, path], check=False).returncode == 9
    return path.parent


@pytest.fixture
def crashed(remains, tmp_path):
    shutil.copytree(remains, tmp_path / "here")
    return tmp_path / "here" / "calls.db"


@pytest.fixture
def closed(tmp_path):
    path = make(tmp_path / "calls.db")
    with LedgerFile.write(path) as ledger, ledger.transaction():
        ledger.change(1, intend("attempt", NOW))
    return path


def wal(path):
    return path.with_name(path.name + "-wal")


def contents(path):
    """All that may be read of a ledger; the index of the log is only made of it."""
    return {file.name: file.read_bytes() for file in path.parent.iterdir() if not file.name.endswith("-shm")}


def dialled(path):
    with LedgerFile.read(path) as ledger:
        return len([row for row in ledger.rows() if row.standing.state is not RowState.QUEUED])


def spoil(file, at):
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def cut(file, by):
    file.write_bytes(file.read_bytes()[:-by])


# --- what was recorded last


def test_after_a_crash_it_is_simply_opened_again(crashed):
    for _ in range(2):
        with LedgerFile.write(crashed) as ledger:
            ledger.recover()
            assert ledger.counts()[RowState.UNKNOWN] == DIALLED


FORGETTING = {
    "its tail is cut off": lambda path: cut(wal(path), 100),
    "a bit of its tail has flipped": lambda path: spoil(wal(path), -2000),
    "a bit of its beginning has flipped": lambda path: spoil(wal(path), 100),
    "its header is damaged": lambda path: spoil(wal(path), 20),
    "it is empty": lambda path: wal(path).write_bytes(b""),
    "it is gone": lambda path: wal(path).unlink(),
}


@BOTH
@pytest.mark.parametrize("damage", FORGETTING.values(), ids=FORGETTING)
def test_a_log_that_was_damaged_is_refused_and_not_touched(crashed, damage, opening):
    """SQLite itself would take it for a ledger in which less was done."""
    damage(crashed)
    before = {b: c for b, c in contents(crashed).items() if c}
    with pytest.raises(LedgerRefused, match="lacks what was recorded last"):
        opening(crashed)
    assert {b: c for b, c in contents(crashed).items() if c} == before


@BOTH
@pytest.mark.parametrize("lost", [[".lock"], [".lock", "-wal", "-shm"]], ids=["the file beside", "all but the file"])
def test_a_copy_without_the_files_beside_it_is_refused_and_not_touched(crashed, lost, opening):
    """Of a ledger that was in use."""
    for suffix in lost:
        crashed.with_name(crashed.name + suffix).unlink()
    before = crashed.read_bytes()
    with pytest.raises(LedgerRefused, match=r"Copy calls.db, calls.db-wal and calls.db.lock together"):
        opening(crashed)
    assert crashed.read_bytes() == before
    assert not beside(crashed).exists()


@pytest.mark.parametrize("content", [b"\0" * 10, b"\0" * 36, b"x" * 36])
def test_a_file_beside_that_is_damaged_or_of_another_ledger_proves_nothing(crashed, content, tmp_path):
    for wrong in (content, beside(another(tmp_path)).read_bytes()):
        beside(crashed).write_bytes(wrong)
        with pytest.raises(LedgerRefused, match=r"make calls.db.lock an empty file"):
            LedgerFile.write(crashed)


def test_a_witness_with_a_bit_that_has_flipped_proves_nothing(crashed):
    for at in range(16, 36):
        spoil(beside(crashed), at)
        with pytest.raises(LedgerRefused, match=r"make calls.db.lock an empty file"):
            LedgerFile.read(crashed)
        spoil(beside(crashed), at)
    LedgerFile.read(crashed).close()


def another(folder):
    path = make(folder / "another.db")
    LedgerFile.write(path).close()
    path.rename(folder / "gone.db")
    return path


def test_whoever_knows_that_it_is_complete_says_so_by_an_empty_file(crashed):
    beside(crashed).write_bytes(b"")
    with LedgerFile.write(crashed) as ledger:
        ledger.recover()
    cut(beside(crashed), 1)
    assert dialled(crashed) == DIALLED


def test_the_file_alone_is_enough_after_an_end(closed, tmp_path):
    assert [file.name for file in tmp_path.iterdir() if file.name.endswith(("-wal", "-shm"))] == []
    copy = Path(shutil.copy(closed, tmp_path / "copy.db"))
    assert dialled(copy) == 1
    LedgerFile.write(copy).close()


def test_all_files_together_may_be_copied_in_the_middle(closed, tmp_path):
    (tmp_path / "copy").mkdir()
    with LedgerFile.write(closed) as ledger:
        with ledger.transaction():
            ledger.change(2, intend("attempt", NOW))
        for file in (closed, wal(closed), beside(closed)):
            shutil.copy(file, tmp_path / "copy")
        assert dialled(tmp_path / "copy" / "calls.db") == 2
        shutil.copy(closed, tmp_path / "copy" / "calls.db")
        wal(tmp_path / "copy" / "calls.db").unlink(missing_ok=True)
        with pytest.raises(LedgerRefused, match="lacks"):
            LedgerFile.read(tmp_path / "copy" / "calls.db")


def test_a_backup_from_before_a_run_is_refused_beside_the_newer_witness(closed):
    backup = closed.read_bytes()
    with LedgerFile.write(closed) as ledger, ledger.transaction():
        ledger.change(2, intend("attempt", NOW))
    closed.write_bytes(backup)
    with pytest.raises(LedgerRefused, match="lacks"):
        LedgerFile.write(closed)


def test_after_a_power_cut_the_witness_may_be_older(crashed):
    """It is not waited for, and so may be what it was some commits ago; the ledger is not refused for that."""
    content = beside(crashed).read_bytes()
    with LedgerFile.read(crashed) as ledger:
        ((identity, commits),) = ledger.query("SELECT identity, commits FROM mark")
    lock = Beside(crashed)
    lock.record(identity, commits - 5)
    lock.release()
    assert beside(crashed).read_bytes() != content
    with LedgerFile.write(crashed) as ledger:
        assert ledger.recover() == DIALLED
        ((_, commits),) = ledger.query("SELECT identity, commits FROM mark")
    assert witnessed(crashed, identity) == commits


def test_killed_between_a_commit_and_its_witness(closed):
    with LedgerFile.write(closed) as ledger:
        before = beside(closed).read_bytes()
        with ledger.transaction():
            ledger.change(2, intend("attempt", NOW))
        after = beside(closed).read_bytes()
    assert before != after
    beside(closed).write_bytes(before)
    with LedgerFile.write(closed) as ledger:
        assert ledger.recover() == 2


def test_the_witness_is_on_the_disk_before_the_ledger_says_that_it_is_open(closed, monkeypatch):
    """Else a power cut could leave a ledger that is refused, and nothing was wrong with it."""
    synced = []
    fsync = os.fsync

    def looked_at(handle):
        fsync(handle)
        with LedgerFile.read(closed) as reader:
            ((identity, commits, is_open),) = reader.query("SELECT * FROM mark")
        synced.append((os.fstat(handle).st_ino, witnessed(closed, identity) == commits, is_open))

    beside(closed).unlink()
    monkeypatch.setattr(os, "fsync", looked_at)
    LedgerFile.write(closed).close()
    assert synced[:2] == [(file.stat().st_ino, True, 0) for file in (beside(closed), closed.parent)]


def test_a_witness_that_cannot_be_written_is_a_failure_like_any_other(closed, monkeypatch):
    ledger = LedgerFile.write(closed)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tenios_async.batch.beside._write", fail)
    with pytest.raises(LedgerFailed, match="No space left"), ledger.transaction():
        ledger.change(2, intend("attempt", NOW))
    ledger.close()
    beside(closed).unlink()
    with pytest.raises(LedgerRefused, match=r"\.lock"):  # it did not end well
        LedgerFile.write(closed)


def test_one_that_cannot_be_begun_is_left_as_it_was(crashed, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    before = contents(crashed)
    with monkeypatch.context() as patch:
        patch.setattr("tenios_async.batch.beside._write", fail)
        with pytest.raises(LedgerFailed, match="No space left"):
            LedgerFile.write(crashed)
    assert contents(crashed) == before
    with LedgerFile.write(crashed) as ledger:
        assert ledger.recover() == DIALLED


def test_what_changes_nothing_is_not_counted(closed):
    with LedgerFile.write(closed) as ledger:
        before = beside(closed).read_bytes()
        with ledger.transaction():
            ledger.counts()
            ledger.change(1, lambda standing: standing)
        with pytest.raises(IllegalMove), ledger.transaction():
            assert [ledger.change(row, intend("attempt", NOW)) for row in (2, 1)]
        assert beside(closed).read_bytes() == before


# --- those who look while somebody writes


def test_who_looks_and_resolves_does_not_hurt_the_writer(closed):
    with LedgerFile.write(closed) as ledger:
        ledger.recover()
        for row in range(2, 30):
            with ledger.transaction():
                ledger.change(row, intend("attempt", NOW))
            with LedgerFile.read(closed) as reader:
                assert reader.counts()[RowState.SENDING] == row - 1
                if row == 10:
                    (in_doubt,) = reader.rows(RowState.UNKNOWN)
                    with reader.transaction():
                        reader.resolve(in_doubt, datetime.now(UTC), who="A", was_called=True)
            with pytest.raises(LedgerRefused, match="in use"):
                LedgerFile.write(closed)
        (finished,) = ledger.rows(RowState.FINISHED)
        assert finished.id == 1
    assert dialled(closed) == 29


def test_what_a_person_said_is_not_forgotten_either(crashed):
    """`resolve` writes without the lock, and leaves the same witness."""
    with LedgerFile.write(crashed) as ledger:
        ledger.recover()
        left = {file: file.read_bytes() for file in (crashed, wal(crashed))}
        with LedgerFile.read(crashed) as reader, reader.transaction():
            reader.resolve(next(reader.rows(RowState.UNKNOWN)), datetime.now(UTC), who="A", was_called=True)
        left[beside(crashed)] = beside(crashed).read_bytes()
    for file, content in left.items():
        file.write_bytes(content)
    with pytest.raises(LedgerRefused, match="1 of"):
        LedgerFile.write(crashed)


def test_a_reader_that_stays_longer_than_the_writer(closed, tmp_path):
    ledger = LedgerFile.write(closed)
    reader = LedgerFile.read(closed)
    with reader.snapshot():
        assert reader.counts()[RowState.SENDING] == 1
        with ledger.transaction():
            ledger.change(2, intend("attempt", NOW))
        ledger.close()
        assert reader.counts()[RowState.SENDING] == 1
    copy = Path(shutil.copy(closed, tmp_path / "copy.db"))
    with pytest.raises(LedgerRefused, match="copied"):
        LedgerFile.read(copy)
    reader.close()
    copy.unlink()
    assert dialled(Path(shutil.copy(closed, tmp_path / "copy.db"))) == 2


def test_the_witness_goes_forward_only(tmp_path):
    path, identity = tmp_path / "calls.db", b"12345678"
    assert witnessed(path, identity) is None
    lock = Beside(path)
    assert witnessed(path, identity) == 0
    lock.record(identity, 7)
    record_beside(path, identity, 5)
    assert witnessed(path, identity) == 7
    record_beside(path, identity, 2**40)
    assert (witnessed(path, identity), witnessed(path, b"another.")) == (2**40, None)
    lock.release()
    lock.release()
    Beside(path).release()


@pytest.fixture
def handles(monkeypatch):
    """Those that were opened, and those that were closed."""
    opened, closed = [], []
    open_, close = os.open, os.close

    def opening(*arguments, **options):
        opened.append(open_(*arguments, **options))
        return opened[-1]

    def closing(handle):
        closed.append(handle)
        close(handle)

    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(os, "close", closing)
    return opened, closed


def test_whoever_is_refused_keeps_no_handle(tmp_path, handles):
    """A program that tries again and again until it may would run out of them."""
    opened, closed = handles
    lock = Beside(tmp_path / "calls.db")
    for _ in range(3):
        with pytest.raises(LedgerInUse):
            Beside(tmp_path / "calls.db")
    assert closed == opened[1:]
    lock.release()
    lock.release()
    assert sorted(closed) == sorted(opened)


def test_who_resolves_keeps_no_handle_and_writes_the_first_commit_too(tmp_path, handles):
    path, identity = tmp_path / "calls.db", b"12345678"
    record_beside(path, identity, 1)
    opened, closed = handles
    assert len(opened) == 1
    assert closed == opened
    assert witnessed(path, identity) == 1
    assert stat.S_IMODE(beside(path).stat().st_mode) == 0o600


@pytest.fixture
def still_open(tmp_path):
    """Which files in the folder this process has open."""
    if sys.platform != "linux":
        pytest.skip("no other system says so in files")

    def found():
        files = [handle.resolve() for handle in Path("/proc/self/fd").iterdir()]
        return [file for file in files if tmp_path in file.parents]

    return found


@BOTH
def test_what_was_refused_is_not_kept_open(closed, opening, still_open):
    """By whoever keeps the error."""
    changed(closed, "INSERT INTO facts VALUES ('kind', '{')")
    with pytest.raises(LedgerRefused) as refused:
        opening(closed)
    assert still_open() == [], refused


def test_what_could_not_be_made_is_not_kept_open(tmp_path, still_open):
    with pytest.raises(LedgerRefused) as refused:
        LedgerFile.create(tmp_path / "calls.db", {"kind": b"no JSON"})
    assert still_open() == [], refused


def test_one_that_failed_is_not_kept_open_even_if_it_is_gone(closed, still_open):
    for gone in (False, True):
        ledger = LedgerFile.write(closed)
        with pytest.raises(LedgerFailed), ledger.transaction():
            raise sqlite3.OperationalError("disk I/O error")
        if gone:
            closed.unlink()
        ledger.close()
        assert still_open() == []


# --- what stands in it


def changed(path, sql):
    """By another program, which knows SQLite and not this library."""
    connection = sqlite3.connect(path)
    connection.execute(sql)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "change",
    ["state = 'QUEUED'", "attempt = 'x'", "callback_number = '+49999'", "key = '+49999'", "delay = 5", "standing_sum = 0", "request_sum = 0"],
)  # fmt: skip
def test_a_row_that_is_not_what_was_written_is_refused(closed, change):
    """Before anybody is called; and who only looks is told when that row is read."""
    changed(closed, f"UPDATE calls SET {change} WHERE id = 1")
    before = closed.read_bytes()
    with pytest.raises(LedgerRefused, match="damaged in row 1"):
        LedgerFile.write(closed)
    assert closed.read_bytes() == before
    with LedgerFile.read(closed) as ledger:
        with pytest.raises(LedgerRefused, match="damaged in row 1"):
            list(ledger.rows())


def schema_that_is_no_text(path):
    """SQLite quotes it in what it says, and Python cannot read that."""
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE calls", b"\xffREATE TABLE calls"))


def page_of_zeros(path):
    content = path.read_bytes()
    at = content.index(number(CONTACTS).encode()) // 4096 * 4096
    path.write_bytes(content[:at] + bytes(4096) + content[at + 4096 :])


DAMAGE = {
    "no mark": lambda path: changed(path, "DELETE FROM mark"),
    "an identity that is no bytes": lambda path: changed(path, "UPDATE mark SET identity = 5"),
    "facts that are no JSON": lambda path: changed(path, "INSERT INTO facts VALUES ('kind', '{')"),
    "a state that there is not": lambda path: changed(path, "UPDATE calls SET state = 'LOST'"),
    "text that is none": lambda path: changed(path, "UPDATE calls SET state = CAST(x'ff' AS TEXT), extra = CAST(x'ff' AS TEXT)"),
    "a schema that is none": schema_that_is_no_text,
    "a page of zeros": page_of_zeros,
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_whatever_is_damaged_only_the_librarys_own_errors_come_out(closed, damage):
    """Of whatever is read first."""
    damage(closed)
    before = closed.read_bytes()
    with pytest.raises((LedgerRefused, LedgerFailed)):
        LedgerFile.write(closed)
    for look in (LedgerFile.rows, LedgerFile.counts, LedgerFile.tally, LedgerFile.extras, LedgerFile.resolutions):
        with contextlib.suppress(LedgerRefused, LedgerFailed), LedgerFile.read(closed) as ledger:
            list(look(ledger))
    assert closed.read_bytes() == before


@BOTH
def test_rows_that_are_missing_and_other_tables_are_refused(closed, opening):
    """Also to who only looks: a report of nobody looks like one of a campaign that has not begun."""
    content = closed.read_bytes()
    leaf = content.index(number(CONTACTS).encode()) // 4096 * 4096
    assert content[leaf] == 13  # a leaf of a table (SQLite's file format, 1.6), then how many cells it has
    spoil(closed, leaf + 4)
    with pytest.raises(LedgerRefused, match="damaged"):
        opening(closed)
    closed.write_bytes(content.replace(b"id INTEGER PRIMARY KEY", b"id INTEGER PRIMARY_KEY"))
    with pytest.raises(LedgerRefused, match="not those of a ledger"):
        opening(closed)


def test_an_index_that_lacks_a_number_is_refused(closed):
    """By which somebody who was called could be taken into the list once more."""
    content = closed.read_bytes()
    places = [at for at in range(len(content)) if content.startswith(number(7).encode(), at)]
    in_index = max(places, key=lambda at: content[at - at % 4096] == 10)
    assert content[in_index - in_index % 4096] == 10  # a leaf of an index (SQLite's file format, 1.6)
    spoil(closed, in_index + 10)
    with pytest.raises(LedgerRefused, match="damaged"):
        LedgerFile.write(closed)


@pytest.mark.asyncio
async def test_a_row_that_is_damaged_while_it_is_open_ends_it_with_that_line(closed):
    async with SQLiteLedger(closed) as ledger:
        changed(closed, "UPDATE calls SET state = 'QUEUED' WHERE id = 1")
        with pytest.raises(LedgerFailed, match=r"^\S+ is damaged in row 1"):
            await ledger.change(1, crash())


def test_every_column_of_a_row_comes_back():
    from tenios_async.batch import tables
    from tenios_async.batch.row import Row

    request = CallbackRequest("config", number(1), 5, "Hello", "3")
    standing = Standing(RowState.FINISHED, "a", ("b", "c"), NOW, 10, NOW, None, NOW, NOW, "why", "d", 3)
    new = NewRow("key", request, 7, {"name": "M\xfcller"})
    values = (1, *tables.values_of_request(new), *tables.values_of_standing(standing))
    assert tables.row_of(values) == Row(1, "key", request, standing, 7, {"name": "M\xfcller"})
    for index in range(1, len(values)):
        with pytest.raises(tables.Damaged):
            tables.row_of([*values[:index], "other", *values[index + 1 :]])
