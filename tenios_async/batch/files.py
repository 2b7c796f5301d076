"""Files that are written for people: whole or not at all, readable by their owner only, and never over a ledger."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tenios_async.batch.checks import is_ledger

if TYPE_CHECKING:
    from collections.abc import Generator

BELONGING = ("-wal", "-shm", "-journal", ".lock")
"""What the names of the files beside a ledger end in."""


@contextmanager
def replacing(file: Path) -> Generator[IO[str]]:
    """Replaces a file in one step: whoever reads it meanwhile sees the old or the new. Raises as `check_writable`."""
    check_replaceable(file)
    handle, name = _temporary(file)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as part:
            yield part
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def check_writable(file: Path) -> None:
    """Finds out whether it could be replaced. Raises `ValueError` where that would lose a ledger, and `OSError`."""
    check_replaceable(file)
    if file.is_dir():
        raise IsADirectoryError(f"{file} is a folder, and no file can be written there")
    handle, name = _temporary(file)
    os.close(handle)
    Path(name).unlink()


def check_replaceable(file: Path, *needed: Path | str | None) -> None:
    """Raises `ValueError` where writing it would lose a ledger, or one of the files that are needed."""
    for other in needed:
        if other is not None and file.resolve() == Path(other).resolve():
            raise ValueError(f"{file} is not overwritten: it is needed; give another name")
    owners = (file.with_name(name) for suffix in BELONGING if (name := file.name.removesuffix(suffix)) != "")
    if is_ledger(file) or any(map(is_ledger, owners)):
        raise ValueError(f"{file} is not overwritten: it is a ledger, or belongs to one; give another name")


def _temporary(file: Path) -> tuple[int, str]:
    try:
        return tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    except OSError as problem:
        raise OSError(problem.errno, f"{file} cannot be written: {os.strerror(problem.errno or 0)}") from None
