"""How the file of a ledger appears: whole or not at all, readable by its owner only, and over nothing."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from typing import TYPE_CHECKING

from tenios_async.batch.errors import LedgerRefused, refused_or_failed

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path


@contextlib.contextmanager
def appearing(path: Path) -> Generator[Path]:
    """An empty file that gets its name when this is left. Raises `LedgerRefused` where that exists, `LedgerFailed`."""
    _check_new(path)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with refused_or_failed(path):
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        yield part
        with refused_or_failed(path):
            _link(part, path)
            sync_folder(path.parent)
    finally:
        for leftover in (part, *_siblings(part)):
            leftover.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Returns when it is on the disk which files there are."""
    if sys.platform == "win32":
        return  # which has no such thing
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_new(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise LedgerRefused(f"{path} exists already; it is not overwritten. `tenios batch add` adds to a campaign")
    if not path.parent.is_dir():
        raise LedgerRefused(f"{path} cannot be made: there is no folder {path.parent}")
    for left in _siblings(path):
        if left.exists():  # SQLite would take it for the end of the new one
            raise LedgerRefused(f"{left} is left of another ledger that was called {path.name}; move it away first")


def _link(part: Path, path: Path) -> None:
    """Gives it its name. Raises `LedgerRefused` where somebody else took that meanwhile; a rename would not."""
    try:
        try:
            os.link(part, path)
        except OSError:  # a file system without hard links, such as FAT, or somebody else was first
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
            part.replace(path)
    except FileExistsError:
        raise LedgerRefused(f"{path} exists already; it is not overwritten") from None


def _siblings(path: Path) -> Iterator[Path]:
    for suffix in ("-wal", "-shm", "-journal"):
        yield path.with_name(path.name + suffix)
