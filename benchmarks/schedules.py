"""How few polls, and how late: our schedule beside those of others and the best there is. In virtual time, exact.

The measure, over whole lives drawn from a model: polls per callback, and lateness, from the beginning of a state to the
first poll that sees it or a later one, averaged over the states entered. Everybody looks at the start, and that poll
counts for all alike. States that begin inside a known delay are outside the measure. Peers are compared at their own
mean lateness: our curve, which goes by the cost of a poll, is read off where it is as late as they are.

A missed target makes it exit with 1.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count, repeat
from pathlib import Path
from typing import TYPE_CHECKING

from lifecycles import STATES, Lateness, Life, Model
from optimum import Optimum

from tenios_async import Callback, CallbackStatus, Polling
from tenios_async._watch import Poll, Sleep, Stop, WatchMachine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Policy = Callable[[Life, random.Random, float], list[float]]
    """The seconds of the polls that a policy makes of one life, with a known delay."""

COSTS = (0.1, 0.3, 1.0)
DELAY = 300
NO_WEIGHT = dict.fromkeys(STATES[1:], 0.0)
"""For whom only the end matters."""
CURVE = tuple(0.001 * 1.5**n for n in range(31))
"""The costs at which our curve is computed, from 0.001 to 192."""
FRONTIER = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def ours(polling: Polling) -> Policy:
    """The watch machine itself, from the first poll to the end, told the time."""

    def polls(life: Life, rng: random.Random, delay: float) -> list[float]:
        callback = Callback(1, delay=int(delay) or None)
        machine = WatchMachine(
            callback,
            polling,
            now=0.0,
            age=0.0,
            timeout=math.inf,
            poll_timeout=10.0,
            chance=rng.random,
            utc_now=lambda: WHEN,
        )
        begins = [second for second, _ in life]
        now, came_back, found = 0.0, None, []
        while not isinstance(action := machine.step(now, came_back), Stop):
            came_back = None
            if isinstance(action, Poll):
                found.append(now)
                came_back = CallbackStatus(life[bisect_right(begins, now) - 1][1])
            elif isinstance(action, Sleep):
                now = action.until
        return found

    return polls


def loop(intervals: Callable[[random.Random], Iterator[float]], *, sleeps: bool = False) -> Policy:
    """A loop that asks, sleeps and asks again; it knows no states, and no delay unless it `sleeps` through it."""

    def polls(life: Life, rng: random.Random, delay: float) -> list[float]:
        now, found, end = 0.0, [0.0], life[-1][0]
        for interval in intervals(rng):
            now += max(interval, delay - now if sleeps else 0.0)
            found.append(now)
            if now >= end:
                break
        return found

    return polls


def by_state(intervals: Mapping[str, float]) -> Policy:
    """One interval for each state, from the look that sees it."""

    def polls(life: Life, _: random.Random, __: float) -> list[float]:
        begins, end = [second for second, _ in life], life[-1][0]
        found = [0.0]
        while found[-1] < end:
            found.append(found[-1] + intervals[life[bisect_right(begins, found[-1]) - 1][1]])
        return found

    return polls


def fixed(interval: float) -> Callable[[random.Random], Iterator[float]]:
    """Every so many seconds."""
    return lambda _: repeat(interval)


def google(initial: float = 1.0, maximum: float = 20.0) -> Callable[[random.Random], Iterator[float]]:
    """google-api-core's `exponential_sleep_generator`: up to a delay that grows by 1.5; for polls from 1 to 20 s."""
    return lambda rng: (rng.uniform(0.0, min(initial * 1.5 ** min(n, 100), maximum)) for n in count())


def stamina(initial: float = 0.1, maximum: float = 5.0) -> Callable[[random.Random], Iterator[float]]:
    """Stamina's backoff: doubles from 0.1 s, plus up to a second, at most 5 s."""
    return lambda rng: (min(initial * 2.0 ** min(n, 100) + rng.uniform(0.0, 1.0), maximum) for n in count())


@dataclass(frozen=True)
class Peer:
    """A policy of somebody else."""

    name: str
    policy: Policy
    is_fixed: bool = False
    is_judged: bool = True


PEERS = (
    Peer("every 0.5 s: replicate", loop(fixed(0.5)), is_fixed=True),
    Peer("every 1 s: openai", loop(fixed(1.0)), is_fixed=True),
    Peer("every 2 s: TENIOS's PHP sample", loop(fixed(2.0)), is_fixed=True),
    Peer("every 3 s: TENIOS's Java sample", loop(fixed(3.0)), is_fixed=True),
    Peer("every 15 s: botocore waiters", loop(fixed(15.0)), is_fixed=True),
    Peer("every 30 s: azure-core", loop(fixed(30.0)), is_fixed=True),
    Peer("1 to 20 s by 1.5: google-api-core", loop(google())),
    Peer("0.1 to 5 s by 2: stamina", loop(stamina())),
    Peer("every 2 s, but asleep through the delay", loop(fixed(2.0), sleeps=True), is_judged=False),
)
FAMILIES = (
    [loop(fixed(x)) for x in (0.5, 1, 2, 3, 5, 8, 15, 30)],
    [loop(google(maximum=x)) for x in (2, 5, 10, 20, 40)],
    [loop(stamina(maximum=x)) for x in (2, 5, 10, 20, 40)],
)
"""The intervals of fixed loops, and the longest ones of those that back off."""


