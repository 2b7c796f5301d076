"""The secret canary: what the suites use as key and number is in nothing that they printed, logged, pickled or wrote.

A pytest plugin for all tests. Looked at are: what each test printed, what it read of that by `capsys` and of what its
child processes printed; each record of each logger at each level; whatever `pickle` made; every file that this process
removes during a test, and at the end every one that is left in the tests' temporary folders. A number may stand in files
in which the user asked for it: a ledger, a list of contacts, what was rejected, an export; and in what a test prints
that is marked so. A key may stand nowhere but in the file that the user keeps it in.
"""

from __future__ import annotations

import asyncio.subprocess
import contextlib
import functools
import logging
import multiprocessing.reduction
import os
import pickle
import re
import subprocess
from pathlib import Path

import pytest

KEYS = (re.compile(rb"CANARY-KEY"), re.compile(rb"s3cret-key-of-the-tests"))
NUMBERS = re.compile(rb"49157999[0-9]{5}|498765432101|498005556677")
ASKED_FOR = re.compile(r"\.(csv|jsonl|txt|db|db-wal|db-shm|part|py)$|rejects|export")
"""Names of files in which the user wants the number."""
DATABASE = re.compile(r"/pg-[^/]+/data/")
"""Where the tests' PostgreSQL keeps its ledgers."""


KEPT_IN = "key"
"""The name of the file that a test hands over with --access-key-file, or the like."""
EXCUSED = "no-canary"
"""The name of a file beside secrets that a test left on purpose. Who looks at the end may be another process."""


class Found(AssertionError):
    """A secret stands where none may."""


def look(what: str, data: bytes, *, number: bool = True) -> None:
    """Raises `Found`, and shows what is around it and not the secret."""
    for pattern in (*KEYS, NUMBERS) if number else KEYS:
        if (hit := pattern.search(data)) is not None:
            around = data[max(0, hit.start() - 80) : hit.start()] + b"<here>" + data[hit.end() : hit.end() + 80]
            raise Found(f"a secret in {what}: {around!r}")


def look_into(path: str, data: bytes) -> None:
    """The same for a file."""
    name = Path(path).name
    if name != KEPT_IN:
        look(path, data, number=ASKED_FOR.search(name) is None and DATABASE.search(path) is None)


class Listener(logging.Handler):
    """Hears every record."""

    def __init__(self, look) -> None:
        super().__init__()
        self._look = look

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:  # an argument that cannot be shown shows nothing
            return
        self._look(f"a record of {record.name}", text.encode("utf-8", "replace"))


class Written:
    """A file that is looked at as it is written. A pickler takes no more of it than this."""

    def __init__(self, file, look) -> None:
        self._file, self._look = file, look

    def write(self, data):
        self._look(bytes(data))
        return self._file.write(data)


