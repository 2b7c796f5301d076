"""A program that works a campaign and kills itself right before or right after its n-th write to the disk.

Each line on standard input is a ledger, a base URL, n and `before` or `after`. It forks for it, so that the next is
there in a millisecond, and answers with the exit code and the number of writes there were. Writes are: a commit, any
statement that writes by itself, a checkpoint, the witness beside the ledger, and each fsync of the library's own.
"""

import asyncio
import os
import signal
import sqlite3
import sys
from pathlib import Path

from tenios_async.batch import beside

from ..batch.worker import work

ALONE = ("UPDATE", "INSERT")
"""What writes by itself, where no transaction is open."""


class Deadly:
    """Counts writes, and dies at one."""

    def __init__(self, write: int, side: str, report: int) -> None:
        self.write, self.side, self.report = write, side, report
        self.count = 0

    def around(self, function):
        def wrapped(*arguments, **options):
            self.count += 1
            if self.count == self.write and self.side == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **options)
            if self.count == self.write and self.side == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped


def install(deadly: Deadly) -> None:
    """Only here, in the child."""

    class Connection(sqlite3.Connection):
        def execute(self, sql, *values):
            run = super().execute
            is_alone = sql.startswith(ALONE) and not self.in_transaction
            if is_alone or sql.startswith(("COMMIT", "PRAGMA wal_checkpoint")):
                run = deadly.around(run)
            return run(sql, *values)

    connect = sqlite3.connect
    sqlite3.connect = lambda *arguments, **options: connect(*arguments, factory=Connection, **options)
    beside._write = deadly.around(beside._write)
    os.fsync = deadly.around(os.fsync)


def live(ledger_path: str, base_url: str, write: str, side: str, report: int) -> None:
    deadly = Deadly(int(write), side, report)
    install(deadly)
    told = os.open(Path(ledger_path).with_name("told"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    asyncio.run(work(ledger_path, base_url, told))
    os.write(report, b"%d" % deadly.count)


def main() -> None:
    for line in sys.stdin:
        reading, report = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                live(*line.split(), report)
            except BaseException as error:
                print(f"{error!r}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        os.close(report)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        writes = os.read(reading, 100) or b"0"
        os.close(reading)
        print(code, int(writes), flush=True)


if __name__ == "__main__":
    main()
