"""A ledger on a disk that is full, on one that fails, and one whose bytes are torn off or flipped."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import platform
import subprocess
import sys
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tenios_async import Callback, CallbackRequest, CallbackStatus, TeniosClient
from tenios_async.batch import LedgerFailed, LedgerRefused, NewRow, RowState, SQLiteLedger
from tenios_async.batch.ledger_file import LedgerFile
from tenios_async.batch.standing import intend, see
from tenios_async.batch.standing import place as placed
from tenios_async.simulator import Service, SimulatorServer

from .experiment import Skipped, Tally, experiment, folder
from .filling import SYSCALLS
from .killing import ROOT
from .rooms import CONFIG, KEY, numbers

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

    from tenios_async.batch import Row

COMMITS_OF_A_CALL = 3
FULL, FAILING = 4, 2 * COMMITS_OF_A_CALL
ENDED = (RowState.FINISHED, CallbackStatus.DISCONNECTED)
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


async def fill(parent: Path, fault: str, tally: Tally, *, mounted: list[str] | None = None) -> None:
    """Runs the program until its ledger fails, and holds what it left against what the server counted."""
    service, kept = Service(), parent / "kept"
    kept.mkdir()
    small = parent / "small"
    small.mkdir()
    path = (small if mounted else kept) / "calls.db"
    async with SimulatorServer(service) as server:
        command = [sys.executable, "-m", "tests.faults.filling", str(path), server.base_url, str(kept), fault]
        if mounted:
            # mount(8) in a namespace of its own: nobody else sees it, and it is gone with the program.
            script = 'mount -t tmpfs -o size="$0" none "$1" && shift && exec "$@"'
            command = [*mounted, "sh", "-c", script, fault.removeprefix("tmpfs="), str(small), *command[:-1], "nothing"]
        program = await asyncio.create_subprocess_exec(
            *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
        )
        out, err = await program.communicate()
        if mounted and any(line.startswith(b"mount:") for line in err.splitlines()):
            raise Skipped("nothing can be mounted here")
        assert program.returncode == 0, err.decode()
        done, rung = int(out), set(service.inits)
        fresh = list(itertools.islice(numbers(), done + 20))
        async with SQLiteLedger(kept / "calls.db") as ledger, TeniosClient(KEY, base_url=server.base_url) as tenios:
            for number in fresh[:done]:
                row = await ledger.by_key(number)
                assert row.standing.state is RowState.PLACED, "lost"
                assert service.callbacks[row.standing.callback_id].number == number
            for number in rung:  # one more than were done, where it was the outcome that could not be written
                row = await ledger.by_key(number)
                assert row is not None, "rung, and not written down"
                assert row.standing.state in (RowState.PLACED, RowState.UNKNOWN), "rung, and to be dialled again"
            for number in fresh:  # there is room again
                with contextlib.suppress(Exception):
                    await ledger.place_once(tenios, CallbackRequest(CONFIG, number), key=number)
    service.assert_nobody_called_twice()
    assert service.inits["+4915799999999"] == 0, "dialled after the ledger had failed"
    assert service.inits.total() >= done + 19, "it does not go on once there is room again"
    tally.trial(f"placed {done // 50 * 50} to {done // 50 * 50 + 49}")


def namespace() -> list[str] | None:
    """What runs a program that may mount, as root or as anybody; None where there is no such thing."""
    return next((command for command in (["unshare", "-m"], ["unshare", "-Urm"]) if _may_mount(command)), None)


def _may_mount(command: list[str]) -> bool:
    with contextlib.suppress(OSError):
        mount = [*command, "mount", "-t", "tmpfs", "none", "/mnt"]
        return subprocess.run(mount, capture_output=True, check=False).returncode == 0
    return False  # where the machine lacks it


@experiment(
    "The disk under a ledger is full: a small file system of its own, or a limit to the size of files",
    "placing stops for good, also once there is room; nothing recorded is lost, nothing dialled that is not written down; the "
    "next program goes on",
    trials=FULL,
    passes=25,
)
def full_disk(chance: random.Random, tally: Tally) -> None:
    if sys.platform == "win32":
        raise Skipped("this system has no limit to the size of a file")
    unshare = namespace()

    async def main() -> None:
        for index in range(FULL):
            with folder() as parent:
                if index % 2 == 0 and unshare is not None:
                    await fill(parent, f"tmpfs={chance.randrange(300, 900)}k", tally, mounted=unshare)
                else:
                    await fill(parent, f"size={chance.randrange(100_000, 600_000)}", tally)

    asyncio.run(main())


@experiment(
    "The kernel answers each fsync of a ledger, or each write to it, with an error from some moment on",
    "placing stops; nothing recorded is lost; nothing is dialled that is not written down",
    trials=FAILING,
    passes=25,
)
def failing_disk(chance: random.Random, tally: Tally) -> None:
    if sys.platform != "linux" or platform.machine() not in SYSCALLS:
        raise Skipped("system calls cannot be made to fail here: that takes seccomp of Linux on x86_64 or aarch64")

    async def main() -> None:
        for index in range(FAILING):
            with folder() as parent:
                commits = COMMITS_OF_A_CALL * chance.randrange(60) + index // 2
                await fill(parent, f"{('fsync', 'write')[index % 2]}={commits}", tally)

    asyncio.run(main())


SAMPLED = 37
"""In CI of so many bytes of a page one; of the heads of frames all."""
FRAME_HEAD, WAL_HEAD = 24, 32
"""https://www.sqlite.org/fileformat2.html#walformat"""


