"""The ledger on the disk: one writer, nothing touched that is not ours, nothing lost, nothing written after a failure."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime

import anyio
import pytest

from tenios_async import (
    Callback,
    CallbackOutcomeUnknown,
    CallbackRequest,
    CallbackStatus,
    ConnectionFailed,
    TeniosClient,
)
from tenios_async.batch import IllegalMove, LedgerFailed, LedgerRefused, NewRow, RowState, SQLiteLedger
from tenios_async.batch.checks import is_ledger
from tenios_async.batch.ledger_file import LedgerFile
from tenios_async.batch.standing import crash, intend, place, see
from tenios_async.simulator import Fault, Manner, Service, SimulatorServer

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
REQUEST = CallbackRequest("config", "+49221123456")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "calls.db"


@pytest.fixture
def ledger_path(path):
    SQLiteLedger.create(path)
    return path


def looked_at(path):
    """The whole file and when it was changed."""
    return path.read_bytes(), path.stat().st_mtime_ns


def program(code, *arguments):
    """Another process that runs this."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


HOLD = """
import sys
from tenios_async.batch.ledger_file import LedgerFile
ledger = LedgerFile.write(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def test_only_its_owner_may_read_it(ledger_path):
    with LedgerFile.write(ledger_path) as ledger:
        with ledger.transaction():
            ledger.put(NewRow("key", REQUEST))
        files = sorted(ledger_path.parent.iterdir())
        assert [file.name for file in files] == ["calls.db", "calls.db-shm", "calls.db-wal", "calls.db.lock"]
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_it_appears_whole_or_not_at_all(path):
    def fill(ledger):
        with ledger.transaction():
            ledger.put(NewRow("key", REQUEST))
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        LedgerFile.create(path, {}, fill)
    assert list(path.parent.iterdir()) == []


def test_a_file_system_without_hard_links(path, monkeypatch):
    def link(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    SQLiteLedger.create(path)
    with pytest.raises(LedgerRefused, match="exists"):
        SQLiteLedger.create(path)
    LedgerFile.write(path).close()


def test_of_two_that_make_it_one_does(path):
    def fill(_):
        SQLiteLedger.create(path)

    with pytest.raises(LedgerRefused, match="exists"):
        LedgerFile.create(path, {}, fill)
    assert [file.name for file in path.parent.iterdir()] == ["calls.db"]


FOREIGN = {
    "empty": b"",
    "text": b"callback_number\n+49221123456\n" * 100,
    "cut off in its header": b"SQLite format 3\0" + b"\0" * 20,
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("opening", [LedgerFile.write, LedgerFile.read])
def test_what_is_no_ledger_is_not_touched(path, content, opening):
    path.write_bytes(content)
    before = looked_at(path)
    with pytest.raises(LedgerRefused, match="not touched"):
        opening(path)
    assert looked_at(path) == before


@pytest.mark.parametrize(
    "pragma", ["application_id = 7", "user_version = 2", "user_version = 0", "user_version = 16777217"]
)
def test_another_database_and_another_version_are_not_touched(ledger_path, pragma):
    connection = sqlite3.connect(ledger_path)
    connection.execute(f"PRAGMA {pragma}")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    before = looked_at(ledger_path)
    with pytest.raises(LedgerRefused):
        LedgerFile.write(ledger_path)
    assert looked_at(ledger_path) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_a_ledger_is_known_by_its_header(ledger_path, tmp_path):
    """Without waiting for anybody, and whatever stands there."""
    (tmp_path / "text").write_text("callback_number\n")
    os.mkfifo(tmp_path / "pipe")
    assert is_ledger(ledger_path)
    for other in ("missing", "text", "pipe", ".", "x" * 300):
        assert is_ledger(tmp_path / other) is False


@pytest.mark.parametrize("opening", [LedgerFile.read, LedgerFile.write])
def test_whoever_opens_one_that_is_not_there_learns_how_one_is_made(path, opening):
    with pytest.raises(LedgerRefused, match=f"there is no ledger {path}; `tenios batch create` makes one"):
        opening(path)


@pytest.mark.parametrize("opening", [LedgerFile.read, LedgerFile.write])
def test_a_folder_is_refused_as_what_cannot_be_read(tmp_path, opening):
    with pytest.raises(LedgerRefused, match=f"{tmp_path} cannot be read: Is a directory"):
        opening(tmp_path)


def test_a_damaged_one_is_not_touched(path):
    def fill(ledger):
        with ledger.transaction():
            for number in range(2000):
                ledger.put(NewRow(f"key {number}", REQUEST))

    LedgerFile.create(path, {}, fill)
    content = bytearray(path.read_bytes())
    for page in range(2, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = os.urandom(64)
    path.write_bytes(content)
    before = looked_at(path)
    with pytest.raises(LedgerRefused, match="damaged"):
        LedgerFile.write(path)
    assert looked_at(path) == before
    with pytest.raises(LedgerRefused, match="damaged"):  # and it is not kept locked
        LedgerFile.write(path)


def test_a_second_writer_is_refused_and_readers_are_welcome(ledger_path):
    with LedgerFile.write(ledger_path) as ledger:
        for _ in range(2):
            with pytest.raises(LedgerRefused, match="in use"):
                LedgerFile.write(ledger_path)
        link = ledger_path.with_name("link.db")
        link.symlink_to(ledger_path)
        with pytest.raises(LedgerRefused, match="is in use"):
            LedgerFile.write(link)
        with LedgerFile.read(ledger_path) as reader, ledger.transaction():
            ledger.put(NewRow("key", REQUEST))
            assert reader.by_key("key") is None
        for name in (ledger_path, link):
            with LedgerFile.read(name) as reader:
                assert reader.by_key("key").request == REQUEST
    LedgerFile.write(ledger_path).close()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot suspend a process")
def test_a_writer_in_another_process_holds_it_until_it_is_dead(ledger_path):
    """Also while it is suspended."""
    with program(HOLD, ledger_path) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LedgerRefused, match="in use"):
            LedgerFile.write(ledger_path)
        holder.send_signal(signal.SIGSTOP)
        with pytest.raises(LedgerRefused, match="in use"):
            LedgerFile.write(ledger_path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        LedgerFile.write(ledger_path).close()


def test_how_it_is_called(ledger_path):
    identities = set()
    for name in ("calls.db", "other.db"):
        path = ledger_path.with_name(name)
        if path != ledger_path:
            SQLiteLedger.create(path)
        for _ in range(2):
            with LedgerFile.read(path) as ledger:
                assert (ledger.name, ledger.where) == (path.stem, str(path))
                identities.add(ledger.identity)
    assert sorted(map(len, identities)) == [16, 16]


def test_a_change_that_is_not_allowed_changes_nothing(ledger_path):
    with LedgerFile.write(ledger_path) as ledger:
        with ledger.transaction():
            assert ledger.put(NewRow("key", REQUEST))
            assert not ledger.put(NewRow("key", CallbackRequest("other", "+49221999999")))
        with pytest.raises(IllegalMove), ledger.transaction():
            ledger.change(1, see("a", CallbackStatus.CONNECTED, NOW, 1))
        assert ledger.by_key("key").standing.state is RowState.QUEUED
        assert list(ledger.query("SELECT * FROM transitions")) == []


@pytest.mark.parametrize("callback_id", [10, "10", 10**40, "a-b"])
def test_an_id_comes_back_as_it_was(ledger_path, callback_id):
    with LedgerFile.write(ledger_path) as ledger:
        with ledger.transaction():
            ledger.put(NewRow("key", REQUEST, 7, {"name": "M\xfcller", "tags": [1]}))
            ledger.change(1, intend("a", NOW))
            ledger.change(1, place("a", Callback(callback_id, "config", 0, NOW)))
        row = ledger.by_key("key")
    assert row.callback == Callback(callback_id, "config", 0, NOW)
    assert (row.line, row.extra) == (7, {"name": "M\xfcller", "tags": [1]})


# --- many writers, one thread


@pytest.mark.asyncio
async def test_many_changes_share_a_commit(ledger_path):
    """While one commit is on its way to the disk the others gather."""
    async with SQLiteLedger(ledger_path) as ledger:
        file = ledger._open().file
        commits, held, go_on = [], threading.Event(), threading.Event()
        transaction = file.transaction

        def counted():
            commits.append(1)
            if len(commits) == 1:
                held.set()
                assert go_on.wait(10)
            return transaction()

        file.transaction = counted
        first = asyncio.ensure_future(ledger.put(NewRow("first", REQUEST)))
        await asyncio.to_thread(held.wait, 10)
        rest = [asyncio.ensure_future(ledger.put(NewRow(f"key {number}", REQUEST))) for number in range(100)]
        await asyncio.sleep(0)
        go_on.set()
        rows = await asyncio.gather(first, *rest)
    assert len(commits) == 2
    assert [row.id for row in rows] == list(range(1, 102))


@pytest.mark.asyncio
async def test_a_change_whose_waiter_is_cancelled_comes_before_what_follows(ledger_path):
    """Natively cancelled, twice over: the acknowledgement is lost, and the row is as it was written."""
    async with SQLiteLedger(ledger_path) as ledger:
        row = await ledger.put(NewRow("key", REQUEST))
        waiter = asyncio.ensure_future(ledger.change(row.id, intend("a", NOW)))
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        with pytest.raises(IllegalMove):
            await ledger.change(row.id, intend("b", NOW))
        assert (await ledger.by_key("key")).standing.attempt == "a"


@pytest.mark.asyncio
async def test_who_is_cancelled_takes_the_answer_from_nobody_in_the_same_commit(ledger_path):
    async with SQLiteLedger(ledger_path) as ledger:
        held, go_on = threading.Event(), threading.Event()
        holding = ledger._do(lambda _: held.set() or go_on.wait(10))
        await asyncio.to_thread(held.wait, 10)
        cancelled, *others = [
            asyncio.ensure_future(ledger.put(NewRow(f"key {number}", REQUEST))) for number in range(3)
        ]
        await asyncio.sleep(0)
        cancelled.cancel()
        go_on.set()
        assert await holding
        assert [row.id for row in await asyncio.gather(*others)] == [2, 3]
        assert (await ledger.by_key("key 0")).id == 1


FORGETFUL = """
import asyncio, sys
from tenios_async.batch import SQLiteLedger

