"""A program that gives `tenios` commands and kills itself right after the n-th thing it has made durable or asked for.

Each line on standard input is n and the command, as JSON; n of 0 lets it live. It answers with how it ended, and how far
a living one has counted. What counts: each statement that PostgreSQL has answered, a commit among them, and each mark in
a file that is moved. Between two of them nothing changes that anybody could find.
"""

import json
import os
import signal

import psycopg

from tenios_async.batch import postgres_campaign
from tenios_async.cli import run

from .forking import live_for_each_line


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


def live(line: str, report: int) -> int:
    last, *command = json.loads(line)
    deadly = Deadly(last)
    psycopg.Connection.wait = deadly.after(psycopg.Connection.wait)
    postgres_campaign._mark = deadly.after(postgres_campaign._mark)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    code = run(command)
    os.write(report, b"%d" % deadly.count)
    return code


if __name__ == "__main__":
    live_for_each_line(live)
