"""The secret canary: what the suites use as key and number is in nothing that they printed, logged, pickled or wrote.

A pytest plugin for all tests. Looked at are: what each test printed and logged (the library's loggers at DEBUG; those
of httpx and asyncio at what a test asks for), whatever `pickle.dumps` made, and at the end every file that is
left in the tests' temporary folders. A number may stand in files in which the user asked for it: a ledger, a list of
contacts, what was rejected, an export. A key may stand nowhere but in the file that the user keeps it in.
"""

from __future__ import annotations

import logging
import pickle
import re
from pathlib import Path

import pytest

KEYS = re.compile(rb"CANARY-KEY|s3cret-key-of-the-tests")
NUMBERS = re.compile(rb"49157999[0-9]{5}|498765432101|498005556677")
LOGGERS = ("tenios_async", "httpx", "httpcore", "asyncio")
ASKED_FOR = re.compile(r"\.(csv|jsonl|txt|db|db-wal|db-shm|part|py)$|rejects|export")
"""Names of files in which the user wants the number."""


KEPT_IN = "key"
"""The name of the file that a test hands over with --access-key-file, or the like."""
EXCUSED = "no-canary"
"""The name of a file beside secrets that a test left on purpose. Who looks at the end may be another process."""


class Found(AssertionError):
    """A secret stands where none may."""


def look(what: str, data: bytes, *, number: bool = True) -> None:
    """Raises `Found`, and shows what is around it and not the secret."""
    for pattern in (KEYS, NUMBERS) if number else (KEYS,):
        if (hit := pattern.search(data)) is not None:
            around = data[max(0, hit.start() - 80) : hit.start()] + b"<here>" + data[hit.end() : hit.end() + 80]
            raise Found(f"a secret in {what}: {around!r}")


class Listener(logging.Handler):
    """Hears every record; what it finds it keeps until the test is over."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.found: list[Found] = []

    def emit(self, record: logging.LogRecord) -> None:
        try:
            look(f"a record of {record.name}", self.format(record).encode("utf-8", "replace"))
        except Found as found:
            self.found.append(found)


class Canary:
    """The plugin."""

    def __init__(self) -> None:
        self._listener = Listener()
        self._dumps = pickle.dumps

    def pytest_sessionstart(self) -> None:
        for name in LOGGERS:
            logging.getLogger(name).addHandler(self._listener)
        logging.getLogger("tenios_async").setLevel(logging.DEBUG)

        def dumps(*arguments, **options):
            data = self._dumps(*arguments, **options)
            look("a pickle", data)
            return data

        pickle.dumps = dumps

    def pytest_unconfigure(self) -> None:
        pickle.dumps = self._dumps
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(self._listener)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        try:
            if item.get_closest_marker("no_canary") is not None:
                if call.when == "call" and "pytester" in item.funcargs:
                    (item.funcargs["pytester"].path / EXCUSED).touch()
            else:
                for name, text in report.sections:
                    if not name.endswith(call.when):
                        continue  # was looked at when it was new
                    look(name.lower(), text.encode("utf-8", "replace"))
                if self._listener.found:  # where a promise is broken
                    raise self._listener.found[0]
        except Found as found:
            report.outcome, report.longrepr = "failed", f"{item.nodeid} ({call.when}): {found}"
        finally:
            self._listener.found.clear()
        return report

    def pytest_sessionfinish(self, session) -> None:
        factory = getattr(session.config, "_tmp_path_factory", None)
        base = getattr(factory, "_basetemp", None)  # where nothing was made there is none
        if base is None:
            return
        if hasattr(session.config, "workerinput"):  # one of several, started by who looks at what all of them have left
            return
        excused = [mark.parent for mark in Path(base).rglob(EXCUSED)]
        for file in Path(base).rglob("*"):
            if file.name == KEPT_IN or any(map(file.is_relative_to, excused)):
                continue
            if not file.is_file() or file.is_symlink():
                continue
            try:
                look(str(file), file.read_bytes(), number=ASKED_FOR.search(file.name) is None)
            except Found as found:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
                session.config.get_terminal_writer().line(f"\n{found}", red=True)


def register(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "no_canary: a test that logs or prints a secret to prove that it would be found")
    config.pluginmanager.register(Canary(), "tenios_canary")
