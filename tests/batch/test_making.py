"""How the file of a ledger appears: over nothing, and there for good."""

import contextlib
import os
import stat

import pytest

from tenios_async.batch.errors import LedgerRefused
from tenios_async.batch.making import appearing

pytestmark = pytest.mark.skipif(os.name == "nt", reason="this system syncs no folders and knows no dangling links")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "campaign.db"


@pytest.fixture(params=["with hard links", "without"])
def links(request, monkeypatch):
    """File systems of both kinds."""
    if request.param == "without":

        def refuse(*_):
            raise PermissionError("this file system has no hard links")

        monkeypatch.setattr(os, "link", refuse)


def begin(path):
    """What comes before there is anything to fill."""
    contextlib.ExitStack().enter_context(appearing(path))


@pytest.mark.usefixtures("links")
def test_it_has_its_name_when_all_of_it_is_there(path):
    with appearing(path) as part:
        part.write_text("all of it", encoding="utf-8")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "all of it"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.usefixtures("links")
def test_what_takes_its_name_meanwhile_stays_as_it_is(path):
    with pytest.raises(LedgerRefused, match="exists already; it is not overwritten"), appearing(path):
        path.write_text("of somebody else", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "of somebody else"
    assert list(path.parent.iterdir()) == [path]


def test_its_name_is_on_the_disk_when_it_is_told_of(path, monkeypatch):
    synced = []

    def fsync(handle):
        synced.append((handle, os.path.samestat(os.fstat(handle), path.parent.stat()), path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    with appearing(path):
        pass
    ((handle, is_the_folder, has_its_name),) = synced
    assert is_the_folder
    assert has_its_name
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)


def test_a_name_that_is_taken_is_refused_before_anything_is_made(path):
    path.touch()
    with pytest.raises(LedgerRefused, match="`tenios batch add` adds to a campaign"):
        begin(path)


def test_a_link_that_leads_nowhere_is_a_name_that_is_taken(path):
    path.symlink_to("nowhere")
    with pytest.raises(LedgerRefused, match="`tenios batch add` adds to a campaign"):
        begin(path)


def test_a_folder_that_is_missing_is_named(path):
    with pytest.raises(LedgerRefused, match=r"there is no folder .*missing"):
        begin(path.parent / "missing" / "campaign.db")


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_what_is_left_of_another_ledger_is_not_taken_for_a_part_of_the_new_one(path, suffix):
    path.with_name(path.name + suffix).touch()
    with pytest.raises(LedgerRefused, match=f"{suffix} is left of another ledger"):
        begin(path)


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_nothing_is_left_of_one_that_could_not_be_filled(path, suffix):
    def fill():
        with appearing(path) as part:
            part.with_name(part.name + suffix).touch()
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        fill()
    assert list(path.parent.iterdir()) == []
