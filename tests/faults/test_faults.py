"""One pass of each experiment, with a seed that never changes. `make soak` makes many more, with others."""

from pathlib import Path

import pytest

from .experiment import SEED_IN_CI, Skipped, Tally
from .table import experiments, markdown

ELSEWHERE = ("whole-system", "fuzz")
"""Made by tests/simulation, a thousand lives, and by test_fuzz.py beside this."""
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "TENIOS_ACCESS_KEY", "TENIOS_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "experiment", [each for each in experiments() if each.name not in ELSEWHERE], ids=lambda each: each.name
)
def test_experiment(experiment):
    print(f"{experiment.name}: seed {SEED_IN_CI}")
    try:
        experiment.make_pass(SEED_IN_CI, Tally())
    except Skipped as reason:  # where the machine lacks it
        pytest.skip(str(reason))


def test_the_page_says_what_is_done():
    """`python -m tests.faults.soak --table` prints what belongs there."""
    assert markdown() in PAGE.read_text(encoding="utf-8")
