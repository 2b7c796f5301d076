"""The canary itself: what is printed, logged, pickled or written is found, and what was asked for is not."""

from pathlib import Path

import pytest

from .canary import ASKED_FOR, NUMBERS, Found, look, look_into
from .faults.rooms import numbers

KEY, NUMBER = "CANARY-KEY-0123456789", "+4915799900042"


@pytest.mark.parametrize("secret", [KEY, NUMBER, NUMBER[1:]])
def test_what_it_finds(secret):
    with pytest.raises(Found) as found:
        look("a test", f"before {secret} after".encode())
    assert secret not in str(found.value)


def test_each_number_that_the_experiments_draw():
    assert all(NUMBERS.search(number.encode()) for number in numbers())


@pytest.mark.parametrize("name", ["campaign.db", "campaign.db-wal", "contacts.csv", "rejects.txt"])
def test_where_a_number_is_asked_for(name):
    look(name, NUMBER.encode(), number=ASKED_FOR.search(name) is None)
    with pytest.raises(Found):
        look(name, KEY.encode(), number=False)


def test_a_database_keeps_numbers_and_its_log_none():
    look_into("/tmp/pg-1/data/base/5/2619", NUMBER.encode())
    for path, secret in (("/tmp/pg-1/data/base/5/2619", KEY), ("/tmp/pg-1/log", NUMBER)):
        with pytest.raises(Found):
            look_into(path, secret.encode())


@pytest.mark.parametrize("name", ["report.html", "campaign.db.lock", "log", "stderr"])
def test_where_it_is_not(name):
    with pytest.raises(Found):
        look(name, NUMBER.encode(), number=ASKED_FOR.search(name) is None)


LEAKS = f"""
import asyncio, io, logging, os, pickle, shutil, subprocess
from multiprocessing.reduction import ForkingPickler

import pytest

from tests.faults.experiment import folder

KEY, NUMBER = "{KEY}", "{NUMBER}"


def test_leaks_a_print():
    print(KEY)

@pytest.mark.asks_for_numbers
def test_leaks_a_key_beside_numbers():
    print(NUMBER, KEY)

def test_leaks_what_it_reads_itself(capsys):
    print(KEY)
    capsys.readouterr()

def test_leaks_what_it_reads_of_a_descriptor(capfdbinary):
    os.write(2, NUMBER.encode())
    capfdbinary.readouterr()

def test_leaks_by_a_child():
    subprocess.run(["echo", KEY], capture_output=True, check=True)

def test_leaks_by_the_errors_of_a_child():
    with subprocess.Popen(["sh", "-c", f"echo {{NUMBER}} >&2"], stderr=subprocess.PIPE, text=True) as child:
        child.communicate()

def test_leaks_by_a_line_of_a_child():
    with subprocess.Popen(["echo", KEY], stdout=subprocess.PIPE, text=True) as child:
        child.stdout.readline()

def test_leaks_by_a_child_of_asyncio():
    async def main():
        child = await asyncio.create_subprocess_exec("echo", KEY, stdout=subprocess.PIPE)
        await child.communicate()

    asyncio.run(main())

def test_leaks_a_record():
    logging.getLogger("tenios_async").debug("%s", NUMBER)

def test_leaks_a_record_that_nobody_wants():
    logging.getLogger("elsewhere").debug("%s", KEY)

def test_leaks_a_record_that_goes_no_further(monkeypatch):
    monkeypatch.setattr(logging.getLogger("elsewhere"), "propagate", False)
    logging.getLogger("elsewhere").info("%s", KEY)

def test_leaks_a_pickle():
    pickle.dumps([KEY])

def test_leaks_a_pickle_in_a_file():
    pickle.dump([KEY], io.BytesIO())

def test_leaks_by_a_pickler():
    pickle.Pickler(io.BytesIO()).dump([NUMBER])

def test_leaks_to_another_process():
    ForkingPickler.dumps([KEY])

def test_leaks_a_file_that_it_removes(tmp_path):
    (tmp_path / "log").write_text(NUMBER)
    (tmp_path / "log").unlink()

def test_leaks_a_folder_that_it_removes(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "campaign.db").write_text(KEY)
    shutil.rmtree(tmp_path / "one")

def test_leaks_in_an_experiment():
    with folder() as path:
        (path / "campaign.db.lock").write_text(NUMBER)


def test_says_nothing():
    print("+49*******042")

def test_keeps_a_ledger(tmp_path):
    (tmp_path / "campaign.db").write_text(NUMBER)

def test_has_had_a_ledger():
    with folder() as path:
        (path / "campaign.db").write_text(NUMBER)

def test_has_had_a_key(tmp_path):
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key").unlink()

@pytest.mark.asks_for_numbers
def test_asks_for_numbers(capsys):
    print(NUMBER)
    capsys.readouterr()
    print(NUMBER)
    subprocess.run(["echo", NUMBER], capture_output=True, check=True)

def test_logs_what_no_one_can_show():
    class Shy:
        def __str__(self):
            raise ValueError

    logging.getLogger("elsewhere").debug("%s", Shy())
"""


@pytest.mark.no_canary
def test_the_whole_of_it(pytester, monkeypatch):
    """In a suite of its own, of tests that pass otherwise."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    pytester.makeconftest("from tests.canary import register as pytest_configure")
    pytester.makepyfile(LEAKS)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-v")
    lines = [line.split("::")[1] for line in result.stdout.lines if " PASSED " in line or " FAILED " in line]
    assert lines
    for line in lines:
        assert line.startswith("test_leaks_") == ("FAILED" in line), line
    leaks, all_ = LEAKS.count("def test_leaks_"), LEAKS.count("def test_")
    result.assert_outcomes(passed=all_ - leaks, failed=leaks)
    assert KEY not in result.stdout.str().partition("short test summary")[2]


@pytest.mark.no_canary
@pytest.mark.parametrize("jobs", [0, 2])
def test_a_file_that_is_left_fails_the_suite(pytester, monkeypatch, jobs):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    pytester.makeconftest("from tests.canary import register as pytest_configure")
    pytester.makepyfile(f"def test_writes(tmp_path):\n    (tmp_path / 'report.html').write_text('{NUMBER}')")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-n", str(jobs))
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines("*a secret in */report.html*")


@pytest.mark.no_canary
@pytest.mark.parametrize("jobs", [0, 2])
def test_what_a_test_of_the_canary_leaves_is_excused_and_no_more_whoever_ran_it(pytester, monkeypatch, jobs):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    pytester.makeconftest("pytest_plugins = ['pytester']\nfrom tests.canary import register as pytest_configure")
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.mark.no_canary
        def test_excused(pytester):
            (pytester.mkdir("below") / "report.html").write_text('{NUMBER}')

        def test_beside_it(tmp_path):
            (tmp_path / "log").write_text('{NUMBER}')
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-n", str(jobs))
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    (found,) = [line for line in result.stdout.lines if "a secret in" in line]
    assert "test_beside_it0/log" in found