asyncio.run(SQLiteLedger(sys.argv[1]).__aenter__())
"""


def test_a_program_that_forgets_to_close_it_ends_all_the_same(ledger_path):
    subprocess.run([sys.executable, "-c", FORGETFUL, ledger_path], check=True, timeout=30)
    LedgerFile.write(ledger_path).close()


@pytest.mark.asyncio
async def test_closing_writes_what_was_asked_for(ledger_path):
    ledger = SQLiteLedger(ledger_path)
    await ledger.__aenter__()
    waiters = [asyncio.ensure_future(ledger.put(NewRow(f"key {number}", REQUEST))) for number in range(50)]
    await asyncio.sleep(0)
    await ledger.aclose()
    await ledger.aclose()
    assert len(await asyncio.gather(*waiters)) == 50
    with pytest.raises(LedgerFailed, match="not open"):
        await ledger.put(NewRow("late", REQUEST))
    assert "tenios-ledger" not in [thread.name for thread in threading.enumerate()]


def test_it_is_used_on_the_event_loop_that_opened_it(ledger_path):
    ledger = SQLiteLedger(ledger_path)

    async def on_another():
        with pytest.raises(LedgerFailed, match="opened on another event loop; close it, and open it"):
            await ledger.put(NewRow("late", REQUEST))
        await ledger.aclose()
        async with ledger:
            assert await ledger.by_key("late") is None
            assert await ledger.by_key("key") is not None

    loop = asyncio.new_event_loop()
    loop.run_until_complete(ledger.__aenter__())
    loop.run_until_complete(ledger.put(NewRow("key", REQUEST)))
    loop.close()
    asyncio.run(on_another())


def test_closing_waits_for_no_call_whose_loop_is_closed(ledger_path):
    ledger, loop = SQLiteLedger(ledger_path), asyncio.new_event_loop()

    async def leave_a_call():
        await ledger.__aenter__()
        client = TeniosClient("key", base_url="http://127.0.0.1:9")
        placing = asyncio.ensure_future(ledger.place_once(client, REQUEST, key="key"))
        await asyncio.sleep(0)
        return placing

    placing = loop.run_until_complete(leave_a_call())
    placing._log_destroy_pending = False
    loop.close()
    asyncio.run(asyncio.wait_for(ledger.aclose(), 10))
    placing.get_coro().close()


def test_what_was_asked_on_a_loop_that_is_closed_meanwhile_is_written_all_the_same(ledger_path):
    """A thread that ended in an error would be a warning, and that an error."""
    ledger, go_on = SQLiteLedger(ledger_path), threading.Event()
    loop = asyncio.new_event_loop()

    async def ask():
        await ledger.__aenter__()
        ledger._do(lambda _: go_on.wait(10))
        ledger._do(lambda file: file.put(NewRow("key", REQUEST)))

    loop.run_until_complete(ask())
    loop.close()
    go_on.set()
    asyncio.run(ledger.aclose())
    with LedgerFile.read(ledger_path) as file:
        assert file.by_key("key") is not None


@pytest.mark.asyncio
async def test_who_is_cancelled_while_it_is_opened_keeps_no_lock(ledger_path, monkeypatch):
    held, go_on = threading.Event(), threading.Event()
    recover = LedgerFile.recover

    def slow(file):
        held.set()
        assert go_on.wait(10)
        return recover(file)

    monkeypatch.setattr(LedgerFile, "recover", slow)
    for path in (ledger_path, ledger_path.with_name("missing.db")):
        go_on.clear()
        opening = asyncio.ensure_future(SQLiteLedger(path).__aenter__())
        await (asyncio.to_thread(held.wait, 10) if path == ledger_path else asyncio.sleep(0))
        opening.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await opening
    async with SQLiteLedger(ledger_path):
        pass


@pytest.mark.asyncio
async def test_after_a_failure_nothing_more_is_written_or_dialled(ledger_path):
    """An fsync that failed is not tried again: nobody knows what the disk holds."""
    service = Service()
    async with SimulatorServer(service) as server, TeniosClient("key", base_url=server.base_url) as client:
        async with SQLiteLedger(ledger_path) as ledger:
            await ledger.place_once(client, REQUEST, key="before")
            file, tries = ledger._open().file, []

            def fail():
                tries.append(1)
                raise sqlite3.OperationalError("disk I/O error")

            file.transaction = fail
            for number in range(3):
                with pytest.raises(LedgerFailed, match="disk I/O error"):
                    await ledger.place_once(client, REQUEST, key=f"key {number}")
            assert len(tries) == 1
    assert service.inits.total() == 1
    async with SQLiteLedger(ledger_path) as ledger:
        assert (await ledger.by_key("before")).standing.state is RowState.PLACED


@pytest.mark.asyncio
async def test_what_is_asked_for_while_the_disk_fails_is_not_tried(ledger_path):
    """And nobody waits for it for ever."""
    async with SQLiteLedger(ledger_path) as ledger:
        tries, held, go_on = [], threading.Event(), threading.Event()

        def fail():
            tries.append(1)
            held.set()
            assert go_on.wait(10)
            raise sqlite3.OperationalError("disk I/O error")

        ledger._open().file.transaction = fail
        first = asyncio.ensure_future(ledger.put(NewRow("first", REQUEST)))
        await asyncio.to_thread(held.wait, 10)
        rest = [asyncio.ensure_future(ledger.put(NewRow(f"key {number}", REQUEST))) for number in range(3)]
        await asyncio.sleep(0)
        go_on.set()
        errors = await asyncio.gather(first, *rest, return_exceptions=True)
    assert {type(error) for error in errors} == {LedgerFailed}
    assert len(tries) == 1


def test_what_could_not_be_synced_is_not_synced_again_on_closing(ledger_path):
    """SQLite would move the log into the file then. All of it is there for the next to open it, who does."""
    ledger = LedgerFile.write(ledger_path)
    with ledger.transaction():
        ledger.put(NewRow("key", REQUEST))
    with pytest.raises(LedgerFailed, match="I/O"), ledger.transaction():
        raise sqlite3.OperationalError("disk I/O error")
    before = [looked_at(file) for file in (ledger_path, ledger_path.with_name("calls.db-wal"))]
    ledger.close()
    ledger.close()
    assert [looked_at(file) for file in (ledger_path, ledger_path.with_name("calls.db-wal"))] == before
    with LedgerFile.write(ledger_path) as ledger:
        assert ledger.by_key("key") is not None


def test_a_disk_that_fails_while_it_is_made(tmp_path, monkeypatch):
    """Also where its path is a relative one."""
    monkeypatch.chdir(tmp_path)

    def fill(ledger):
        with ledger.transaction():
            raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(LedgerFailed, match="I/O"):
        LedgerFile.create("calls.db", {}, fill)
    assert list(tmp_path.iterdir()) == []


NO_ROOM = """
import resource, signal, sys
from tenios_async.batch import LedgerFailed, SQLiteLedger

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    SQLiteLedger.create(sys.argv[1])
except LedgerFailed as error:
    print("failed:", error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no limit to the size of a file")
@pytest.mark.parametrize("room", [0, 5000, 20_000])
def test_a_disk_without_room_for_a_new_one(path, room):
    """Not even for its first page, its tables, or what it is."""
    with program(NO_ROOM, path, room) as making:
        out, _ = making.communicate()
    assert out.startswith(f"failed: {path} cannot be written")
    assert list(path.parent.iterdir()) == []


@pytest.mark.asyncio
async def test_one_that_cannot_be_recovered_is_let_go_again(ledger_path, monkeypatch):
    """A web backend that tries it again, once there is room, must not find it in use by itself."""

    def fail(_):
        raise LedgerFailed("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(LedgerFile, "recover", fail)
        with pytest.raises(LedgerFailed, match="full"):
            await SQLiteLedger(ledger_path).__aenter__()
    async with SQLiteLedger(ledger_path):
        pass


def test_what_turns_out_to_be_damaged_while_it_is_open_is_said_to_be(ledger_path):
    """The damage is met by whoever reads that page first, in the middle of a run."""
    with LedgerFile.write(ledger_path) as ledger:
        with pytest.raises(LedgerRefused, match="is damaged"), ledger.transaction():
            raise sqlite3.DatabaseError("database disk image is malformed")


@pytest.mark.asyncio
async def test_what_cannot_be_written_down_is_told_to_who_asked_for_it_alone(ledger_path):
    """One request of a web page must not end all the others'."""
    broken = NewRow("key", REQUEST, extra={"not": object()})
    odd = NewRow("key", REQUEST, line=[1])
    async with SQLiteLedger(ledger_path) as ledger:
        asked = [ledger.put(new) for new in (NewRow("before", REQUEST), broken, odd, NewRow("after", REQUEST))]
        before, error, other, after = await asyncio.gather(*asked, return_exceptions=True)
        assert (before.id, after.id) == (1, 2)
        assert isinstance(error, TypeError)
        assert isinstance(other, (sqlite3.InterfaceError, sqlite3.ProgrammingError))  # by the version of Python

        def half(_):
            ledger._open().file.put(NewRow("half", REQUEST))
            raise ValueError("in the middle")

        with pytest.raises(LedgerFailed, match=r"db: ValueError\('in the middle'\)"):  # nobody knows what it has done
            await ledger._do(half)
    async with SQLiteLedger(ledger_path) as ledger:
        assert await ledger.by_key("half") is None


FULL = """
import asyncio, resource, signal, sys
from tenios_async import CallbackRequest, TeniosClient
from tenios_async.batch import LedgerFailed, SQLiteLedger

async def main(path, url):
    async with TeniosClient("key", base_url=url) as client, SQLiteLedger(path) as ledger:
        for number in range(10_000):
            try:
                await ledger.place_once(client, CallbackRequest("config", f"+4922100{number:05}"), key=str(number))
            except LedgerFailed:
                print(number)
                return

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.asyncio
@pytest.mark.skipif(sys.platform == "win32", reason="this system has no limit to the size of a file")
async def test_a_disk_that_is_full(ledger_path):
    """No file may grow beyond 1 MB. What was acknowledged is there, and nobody was dialled who is not."""
    service = Service()
    async with SimulatorServer(service) as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FULL, ledger_path, server.base_url, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
    assert process.returncode == 0
    done = int(out)
    assert done > 5
    async with SQLiteLedger(ledger_path) as ledger:
        for number in range(done):
            assert (await ledger.by_key(str(number))).standing.state is RowState.PLACED
        in_doubt = (await ledger.counts())[RowState.UNKNOWN]
    assert service.inits.total() <= done + in_doubt
    service.assert_nobody_called_twice()


# --- one call


class Watched(Service):
    """Looks into the ledger whenever a call arrives."""

    def __init__(self, path, **options):
        super().__init__(**options)
        self.path, self.seen = path, []

    def handle(self, method, path, body):
        with LedgerFile.read(self.path) as ledger:
            self.seen.append([row.standing.state for row in ledger.rows()])
        return super().handle(method, path, body)


@pytest.mark.asyncio
async def test_the_intent_is_on_the_disk_before_the_first_byte(ledger_path):
    service = Watched(ledger_path)
    async with SimulatorServer(service) as server, TeniosClient("key", base_url=server.base_url) as client:
        async with SQLiteLedger(ledger_path) as ledger:
            await ledger.place_once(client, REQUEST, key="key")
    assert service.seen == [[RowState.SENDING]]


@pytest.mark.asyncio
async def test_a_hundred_who_ask_at_once_get_the_same_callback(ledger_path):
    service = Service()
    async with SimulatorServer(service) as server, TeniosClient("key", base_url=server.base_url) as client:
        async with SQLiteLedger(ledger_path) as ledger:
            callbacks = await asyncio.gather(*(ledger.place_once(client, REQUEST, key="key") for _ in range(100)))
        async with SQLiteLedger(ledger_path) as ledger:
            callbacks.append(await ledger.place_once(client, REQUEST, key="key"))
            with pytest.raises(ValueError, match="another request"):
                await ledger.place_once(client, CallbackRequest("config", "+49221999999"), key="key")
    assert len(set(callbacks)) == 1
    assert service.inits.total() == 1


@pytest.mark.asyncio
async def test_who_asks_for_something_else_spoils_it_for_nobody(ledger_path):
    service = Service()
    other = CallbackRequest("config", "+49221999999")
    async with SimulatorServer(service) as server, TeniosClient("key", base_url=server.base_url) as client:
        async with SQLiteLedger(ledger_path) as ledger:
            placed = await ledger.place_once(client, REQUEST, key="key")
            asked = [ledger.place_once(client, request, key="key") for request in (other, REQUEST, other, REQUEST)]
            first, second, third, fourth = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(found) for found in (first, third)] == [ValueError, ValueError]
    assert placed == second == fourth
    assert service.inits.total() == 1


@pytest.mark.asyncio
async def test_a_doubt_is_shared_and_stays(ledger_path):
    service = Service()
    service.fail_init(Fault.lost(Manner.DROP))
    async with SimulatorServer(service) as server, TeniosClient("key", base_url=server.base_url) as client:
        for _ in range(2):
            async with SQLiteLedger(ledger_path) as ledger:
                asked = [ledger.place_once(client, REQUEST, key="key") for _ in range(10)]
                errors = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(error) for error in errors} == {CallbackOutcomeUnknown}
            assert len({str(error) for error in errors}) == 1
            assert len({id(error) for error in errors}) == 10
    assert service.inits.total() == 1


@pytest.mark.asyncio
async def test_what_was_refused_or_not_sent_may_be_asked_for_again(ledger_path):
    service = Service()
    service.fail_init(Fault(400))
    async with SQLiteLedger(ledger_path) as ledger:
        async with TeniosClient("key", base_url="http://127.0.0.1:9") as nobody:
            with pytest.raises(ConnectionFailed):
                await ledger.place_once(nobody, REQUEST, key="key", timeout=0.2)
        async with SimulatorServer(service) as server, TeniosClient("key", base_url=server.base_url) as client:
            with pytest.raises(Exception, match="SIMULATED"):
                await ledger.place_once(client, REQUEST, key="key")
            assert (await ledger.place_once(client, REQUEST, key="key")).id == 10
    assert service.inits.total() == 2


@pytest.mark.asyncio
async def test_when_the_first_to_ask_is_cancelled_the_others_still_get_it(ledger_path):
    """Cancelled while the intent is being written: nothing leaves by it."""
    service = Service()
    async with SimulatorServer(service) as server, TeniosClient("key", base_url=server.base_url) as client:
        async with SQLiteLedger(ledger_path) as ledger:
            await ledger.put(NewRow("key", REQUEST))
            file, held, go_on = ledger._open().file, threading.Event(), threading.Event()
            change = file.change

            def slow(*change_of):
                held.set()
                assert go_on.wait(10)
                return change(*change_of)

            file.change = slow
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as group:

                    async def cancel():
                        await asyncio.to_thread(held.wait, 10)
                        scope.cancel()
                        file.change = change
                        go_on.set()

                    group.start_soon(cancel)
                    await ledger.place_once(client, REQUEST, key="key")
            assert scope.cancelled_caught
            assert service.inits.total() == 0
            assert (await ledger.by_key("key")).standing.state is RowState.QUEUED
            assert (await ledger.place_once(client, REQUEST, key="key")).id == 10
    assert service.inits.total() == 1


@pytest.mark.asyncio
async def test_too_long_after_the_intent_nothing_leaves(ledger_path, monkeypatch):
    """A program that was suspended between its intent and its request."""
    from tenios_async.batch import NotSent, placing

    service, clock = Service(), iter([0.0, 11.0])
    monkeypatch.setattr(placing, "awake", lambda: next(clock))
    async with SimulatorServer(service) as server, TeniosClient("key", base_url=server.base_url) as client:
        async with SQLiteLedger(ledger_path) as ledger:
            with pytest.raises(NotSent, match="suspended"):
                await ledger.place_once(client, REQUEST, key="key")
            assert (await ledger.by_key("key")).standing.state is RowState.QUEUED
    assert service.inits.total() == 0


@pytest.mark.asyncio
async def test_what_a_watch_has_seen_outlives_the_program(ledger_path):
    service = Service()
    async with SimulatorServer(service) as server, TeniosClient("key", base_url=server.base_url) as client:
        async with SQLiteLedger(ledger_path) as ledger:
            placed = await ledger.place_once(client, REQUEST, key="key")
            await ledger.saw("key", CallbackStatus.CALLING_A)
        async with SQLiteLedger(ledger_path) as ledger:
            token = (await ledger.by_key("key")).callback
            assert (token.id, token.status, token.placed_at) == (placed.id, "CALLING_A", placed.placed_at)
            assert await ledger.place_once(client, REQUEST, key="key") == token
            await ledger.saw("key", CallbackStatus.DISCONNECTED)
            await ledger.saw("key", CallbackStatus.CALLING_B)
            row = await ledger.by_key("key")
            assert (row.standing.state, row.callback.status) == (RowState.FINISHED, "DISCONNECTED")
            await ledger.put(NewRow("not placed", REQUEST))
            for key in ("not placed", "never heard of"):
                with pytest.raises(ValueError, match="no call was placed"):
                    await ledger.saw(key, CallbackStatus.CALLING_A)


@pytest.mark.asyncio
async def test_a_value_that_sqlite_cannot_take_is_no_damage(ledger_path):
    async with SQLiteLedger(ledger_path) as ledger:
        with pytest.raises(UnicodeEncodeError):
            await ledger._do(lambda file: file.by_key("\ud800"))
        assert await ledger.by_key("key") is None


DYING = """
import asyncio, os, sys
from tenios_async import CallbackRequest, TeniosClient
from tenios_async.batch import SQLiteLedger

async def main(path, url):
    async with TeniosClient("key", base_url=url) as client, SQLiteLedger(path) as ledger:
        await ledger.place_once(client, CallbackRequest("config", "+49221123456"), key="key")

asyncio.run(main(*sys.argv[1:]))
"""


class Deadly(Service):
    """Kills whoever asks to place a call, after it was accepted."""

    victim = None

    def handle(self, method, path, body):
        answer = super().handle(method, path, body)
        os.kill(self.victim.pid, signal.SIGKILL)
        return answer


@pytest.mark.asyncio
async def test_killed_between_the_intent_and_the_answer(ledger_path):
    service = Deadly()
    async with SimulatorServer(service) as server:
        service.victim = await asyncio.create_subprocess_exec(sys.executable, "-c", DYING, ledger_path, server.base_url)
        assert await service.victim.wait() == -signal.SIGKILL
    async with SQLiteLedger(ledger_path) as ledger:
        with pytest.raises(CallbackOutcomeUnknown, match="ended while"):
            await ledger.place_once(TeniosClient("key"), REQUEST, key="key")
    assert service.inits.total() == 1


@pytest.mark.parametrize("left", ["-wal", "-journal"])
def test_what_is_left_of_a_ledger_of_that_name_is_not_taken_into_a_new_one(path, left):
    """SQLite would play another ledger's log into it."""
    path.with_name(path.name + left).write_bytes(b"x" * 100)
    with pytest.raises(LedgerRefused, match="left of another ledger"):
        SQLiteLedger.create(path)
    assert [file.name for file in path.parent.iterdir()] == [f"calls.db{left}"]


def test_a_list_that_cannot_be_read_is_no_failure_of_the_ledger(ledger_path):
    """And it is closed as well as ever."""

    def fill(_):
        raise FileNotFoundError(2, "No such file", "contacts.csv")

    with pytest.raises(FileNotFoundError):
        LedgerFile.create(ledger_path.with_name("new.db"), {}, fill)
    with LedgerFile.write(ledger_path) as ledger:
        with pytest.raises(FileNotFoundError), ledger.transaction():
            fill(ledger)
        with pytest.raises(FileNotFoundError), ledger.snapshot():
            fill(ledger)
        with ledger.transaction():
            ledger.put(NewRow("key", REQUEST))
    with LedgerFile.read(ledger_path) as ledger:
        assert list(ledger.query("SELECT is_open FROM mark")) == [(0,)]


def test_an_id_belongs_to_one_call(ledger_path):
    """A person who mistypes one must not have two calls followed as one."""
    with LedgerFile.write(ledger_path) as ledger, ledger.transaction():
        for number in range(1, 4):
            ledger.put(NewRow(f"order {number}", REQUEST, line=9 if number == 2 else None))
            ledger.change(number, intend("a", NOW))
        ledger.change(1, place("a", Callback(4711, "config", 0, NOW)))
        ledger.change(2, place("a", Callback("x-1", "config", 0, NOW)))
    with LedgerFile.write(ledger_path) as ledger:
        assert ledger.recover() == 1
        (first,) = ledger.rows(RowState.UNKNOWN)
        for callback_id, whose in ((4711, "key order 1"), ("4711", "key order 1"), ("x-1", "line 9")):
            with pytest.raises(IllegalMove, match=f"that of {whose}"), ledger.transaction():
                ledger.resolve(first, NOW, who="A", was_called=True, callback=Callback(callback_id))
        with ledger.transaction():
            ledger.resolve(first, NOW, who="A", was_called=True, callback=Callback(4712))


def test_one_that_has_moved_is_not_run_and_nothing_is_resolved_in_it(ledger_path):
    with LedgerFile.write(ledger_path) as ledger, ledger.transaction():
        ledger.put(NewRow("key", REQUEST))
        ledger.change(1, intend("a", NOW))
        ledger.change(1, crash())
        ledger.put_facts({"moved_to": "there"})
        assert ledger.facts == {"kind": "keyed", "moved_to": "there"}
    before = looked_at(ledger_path)
    for _ in range(2):  # and it is not kept locked
        with pytest.raises(LedgerRefused, match="has moved to there"):
            LedgerFile.write(ledger_path)
    assert looked_at(ledger_path) == before
    with LedgerFile.read(ledger_path) as ledger:
        (row,) = ledger.rows(RowState.UNKNOWN)
        with pytest.raises(LedgerRefused, match="has moved to there"), ledger.transaction():
            ledger.resolve(row, NOW, who="A", was_called=True)
    with LedgerFile.write(ledger_path, even_moved=True) as ledger:
        assert ledger.counts()[RowState.UNKNOWN] == 1


def test_a_commit_that_has_returned_survives_a_power_cut(ledger_path):
    """What no test can pull the plug for: SQLite is told to wait for the disk, and on macOS for its cache too."""
    for opening in (LedgerFile.write, LedgerFile.read):
        with opening(ledger_path) as ledger:
            asked = ("journal_mode", "synchronous", "fullfsync", "checkpoint_fullfsync")
            assert [next(ledger.query(f"PRAGMA {name}"))[0] for name in asked] == ["wal", 2, 1, 1]


@pytest.mark.asyncio
async def test_no_more_rows_are_in_sending_than_there_are_connections(ledger_path, monkeypatch):
    """At every commit: so many are in doubt after a crash at the worst."""
    sending, transaction = [], LedgerFile.transaction

    @contextlib.contextmanager
    def counted(file):
        with transaction(file):
            yield
            sending.append(file.counts()[RowState.SENDING])

    monkeypatch.setattr(LedgerFile, "transaction", counted)
    async with SimulatorServer(Service()) as server:
        async with TeniosClient("key", base_url=server.base_url, max_connections=3) as client:
            async with SQLiteLedger(ledger_path) as ledger:
                requests = [CallbackRequest("config", f"+4922100{number:05}") for number in range(200)]
                await asyncio.gather(*(ledger.place_once(client, r, key=r.callback_number) for r in requests))
                assert (await ledger.counts())[RowState.PLACED] == 200
    assert 0 < max(sending) <= 3


@pytest.mark.asyncio
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_cancelled_while_the_intent_is_being_committed(ledger_path, times):
    """Natively, past every shield, and again while that is being undone: the acknowledgement is lost, the row is not."""
    service = Service()
    async with SimulatorServer(service) as server, TeniosClient("key", base_url=server.base_url) as client:
        async with SQLiteLedger(ledger_path) as ledger:
            await ledger.put(NewRow("key", REQUEST))
            file, held, go_on = ledger._open().file, threading.Event(), threading.Event()
            change = file.change

            def slow(*change_of):
                held.set()
                assert go_on.wait(10)
                return change(*change_of)

            file.change = slow
            placing = asyncio.ensure_future(ledger.place_once(client, REQUEST, key="key"))
            await asyncio.to_thread(held.wait, 10)
            for _ in range(times):
                placing.cancel()
                await asyncio.sleep(0)
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await placing
            assert (await ledger.by_key("key")).standing.state is RowState.QUEUED
            assert service.inits.total() == 0
            assert (await ledger.place_once(client, REQUEST, key="key")).id == 10
    assert service.inits.total() == 1
