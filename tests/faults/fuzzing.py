"""The properties of test_fuzz.py, with other seeds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .experiment import Tally, experiment
from .killing import ROOT

if TYPE_CHECKING:
    import random

PROPERTIES, EXAMPLES = 7, 100


@experiment(
    "Fuzz: answers, as read and on the wire in any pieces; resume tokens; contacts files; ledgers",
    "only the library's own errors come out; what is taken is right",
    trials=PROPERTIES * EXAMPLES,
    passes=30,
)
def fuzz(
    chance: random.Random, tally: Tally
) -> None:  # pragma: no cover  # for a soak; CI has the properties themselves
    properties = Path(__file__).with_name("test_fuzz.py")
    seed = f"--hypothesis-seed={chance.randrange(1 << 32)}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", seed, str(properties)]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout
    assert f"{PROPERTIES} passed" in made.stdout
    for _ in range(PROPERTIES * EXAMPLES):
        tally.trial()