@dataclass(frozen=True)
class Target:
    """A ratio that must not be above a limit."""

    name: str
    ratio: float
    limit: float

    @property
    def is_met(self) -> bool:
        """Whether it is kept."""
        return self.ratio <= self.limit


class Trial:
    """Policies that meet the same lives.

    Args:
        model: how callbacks live.
        seeds: how many sets of lives.
        lives: in each set.
    """

    def __init__(self, model: Model, seeds: int, lives: int) -> None:
        self._model = model
        self._seeds = seeds
        self._lives = lives

    def run(self, policy: Policy, delay: float = 0.0, weights: Mapping[str, float] | None = None) -> Lateness:
        """How a policy does, over all sets."""
        seen = Lateness()
        for seed in range(self._seeds):
            lives, jitter = random.Random(seed), random.Random(-1 - seed)
            for _ in range(self._lives):
                life = self._model.draw(lives, delay)
                seen.add(life, policy(life, jitter, delay), dict(weights or {}), delay)
        return seen


class Curve:
    """Our polls per callback by mean lateness."""

    def __init__(self, points: Sequence[Lateness]) -> None:
        self.points = sorted((point.mean, point.polls_each) for point in points)

    def polls(self, mean: float) -> float | None:
        """At that mean lateness, between the points along a line in logarithms; None outside of them."""
        at = bisect_right([x for x, _ in self.points], mean)
        if not 0 < at < len(self.points):
            return None
        (x0, y0), (x1, y1) = self.points[at - 1], self.points[at]
        share = math.log(mean / x0) / math.log(x1 / x0)
        return math.exp(math.log(y0) + share * math.log(y1 / y0))


def schedule(cost: float, weights: Mapping[str, float] | None = None) -> Polling:
    """Ours at that cost; its bounds give way where the cost is far from usual."""
    usual = Polling()
    return Polling(
        cost=cost,
        weights=dict(weights or {}),
        min_interval=min(usual.min_interval, usual.min_interval * math.sqrt(cost / COSTS[0])),
        max_interval=max(usual.max_interval, usual.max_interval * math.sqrt(cost / COSTS[-1])),
    )


def judge_optimum(model: Model, trial: Trial) -> tuple[list[Target], list[str]]:
    """Ours by default but for the cost, beside the best and the bound, on the same lives."""
    rows = [
        "| cost of a poll (s) | polls, lateness (s) | best | ours / best | with a delay | bound / best |",
        "|---:|---|---|---:|---:|---:|",
    ]
    targets = []
    for weights, whose in (({}, ""), (NO_WEIGHT, ", only the end")):
        for cost in COSTS:
            longest = dict.fromkeys(STATES, 60.0) if weights else None
            best = Optimum(model, cost, weights, longest)
            policies: dict[str, Policy] = {
                "ours": ours(Polling(cost=cost).for_the_end() if weights else Polling(cost=cost)),
                "best": lambda life, _, delay, best=best: best.polls(life, delay),
            }
            found = {name: trial.run(policy, 0.0, weights) for name, policy in policies.items()}
            delayed = {name: trial.run(policy, DELAY, weights) for name, policy in policies.items()}
            ratio = found["ours"].total(cost) / found["best"].total(cost)
            with_delay = delayed["ours"].total(cost) / delayed["best"].total(cost)
            texts = {name: f"{seen.polls_each:.2f}, {seen.mean:.2f}" for name, seen in found.items()}
            rows.append(
                f"| {cost:g}{whose} | {texts['ours']} | {texts['best']} | {ratio:.4f} | {with_delay:.4f} |"
                f" {best.bound / best.total:.4f} |"
            )
            if not weights:
                targets.append(Target(f"cost {cost:g}: ours / best in cost x polls + lateness", ratio, 1.04))
    return targets, rows


def judge_peers(trial: Trial, delay: float, limits: tuple[float, float]) -> tuple[list[Target], list[str], Curve]:
    """Polls of ours to those of each peer, at the peer's mean lateness."""
    curve = Curve([trial.run(ours(schedule(cost)), delay) for cost in CURVE])
    rows = [
        f"| delay {delay:g} s | polls | mean lateness (s) | ours at that lateness | ratio |",
        "|---|---:|---:|---:|---:|",
    ]
    ratios: dict[str, float] = {}
    for peer in PEERS:
        if not (delay or peer.is_judged):
            continue
        seen = trial.run(peer.policy, delay)
        polls = curve.polls(seen.mean)
        texts = ("out of reach", "") if polls is None else (f"{polls:.1f}", f"{polls / seen.polls_each:.3f}")
        rows.append(f"| {peer.name} | {seen.polls_each:.1f} | {seen.mean:.2f} | {texts[0]} | {texts[1]} |")
        if peer.is_judged:
            ratios[peer.name] = math.inf if polls is None else polls / seen.polls_each
    vendors = max(ratios[peer.name] for peer in PEERS if peer.is_judged and "TENIOS" in peer.name)
    named = "no delay" if not delay else f"a delay of {delay:g} s"
    worst = max(ratios, key=lambda name: ratios[name])
    targets = [
        Target(f"{named}: polls beside a fixed interval of 2 or 3 s", vendors, limits[0]),
        Target(f"{named}: polls beside the best of the peers ({worst})", ratios[worst], limits[1]),
    ]
    return targets, rows, curve


def plot(file: Path, model: Model, trial: Trial, curve: Curve) -> None:
    """Polls against mean lateness: peers as points, families and ours as curves, the best, and the bound."""
    import matplotlib as mpl  # noqa: PLC0415  # only here

    mpl.use("svg")
    mpl.rcParams.update(
        {"svg.hashsalt": "schedules", "svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif"}
    )
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(7, 4.4))
    for policies in FAMILIES:
        points = sorted((seen.mean, seen.polls_each) for seen in map(trial.run, policies))
        label = None if axes.lines else "peers, with other intervals"
        axes.plot(*zip(*points, strict=True), "--", lw=0.8, color="0.6", zorder=1, label=label)
    for peer in PEERS:
        if peer.is_judged:
            seen = trial.run(peer.policy)
            axes.plot(seen.mean, seen.polls_each, "o", ms=4, color="tab:red")
            axes.annotate(
                peer.name.rpartition(": ")[2], (seen.mean, seen.polls_each), fontsize=7, color="tab:red",
                xytext=(5, 2), textcoords="offset points",
            )  # fmt: skip
    axes.plot(*zip(*curve.points, strict=True), "-", lw=2, color="tab:blue", label="Polling(cost=...)")
    best = [Optimum(model, cost) for cost in FRONTIER]
    found = [trial.run(lambda life, _, delay, policy=policy: policy.polls(life, delay)) for policy in best]
    axes.plot([s.mean for s in found], [s.polls_each for s in found], "k+", ms=8, label="the best, computed")
    usual = trial.run(ours(Polling()))
    axes.plot(usual.mean, usual.polls_each, "o", color="tab:blue", ms=7, label="Polling()")
    # The bound holds for cost x polls + lateness: each cost gives a line that no policy lies below.
    means = [statistics.geometric_mean([0.1, 30]) * 1.1**n for n in range(-30, 31)]
    per_life = usual.states / usual.lives
    bound = [max((p.bound - per_life * mean) / cost for p, cost in zip(best, FRONTIER, strict=True)) for mean in means]
    inside = [(mean, polls) for mean, polls in zip(means, bound, strict=True) if polls > 1]
    axes.plot(*zip(*inside, strict=True), ":", color="k", lw=1, label="no policy lies below")
    axes.set(xscale="log", yscale="log", xlim=(0.2, 45), ylim=(4, 500))
    axes.set(xlabel="mean lateness (s)", ylabel="polls per callback")
    axes.grid(which="both", lw=0.3, alpha=0.5)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, format="svg", metadata={"Date": None})


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, metavar="FILE", help="a lifecycle model in JSON, instead of the built-in one"
    )
    parser.add_argument("--seeds", type=int, default=50, help="sets of lives")
    parser.add_argument("--lives", type=int, default=100, help="in each set")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write polls against lateness there, as SVG")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the targets there")
    parser.add_argument("--quick", action="store_true", help="a smoke run, too short to judge by")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.lives = 2, 50
    if options.seeds < 1 or options.lives < 1:
        parser.error("at least one set of one life")
    return options


def main() -> int:
    """Computes, prints, and says whether the targets are met."""
    options = arguments()
    model = Model.load(options.model)
    trial = Trial(model, options.seeds, options.lives)
    named = options.model.name if options.model else "built in"
    print(f"{options.seeds} seeds of {options.lives} lives; model: {named}\n")
    targets, rows = judge_optimum(model, trial)
    print("\n".join(rows) + "\n", flush=True)
    curves = []
    for delay, limits in ((0, (0.4, 0.8)), (DELAY, (1 / 6, 0.3))):
        more, rows, curve = judge_peers(trial, delay, limits)
        targets += more
        curves.append(curve)
        print("\n".join(rows) + "\n", flush=True)
    if options.plot:
        plot(options.plot, model, trial, curves[0])
    if not options.quick:
        print("| target | ratio | limit | |\n|---|---:|---:|---|")
        for target in targets:
            verdict = "met" if target.is_met else "**missed**"
            print(f"| {target.name} | {target.ratio:.4f} | {target.limit:.3g} | {verdict} |")
    if options.json:
        judged = [{"name": t.name, "ratio": t.ratio, "limit": t.limit, "met": t.is_met} for t in targets]
        options.json.write_text(json.dumps(judged, indent=2) + "\n")
    return 1 if not options.quick and not all(target.is_met for target in targets) else 0


if __name__ == "__main__":
    sys.exit(main())
