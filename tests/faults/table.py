"""Every experiment there is, in the order of docs/reliability.md, and that page's table."""

from . import (
    answers,
    cancelling,
    clocks,
    connections,
    cutting,
    disks,
    fuzzing,
    handshakes,
    killing,
    losing,
    machines,
    worlds,
)
from .experiment import EXPERIMENTS, Experiment

ORDER = (
    cutting,
    connections,
    losing,
    answers,
    cancelling,
    killing,
    disks,
    machines,
    clocks,
    handshakes,
    fuzzing,
    worlds,
)


def experiments() -> list[Experiment]:
    homes = [module.__name__ for module in ORDER]
    return sorted(EXPERIMENTS.values(), key=lambda each: homes.index(each.run.__module__))


def markdown() -> str:
    """The table; CI and soak say how many trials."""
    lines = ["| name | what goes wrong | what holds all the same | CI | soak |", "|---|---|---|---:|---:|"]
    lines += [
        f"| `{each.name}` | {each.fault} | {each.invariant} | {each.in_ci} | {each.in_soak} |" for each in experiments()
    ]
    return "\n".join(lines)
