"""A program that gives `tenios` commands and kills itself right after the n-th thing it has made durable or asked for.

Each line on standard input is n and the command, as JSON; n of 0 lets it live. It forks for each, so that the next is
there in a millisecond, and answers with how it ended, and how far a living one has counted. What counts: each statement
that PostgreSQL has answered, a commit among them, and each mark in a file that is moved. Between two of them nothing
changes that anybody could find.
"""

import json
import os
import signal
import sys

import psycopg

from tenios_async.batch import postgres_campaign
from tenios_async.cli import run


class Deadly:
    """Counts, and dies at one."""

    def __init__(self, last: int) -> None:
        self.last, self.count = last, 0

    def after(self, function):
        def wrapped(*arguments, **options):
            result = function(*arguments, **options)
            self.count += 1
            if self.count == self.last:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped


def main() -> None:
    for line in sys.stdin:
        last, *command = json.loads(line)
        reading, report = os.pipe()
        child = os.fork()
        if child == 0:
            deadly = Deadly(last)
            psycopg.Connection.wait = deadly.after(psycopg.Connection.wait)
            postgres_campaign._mark = deadly.after(postgres_campaign._mark)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            code = 70
            try:
                code = run(command)
                os.write(report, b"%d" % deadly.count)
            finally:
                os._exit(code)
        os.close(report)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        count = os.read(reading, 100) or b"0"
        os.close(reading)
        print(code, int(count), flush=True)


if __name__ == "__main__":
    main()
