"""A program that works on a ledger keeps its log, whatever else the same program does with the file."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from tenios_async import CallbackRequest
from tenios_async.batch import Campaign, LedgerInUse, NewRow
from tenios_async.batch.files import check_replaceable
from tenios_async.batch.ledger_file import LedgerFile
from tenios_async.batch.numbers import Numbers, read_opt_outs
from tenios_async.batch.opening import connect, header

REQUEST = CallbackRequest("config", "+49221123456")
LOOK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(*(key for (key,) in connection.execute("SELECT key FROM calls")))
connection.close()
"""


def open_it_again(path):
    with pytest.raises(LedgerInUse):
        LedgerFile.write(path)


def look_at_it(path):
    LedgerFile.read(path).close()


def begin_to_write_over_it(path):
    with pytest.raises(ValueError, match="not overwritten"):
        check_replaceable(path)


def begin_to_write_over_its_log(path):
    with pytest.raises(ValueError, match="not overwritten"):
        check_replaceable(path.with_name(f"{path.name}-wal"))


def take_it_for_a_list_of_contacts(path):
    with pytest.raises(ValueError, match="this is a ledger"):
        Campaign.create(path.with_name("new.db"), path, callback_config_id="config", prefixes=["+49"])


def take_it_for_a_list_of_numbers(path):
    with pytest.raises(ValueError, match="is a ledger"):
        read_opt_outs(path, Numbers(prefixes=["+49"]))


def open_it_by_another_name(path):
    other = path.with_name("other.db")
    os.link(path, other)
    with pytest.raises(ValueError, match="not overwritten"):
        check_replaceable(other)


@pytest.mark.parametrize(
    "disturb",
    [
        open_it_again,
        look_at_it,
        begin_to_write_over_it,
        begin_to_write_over_its_log,
        take_it_for_a_list_of_contacts,
        take_it_for_a_list_of_numbers,
        open_it_by_another_name,
    ],
)
def test_what_is_written_stays_where_others_find_it(tmp_path, disturb):
    """Another program looks, and would remove the log when it closes the file if it took itself for the last."""
    path = tmp_path / "calls.db"

    def look():
        looked = subprocess.run([sys.executable, "-c", LOOK, str(path)], capture_output=True, text=True, check=True)
        return looked.stdout.split()

    LedgerFile.create(path, {})
    with LedgerFile.write(path) as ledger:

        def write(key):
            with ledger.transaction():
                ledger.put(NewRow(key, REQUEST))

        write("first")
        disturb(path)
        assert look() == ["first"]
        write("second")
        assert look() == ["first", "second"]


def test_a_header_is_read_from_the_file_once_nobody_here_has_it_open(tmp_path):
    path = tmp_path / "file.db"
    path.touch()
    with closing(connect(path)) as connection, closing(connect(path)):
        connection.execute("CREATE TABLE one (two)")
        assert header(path) == b""
    assert header(path).startswith(b"SQLite format 3\0")
    assert len(header(path)) == 100


def test_what_cannot_be_opened_is_not_taken_for_open(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def failing(*_, **__):
        raise sqlite3.OperationalError("unable to open database file")

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", failing)
        with pytest.raises(sqlite3.OperationalError):
            connect(path)
    path.write_bytes(b"after")
    assert header(path) == b"after"


def test_a_file_that_is_not_there(tmp_path):
    for opening in (connect, header):
        with pytest.raises(FileNotFoundError):
            opening(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []
