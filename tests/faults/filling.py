"""A program that places calls through a ledger until nothing can be written down any more, and prints how many it did.

Its arguments: a ledger, a base URL, the path of a folder for the ledger's files when it is over, and what goes wrong:
`nothing` (the disk itself is small), `size=BYTES` (no file may grow beyond), `fsync=COMMITS` or `write=COMMITS` (after
so many commits, of which a call has three, the kernel answers each fsync, or each write to the ledger, with an error).
"""

import asyncio
import ctypes
import errno
import os
import platform
import shutil
import struct
import sys
from pathlib import Path

from tenios_async import CallbackRequest, TeniosClient
from tenios_async.batch import LedgerFailed, SQLiteLedger

from .rooms import CONFIG, KEY, numbers

SYSCALLS = {
    "x86_64": (0xC000003E, 317, {"fsync": (74, 75), "write": (18,)}),
    "aarch64": (0xC00000B7, 277, {"fsync": (82, 83), "write": (68,)}),
}
"""By machine: its name in linux/audit.h, seccomp(2), and fsync(2), fdatasync(2) and pwrite64(2)."""
SET_MODE_FILTER, ALL_THREADS, NO_NEW_PRIVILEGES = 1, 1, 38
RETURN_ERROR, ALLOW = 0x00050000, 0x7FFF0000


def break_syscalls(what: str, code: int) -> None:
    """From now on these fail in every thread of this process: a filter of seccomp(2), for which nobody need be root."""
    architecture, seccomp, numbers_of = SYSCALLS[platform.machine()]
    forbidden = numbers_of[what]
    load, jump_if_equal, give = 0x20, 0x15, 0x06  # linux/bpf_common.h
    program = [(load, 0, 0, 4), (jump_if_equal, 1, 0, architecture), (give, 0, 0, ALLOW), (load, 0, 0, 0)]
    program += [(jump_if_equal, len(forbidden) - index, 0, number) for index, number in enumerate(forbidden)]
    program += [(give, 0, 0, ALLOW), (give, 0, 0, RETURN_ERROR | code)]
    filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(filters)))
    libc = ctypes.CDLL(None, use_errno=True)
    refused = libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.syscall(seccomp, SET_MODE_FILTER, ALL_THREADS, header)
    if refused:  # where the machine lacks it
        raise OSError(ctypes.get_errno(), "no filter of system calls can be set")


def limit_files(size: int) -> None:
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


class Breaking(SQLiteLedger):
    """Breaks the disk before one of the commits: that of a new row, of its intent, or of its outcome."""

    def __init__(self, path: Path, what: str, count: int) -> None:
        super().__init__(path)
        self._what = what
        self._left = count if what in ("fsync", "write") else -1

    async def put(self, new):
        self._commit()
        return await super().put(new)

    async def change_all(self, changes):
        self._commit()
        return await super().change_all(changes)

    def _commit(self) -> None:
        if self._left == 0:
            break_syscalls(self._what, errno.EIO if self._what == "fsync" else errno.ENOSPC)
        self._left -= 1


async def fill(path: Path, url: str, what: str, count: int) -> int:
    """How many calls were placed before the ledger failed."""
    async with TeniosClient(KEY, base_url=url) as client, Breaking(path, what, count) as ledger:
        for done, number in enumerate(numbers()):
            try:
                await ledger.place_once(client, CallbackRequest(CONFIG, number), key=number)
            except LedgerFailed:
                if what == "size":
                    limit_files(-1)  # there is room again
                for _ in range(3):  # and it stays so: nobody knows what the disk holds
                    try:
                        await ledger.place_once(client, CallbackRequest(CONFIG, "+4915799999999"), key="another")
                    except LedgerFailed:
                        continue
                    raise AssertionError("placed after the ledger had failed") from None  # where a promise is broken
                return done
    raise AssertionError("it never failed")  # where a promise is broken


def main(path: str, url: str, kept: str, fault: str) -> None:
    ledger = Path(path)
    what, _, count = fault.partition("=")
    SQLiteLedger.create(ledger)
    if what == "size":
        limit_files(int(count))
    done = asyncio.run(fill(ledger, url, what, int(count or 0)))
    print(done, flush=True)
    for file in ledger.parent.glob(ledger.name + "*"):
        if what == "nothing":
            shutil.copy(file, kept)
    os._exit(0)  # the rest would need a disk that works


if __name__ == "__main__":
    main(*sys.argv[1:])
