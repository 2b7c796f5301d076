"""A PostgreSQL of the tests' own: real, in a folder that is thrown away, reached by a socket in that folder.

It promises what a ledger asks for (fsync is on), and can be restarted, killed, and made to cut its connections.
"""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

PLACE = Path(os.environ.get("TENIOS_TESTS_POSTGRESQL_IN", "/tmp"))
"""Everybody may go there, and its name leaves room for that of a socket."""
USERS = ("postgres", "nobody")
"""As whom it runs where the tests run as root, which PostgreSQL refuses."""


def binaries() -> Path | None:
    """Where its programs are, the newest, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found += [Path(path) for path in [shutil.which("initdb")] if path is not None and not found]
    return found[-1].resolve().parent if found else None


class Server:
    """One that runs. Made by `running`."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self._programs = programs
        self._user = _unprivileged()

    def url(self, schema: str = "tenios") -> str:
        return f"postgresql://tester@/postgres?host={self.folder}&schema={schema}"

    def start(self, *options: str) -> None:
        settings = ("listen_addresses=", f"unix_socket_directories={self.folder}", "max_connections=200", *options)
        asked = " ".join(f"-c {setting}" for setting in settings)
        self._run("pg_ctl", "start", "-w", "-t", "60", "-D", self.data, "-l", self.folder / "log", "-o", asked)

    def stop(self, how: str = "fast") -> None:
        self._run("pg_ctl", "stop", "-w", "-t", "60", "-m", how, "-D", self.data)

    def restart(self, how: str = "fast", *, away: float = 0.0) -> None:
        """`immediate` is a crash."""
        self.stop(how)
        time.sleep(away)
        self.start()

    def make(self) -> None:
        self._run("initdb", "-D", self.data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync")

    def execute(self, statement: str) -> list[tuple]:
        import psycopg

        with psycopg.connect(f"postgresql://tester@/postgres?host={self.folder}", autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def cut_connections(self, share: float = 1.0) -> int:
        """Of that share of those that others have, drawn by lot. How many."""
        where = f"pid <> pg_backend_pid() AND backend_type = 'client backend' AND random() < {share}"
        return len(self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {where}"))

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def _run(self, program: str, *arguments: object) -> None:
        done = subprocess.run(
            [self._programs / program, *map(str, arguments)],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            stderr=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            check=False,
            **self._user,
        )
        log = "".join(file.read_text() for file in self.folder.glob("log"))
        assert not done.returncode, f"{program}: {done.stderr!r}\n{log}"


@contextlib.contextmanager
def running(*options: str):
    """A server, until the end of the block. `binaries` must be there."""
    programs = binaries()
    prefix = f"pg-{os.getpgrp()}-"
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=PLACE))
    server = Server(folder, programs)
    shutil.chown(folder, server._user.get("user", os.getuid()))
    try:
        server.make()
        server.start(*options)
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged() -> dict:
    if os.getuid() != 0:  # where the machine lacks it
        return {}
    there = {user.pw_name: user.pw_gid for user in pwd.getpwall()}
    found = [{"user": name, "group": there[name], "extra_groups": []} for name in USERS if name in there]
    assert found, "PostgreSQL does not run as root, and there is no user it could run as"
    return found[0]
