"""Files that are replaced in one step, and what is asked of a file before it is taken for a ledger."""

import pytest

from tenios_async.batch import LedgerRefused
from tenios_async.batch.checks import is_ledger
from tenios_async.batch.files import replacing
from tenios_async.batch.ledger_file import LedgerFile


def write_half(file):
    with replacing(file) as part:
        part.write("half")
        raise ZeroDivisionError


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path):
    file = tmp_path / "report.html"
    file.write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_half(file)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert file.read_text() == "old"
    with replacing(file) as part:
        part.write("new")
        assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert file.read_text() == "new"


def test_what_cannot_be_read_is_no_ledger_and_says_why(tmp_path):
    assert not is_ledger(tmp_path)
    assert not is_ledger(tmp_path / ("x" * 5000))
    with pytest.raises(LedgerRefused, match="cannot be read"):
        LedgerFile.read(tmp_path)