def recorded(ledger: LedgerFile, index: int, number: str) -> None:
    """A whole life, in four commits."""
    with ledger.transaction():
        ledger.put(NewRow(number, CallbackRequest(CONFIG, number)))
    row = ledger.by_key(number)
    moves = [intend(f"a{index}", NOW), placed(f"a{index}", Callback(index + 10, CONFIG, 0, NOW))]
    for move in [*moves, see(f"a{index}", CallbackStatus.DISCONNECTED, NOW, 1)]:
        with ledger.transaction():
            ledger.change(row.id, move)


class Left:
    """What a program left: the ledger, its log and the witness beside it; and what they say."""

    def __init__(self, parent: Path, *, is_closed: bool) -> None:
        path = parent / "calls.db"
        SQLiteLedger.create(path)
        ledger = LedgerFile.write(path)
        written = list(itertools.islice(numbers(), 8))
        for index, number in enumerate(written):
            recorded(ledger, index, number)
        if is_closed:
            ledger.close()
        self.files = {file.name: file.read_bytes() for file in parent.iterdir() if not file.name.endswith("-shm")}
        self.rows: list[Row] = list(ledger.rows()) if not is_closed else []
        ledger.close()
        if is_closed:
            with LedgerFile.read(path) as reader:
                self.rows = list(reader.rows())
        said = [(row.key, row.request.callback_number, row.standing) for row in self.rows]
        assert [(key, number) for key, number, _ in said] == [(number, number) for number in written]
        assert [standing.callback_id for _, _, standing in said] == list(range(10, 18))
        assert {(standing.state, standing.status) for _, _, standing in said} == {ENDED}

    def damaged(self, parent: Path, name: str, content: bytes, tally: Tally) -> None:
        """Either it says all that was recorded, or it is refused and not touched."""
        files = {**self.files, name: content}
        for other, data in files.items():
            (parent / other).write_bytes(data)
        path = parent / "calls.db"
        try:
            for opening in (LedgerFile.read, LedgerFile.write):
                with opening(path) as ledger:
                    assert list(ledger.rows()) == self.rows, "it has forgotten, or says something else"
            tally.trial("whole")
        except (LedgerRefused, LedgerFailed) as refusal:
            assert {other: (parent / other).read_bytes() for other in files} == files, "touched"
            tally.trial(type(refusal).__name__)
        for file in parent.iterdir():
            file.unlink()


def tail(left: Left, chance: random.Random, *, every: bool) -> Iterator[tuple[str, int]]:
    """The bytes of the last commits in the log, or the last pages of the file, and those of the witness."""
    log, page = "calls.db-wal", 4096
    if log in left.files:
        size, frame = len(left.files[log]), FRAME_HEAD + page
        first = WAL_HEAD + max(0, (size - WAL_HEAD) // frame - 4) * frame
        heads = {WAL_HEAD + n * frame + at for n in range((size - WAL_HEAD) // frame) for at in range(FRAME_HEAD)}
        name = log
    else:
        name, size = "calls.db", len(left.files["calls.db"])
        first, heads = max(0, size - 4 * page), set(range(100))
    phase = chance.randrange(SAMPLED)
    yield from ((name, at) for at in range(first, size) if every or at in heads or at % SAMPLED == phase)
    yield from ((name, at) for at in range(WAL_HEAD))
    yield from (("calls.db.lock", at) for at in range(len(left.files["calls.db.lock"])))


@experiment(
    "A ledger torn off, and a bit of it flipped, at each byte of its tail (in CI at one in 37 of a page), heads and witness",
    "it says all that was recorded, or is refused and not touched",
    trials=None,
    passes=3,
)
def torn_and_flipped(chance: random.Random, tally: Tally) -> None:
    for is_closed in (False, True):
        with folder() as parent, folder() as place:
            left, bits = Left(parent, is_closed=is_closed), chance.randrange(1 << 32)
            for name, at in tail(left, chance, every=tally.is_measuring):
                content = left.files[name]
                flipped = bytearray(content)
                # Of each byte the same, whichever are drawn: the pass that makes it again draws all of them.
                flipped[at] ^= 1 << zlib.crc32(f"{bits}/{name}/{at}".encode()) % 8
                for damage in (content[:at], bytes(flipped)):
                    try:
                        left.damaged(place, name, damage, tally)
                    except AssertionError as error:  # where a promise is broken
                        error.add_note(f"{name}, byte {at}, {'torn off' if len(damage) == at else 'flipped'}")
                        raise
    assert {"whole", "LedgerRefused"} <= set(tally.ended)
