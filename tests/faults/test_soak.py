"""The soak itself: what it prints of an experiment that holds, fails, passes its bound or is skipped, and how it ends."""

import logging
import sys

import pytest

from . import soak
from .experiment import Experiment, Skipped


def experiment(name, run, trials=1):
    return Experiment(name, "a fault", "an invariant", trials, 2, run)


def holds(chance, tally):
    tally.measured("late", 0.1, "s", bound=0.25)
    tally.measured("late", chance.random() / 10, "s", bound=0.25)
    tally.trial("PLACED")


def fails(chance, tally):
    tally.trial()
    assert chance.random() > 1, "rung twice"


def over(chance, tally):
    tally.measured("memory", 9, "MiB", bound=8)
    tally.measured("time", 9, "s")
    tally.trial()


def skipped(chance, tally):
    raise Skipped("no iproute2")


def fewer(chance, tally):
    """Than it says."""


@pytest.fixture
def soaked(monkeypatch, capsys):
    """Runs one experiment, and gives how the soak ends and what it says."""

    def call(run, *arguments):
        monkeypatch.setattr(soak, "experiments", lambda: [experiment("one", run), experiment("other", holds)])
        monkeypatch.setattr(sys, "argv", ["soak", *arguments])
        code = soak.main()
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_one_that_holds(soaked):
    code, out, _ = soaked(holds, "--seed", "3")
    assert code == 0
    assert "one: --seed 3 --passes 2" in out
    assert "2 trials" in out
    assert "holds; late: 0.1 s (at most 0.25)" in out
    assert "2 PLACED" in out


@pytest.mark.parametrize(("run", "why"), [(fails, "rung twice"), (fewer, "not so many trials")])
def test_one_that_fails_says_how_to_make_it_again_and_the_others_are_made_all_the_same(soaked, run, why):
    code, out, err = soaked(run, "--seed", "3")
    assert code == 1
    assert why in err
    assert 'again: make soak ARGS="--only one --seed 4 --passes 1"' in err
    assert "FAILED with seeds [3, 4]" in out
    assert "PLACED" in out


def test_a_bound_that_is_passed_fails_it_too(soaked):
    code, out, err = soaked(over, "--seed", "3")
    assert code == 1
    assert "OVER ITS BOUND with seeds [3, 4]; memory: 9 MiB (at most 8); time: 9 s" in out
    assert 'again: make soak ARGS="--only one --seed 4 --passes 1"' in err


@pytest.mark.no_canary
def test_a_secret_that_is_logged_fails_it_too(soaked):
    def telling(chance, tally):
        logging.getLogger("somebody's").debug("it is %s", "CANARY-KEY-0123456789")
        tally.trial()

    code, out, err = soaked(telling, "--seed", "3", "--passes", "1")
    assert code == 1
    assert "FAILED with seeds [3]" in out
    assert "a secret in a record of somebody's" in err
    assert "other" in out
    assert "1 PLACED" in out


def test_what_a_machine_cannot_do_fails_nothing(soaked):
    code, out, _ = soaked(skipped)
    assert code == 0
    assert "skipped: no iproute2" in out


def test_one_alone_and_for_as_long_as_is_said(soaked):
    code, out, _ = soaked(fails, "--only", "other", "--hours", "0.0000001", "--seed", "7")
    assert code == 0
    assert "other: --seed 7 --passes 1" in out
    assert "one" not in out
    with pytest.raises(SystemExit, match="there are one, other"):
        soaked(holds, "--only", "nobody")


def test_more_seeds_until_the_time_is_up(soaked, monkeypatch):
    instants = iter(range(1000))
    monkeypatch.setattr(soak.time, "monotonic", lambda: next(instants))
    _, out, _ = soaked(holds, "--hours", "0.005", "--seed", "7")
    assert "one: --seed 7 --passes 1" in out
    assert "one: --seed 8 --passes 1" in out


def test_passes_end_with_the_time(soaked, monkeypatch):
    instants = iter(range(0, 100_000, 100))
    monkeypatch.setattr(soak.time, "monotonic", lambda: next(instants))
    _, out, _ = soaked(holds, "--hours", "0.005", "--passes", "5", "--only", "one")
    assert "1 trials" in out


def test_ended_by_hand_it_says_what_came_of_it_so_far(soaked):
    def broken_off(chance, tally):
        raise KeyboardInterrupt

    code, out, _ = soaked(broken_off)
    assert code == 0
    assert "ended by hand; so far:" in out


def test_the_table(soaked):
    code, out, _ = soaked(holds, "--table")
    assert code == 0
    assert "| `cut-plain` |" in out
