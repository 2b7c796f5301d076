"""A program that works a campaign and kills itself right before or right after its n-th write to the disk.

Each line on standard input is a ledger, a base URL, n and `before` or `after`. It answers with the exit code and the
number of writes there were. Writes are: a commit, any
statement that writes by itself, a checkpoint, the witness beside the ledger, and each fsync of the library's own.
"""

import asyncio
import os
import signal
from pathlib import Path

from tenios_async.batch import beside, opening

from ..batch.forking import live_for_each_line
from ..batch.worker import work

ALONE = ("UPDATE", "INSERT")
"""What writes by itself, where no transaction is open."""


class Deadly:
    """Counts writes, and dies at one."""

    def __init__(self, write: int, side: str) -> None:
        self.write, self.side, self.count = write, side, 0

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

    class Connection(opening.Connection):
        def execute(self, sql, *values):
            run = super().execute
            is_alone = sql.startswith(ALONE) and not self.in_transaction
            if is_alone or sql.startswith(("COMMIT", "PRAGMA wal_checkpoint")):
                run = deadly.around(run)
            return run(sql, *values)

    opening.Connection = Connection
    beside._write = deadly.around(beside._write)
    os.fsync = deadly.around(os.fsync)


def live(line: str, report: int) -> int:
    ledger_path, base_url, write, side = line.split()
    deadly = Deadly(int(write), side)
    install(deadly)
    told = os.open(Path(ledger_path).with_name("told"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    asyncio.run(work(ledger_path, base_url, told))
    os.write(report, b"%d" % deadly.count)
    return 0


if __name__ == "__main__":
    live_for_each_line(live)