class Canary:
    """The plugin. What it finds it keeps until the test is over."""

    def __init__(self) -> None:
        self._found: list[Found] = []
        self._is_in_test = self._is_asked_for = False
        self._patch = pytest.MonkeyPatch()

    def pytest_sessionstart(self) -> None:
        logging.getLogger("tenios_async").setLevel(logging.DEBUG)
        self._hear_what_is_read()
        self._hear_loggers()
        self._hear_pickles()
        self._see_files_that_go()

    def pytest_unconfigure(self) -> None:
        self._patch.undo()

    def _look(self, what: str, data: bytes, *, look=look, **options) -> None:
        try:
            look(what, data, **options)
        except Found as found:
            self._found.append(found)

    def _look_at_print(self, what: str, text: str | bytes | None) -> None:
        data = text.encode("utf-8", "replace") if isinstance(text, str) else text or b""
        self._look(what, data, number=not self._is_asked_for)

    def _looking(self, what: str, function):
        """The function, whose results are looked at."""

        @functools.wraps(function)
        def looking(*arguments, **options):
            result = function(*arguments, **options)
            for text in result if isinstance(result, tuple) else (result,):
                self._look_at_print(what, text)
            return result

        return looking

    def _hear_what_is_read(self) -> None:
        captured, process = pytest.CaptureFixture, subprocess.Popen
        self._patch.setattr(captured, "readouterr", self._looking("what was captured", captured.readouterr))
        self._patch.setattr(process, "communicate", self._looking("what a child printed", process.communicate))
        start = process.__init__

        @functools.wraps(start)
        def started(process, *arguments, **options):
            start(process, *arguments, **options)
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.readline = self._looking("what a child printed", pipe.readline)

        self._patch.setattr(process, "__init__", started)
        protocol = asyncio.subprocess.SubprocessStreamProtocol
        receive = protocol.pipe_data_received

        @functools.wraps(receive)
        def received(child, fd, data):
            self._look_at_print("what a child printed", data)
            receive(child, fd, data)

        self._patch.setattr(protocol, "pipe_data_received", received)

    def _hear_loggers(self) -> None:
        listener = Listener(self._look)
        is_enabled, call_handlers = logging.Logger.isEnabledFor, logging.Logger.callHandlers

        def call(logger, record):
            listener.handle(record)
            if is_enabled(logger, record.levelno):
                call_handlers(logger, record)

        self._patch.setattr(logging.Logger, "isEnabledFor", lambda logger, _: not logger.disabled)
        self._patch.setattr(logging.Logger, "callHandlers", call)

    def _hear_pickles(self) -> None:
        look, forking = functools.partial(self._look, "a pickle"), multiprocessing.reduction.ForkingPickler
        dump, dumps, begin = pickle.dump, pickle.dumps, forking.__init__

        def dumped(obj, file, *arguments, **options):
            dump(obj, Written(file, look), *arguments, **options)

        def made(*arguments, **options):
            data = dumps(*arguments, **options)
            look(data)
            return data

        def begun(pickler, file, *arguments):
            begin(pickler, Written(file, look), *arguments)

        class Pickler(pickle.Pickler):
            def __init__(self, file, *arguments, **options):
                super().__init__(Written(file, look), *arguments, **options)

        self._patch.setattr(pickle, "dump", dumped)
        self._patch.setattr(pickle, "dumps", made)
        self._patch.setattr(pickle, "Pickler", Pickler)
        self._patch.setattr(forking, "__init__", begun)

    def _see_files_that_go(self) -> None:
        """`Path.unlink`, `shutil.rmtree` and what removes a temporary folder use these too."""
        for name in ("unlink", "remove"):
            remove = getattr(os, name)

            @functools.wraps(remove)
            def removed(path, *, dir_fd=None, remove=remove):
                if self._is_in_test:
                    self._see(path, dir_fd)
                remove(path, dir_fd=dir_fd)

            self._patch.setattr(os, name, removed)

    def _see(self, path, dir_fd: int | None) -> None:
        folder = Path() if dir_fd is None else Path("/proc/self/fd", str(dir_fd)).resolve()
        file = folder / os.fsdecode(path)
        with contextlib.suppress(OSError):  # it is for who removes it to say what is wrong with it
            if file.is_file() and not file.is_symlink():
                self._look(str(file), file.read_bytes(), look=look_into)

    def check(self) -> None:
        """Raises the first that was found since the last time."""
        found, self._found = self._found, []
        if found:
            raise found[0]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self._is_in_test, self._is_asked_for = True, item.get_closest_marker("asks_for_numbers") is not None
        try:
            return (yield)
        finally:
            self._is_in_test = self._is_asked_for = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        if item.get_closest_marker("no_canary") is not None:
            if call.when == "call" and "pytester" in item.funcargs:
                (item.funcargs["pytester"].path / EXCUSED).touch()
        else:
            for name, text in report.sections:
                if name.endswith(call.when):  # the others were looked at when they were new
                    self._look_at_print(name.lower(), text)
            if self._found:  # where a promise is broken
                report.outcome, report.longrepr = "failed", f"{item.nodeid} ({call.when}): {self._found[0]}"
        self._found.clear()
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
            if any(map(file.is_relative_to, excused)):
                continue
            if not file.is_file() or file.is_symlink():
                continue
            try:
                look_into(str(file), file.read_bytes())
            except Found as found:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
                session.config.get_terminal_writer().line(f"\n{found}", red=True)


@contextlib.contextmanager
def watching():
    """The same for a program without pytest, but for what it prints itself."""
    canary = Canary()
    canary.pytest_sessionstart()
    canary._is_in_test = True
    try:
        yield canary
    finally:
        canary.pytest_unconfigure()


def register(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "no_canary: a test that logs or prints a secret to prove that it would be found")
    config.addinivalue_line("markers", "asks_for_numbers: a test in which the user has the numbers printed")
    config.pluginmanager.register(Canary(), "tenios_canary")
