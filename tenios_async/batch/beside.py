"""The file beside a ledger: the lock of its one writer, and a second witness of how far the ledger came.

SQLite takes what is damaged at the end of its write-ahead log for a commit that never was
(https://www.sqlite.org/fileformat2.html#walformat). A ledger that forgot an intent would ring somebody twice, so that
the number of the last commit is written here too, after it: a ledger that is behind it is refused. It is not waited for
until it is on the disk: after a power cut it may be older than the ledger, which proves nothing, but never newer.
"""

from __future__ import annotations

import os
import struct
import sys
import zlib
from typing import TYPE_CHECKING, Final

from tenios_async.batch.errors import LedgerInUse

if TYPE_CHECKING:
    from pathlib import Path

_OFFSET: Final = 16
"""Where the witness is: Windows lets nobody read the bytes that are locked, which are the first."""
_WITNESS: Final = struct.Struct(">8sQ")
_SUM: Final = struct.Struct(">I")
_SIZE: Final = _WITNESS.size + _SUM.size


def beside(ledger: Path) -> Path:
    """The path of the file."""
    return ledger.with_name(ledger.name + ".lock")


class Beside:
    """The right to write, for as long as this process lives and holds the file open, suspended or not.

    Raises `LedgerInUse` where somebody else has it.
    """

    def __init__(self, ledger: Path) -> None:
        path = beside(ledger)
        self._file = _open(path)
        try:
            _lock(self._file)
        except OSError:
            self.release()
            raise LedgerInUse(
                f"{ledger} is in use: another program is writing to it (held by {path.name}); end that one first"
            ) from None

    def record(self, identity: bytes, commits: int) -> None:
        """Writes down that this commit is on the disk. Raises OSError."""
        _write(self._file, identity, commits)

    def sync(self) -> None:
        """Returns when what it holds is on the disk."""
        os.fsync(self._file)

    def release(self) -> None:
        """Lets the next writer in. May be called twice."""
        if self._file != -1:
            os.close(self._file)
            self._file = -1


def witnessed(ledger: Path, identity: bytes) -> int | None:
    """How many commits of this ledger were acknowledged, at the least.

    0 where the file is empty; None where there is none, or one that is damaged or of another ledger.
    """
    try:
        with beside(ledger).open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return 0
            file.seek(_OFFSET)
            content = file.read(_SIZE)
    except FileNotFoundError:
        return None
    head, checksum = content[: _WITNESS.size], content[_WITNESS.size :]
    if len(content) != _SIZE or checksum != _SUM.pack(zlib.crc32(head)):
        return None
    its_identity, commits = _WITNESS.unpack(head)
    return commits if its_identity == identity else None


def record_beside(ledger: Path, identity: bytes, commits: int) -> None:
    """The same for who writes without the lock, in the middle of a run: `resolve`. Raises OSError."""
    if (witnessed(ledger, identity) or 0) >= commits:
        return
    file = _open(beside(ledger))
    try:
        _write(file, identity, commits)
    finally:
        os.close(file)


def _open(path: Path) -> int:
    flags = os.O_CREAT | os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)  # as the system has them
    return os.open(path, flags, 0o600)


def _write(file: int, identity: bytes, commits: int) -> None:
    head = _WITNESS.pack(identity, commits)
    os.lseek(file, _OFFSET, os.SEEK_SET)
    os.write(file, head + _SUM.pack(zlib.crc32(head)))


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
