"""The canary itself: what is printed, logged, pickled or written is found, and what was asked for is not."""

import logging
import pickle
from pathlib import Path

import pytest

from .canary import ASKED_FOR, NUMBERS, Found, Listener, look
from .faults.rooms import numbers

KEY, NUMBER = "CANARY-KEY-0123456789", "+4915799900042"


@pytest.mark.parametrize("secret", [KEY, NUMBER, NUMBER[1:]])
def test_what_it_finds(secret):
    with pytest.raises(Found) as found:
        look("a test", f"before {secret} after".encode())
    assert secret not in str(found.value)
    listener = Listener()
    listener.emit(logging.LogRecord("a", logging.DEBUG, "", 0, "%s", (secret,), None))
    assert listener.found


def test_each_number_that_the_experiments_draw():
    assert all(NUMBERS.search(number.encode()) for number in numbers())


def test_a_pickle():
    with pytest.raises(Found):
        pickle.dumps([KEY])


@pytest.mark.parametrize("name", ["campaign.db", "campaign.db-wal", "contacts.csv", "rejects.txt"])
def test_where_a_number_is_asked_for(name):
    look(name, NUMBER.encode(), number=ASKED_FOR.search(name) is None)
    with pytest.raises(Found):
        look(name, KEY.encode(), number=False)


@pytest.mark.parametrize("name", ["report.html", "campaign.db.lock", "log", "stderr"])
def test_where_it_is_not(name):
    with pytest.raises(Found):
        look(name, NUMBER.encode(), number=ASKED_FOR.search(name) is None)


@pytest.mark.no_canary
def test_the_whole_of_it(pytester, monkeypatch):
    """In a suite of its own: a print, a log record and a file, each in a test that passes otherwise."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    pytester.makeconftest("from tests.canary import register as pytest_configure")
    pytester.makepyfile(
        f"""
        import logging

        def test_prints():
            print("{KEY}")

        def test_logs():
            logging.getLogger("tenios_async").debug("%s", "{NUMBER}")

        def test_writes(tmp_path):
            (tmp_path / "campaign.db").write_text("{NUMBER}")

        def test_says_nothing():
            print("+49*******042")
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, failed=2)
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
