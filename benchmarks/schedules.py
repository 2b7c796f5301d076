"""How few polls, and how late: our schedule beside those of others and the best there is. In virtual time, exact.

The measure, over whole lives drawn from a model: polls per callback, and lateness, from the beginning of a state to the
first poll that sees it or a later one, averaged over the states entered. Everybody looks at the start, and that poll
counts for all alike. States that begin inside a known delay are outside the measure. Peers are compared at their own
mean lateness: our curve, which goes by the cost of a poll, is read off where it is as late as they are, and the ratio
is that of our polls there to theirs. Peers know of no delay: that is what one writes.

A missed target makes it exit with 1.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from bisect import bisect_right
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifecycles import STATES, Lateness, Life, Model
from optimum import Optimum

from tenios_async import Callback, CallbackStatus, Polling
from tenios_async._watch import Poll, Sleep, Stop, WatchMachine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    Policy = Callable[[Life, random.Random, float], list[float]]
    """The seconds of the polls that a policy makes of one life, with a known delay."""

COSTS = (0.1, 0.3, 1.0)
"""Those at which ours is judged by the best."""
FRONTIER = (0.03, *COSTS, 3.0, 10.0)
"""The costs at which the best is computed."""
CURVE = tuple(0.001 * 1.5**n for n in range(31))
"""The costs at which our curve is computed, from 0.001 to 192."""
DELAY = 300
NO_WEIGHT = dict.fromkeys(STATES[1:], 0.0)
"""For whom only the end matters."""
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


UNSEEN = ""
"""In place of a state: a callback that was not looked at yet."""


def by_state(intervals: Mapping[str, float]) -> Policy:
    """One interval for each state, from the look that sees it; the first look at once, unless it has one too."""

    def polls(life: Life, _: random.Random, __: float) -> list[float]:
        begins, end = [second for second, _ in life], life[-1][0]
        found = [intervals.get(UNSEEN, 0.0)]
        while found[-1] < end:
            found.append(found[-1] + intervals[life[bisect_right(begins, found[-1]) - 1][1]])
        return found

    return polls


def fixed(interval: float) -> Callable[[random.Random], Iterator[float]]:
    """Every so many seconds."""
    return lambda _: repeat(interval)


def google(maximum: float = 20.0, *, jitter: bool = True) -> Callable[[random.Random], Iterator[float]]:
    """Grows by 1.5 from 1 s; what is slept lies anywhere between nothing and that."""
    grown = [min(1.5**n, maximum) for n in range(100)]
    return lambda rng: ((rng.uniform(0.0, x) if jitter else x) for x in chain(grown, repeat(maximum)))


def stamina(maximum: float = 5.0) -> Callable[[random.Random], Iterator[float]]:
    """Doubles from 0.1 s, plus up to a second."""
    grown = [0.1 * 2.0**n for n in range(100)]
    return lambda rng: (min(x + rng.uniform(0.0, 1.0), maximum) for x in chain(grown, repeat(maximum)))


@dataclass(frozen=True)
class Peer:
    """A policy of somebody else, and where it is written down."""

    name: str
    source: str
    policy: Policy
    is_judged: bool = True


PEERS = (
    Peer("every 0.5 s: replicate", "Client.poll_interval, in Prediction.wait", loop(fixed(0.5))),
    Peer("every 1 s: openai", "poll_interval_ms of runs.poll and its like", loop(fixed(1.0))),
    Peer("every 2 s: TENIOS's PHP sample", "the Callback API's documentation", loop(fixed(2.0))),
    Peer("every 3 s: TENIOS's Java sample", "the Callback API's documentation", loop(fixed(3.0))),
    Peer("every 15 s: botocore waiters", "delay in waiters-2.json, of ec2 and most others", loop(fixed(15.0))),
    Peer("every 30 s: azure-core", "timeout of LROBasePolling", loop(fixed(30.0))),
    Peer("1 to 20 s by 1.5: google-api-core", "DEFAULT_POLLING, exponential_sleep_generator", loop(google())),
    Peer("the same without its jitter", "the same", loop(google(jitter=False))),
    Peer("0.1 to 5 s by 2: stamina", "retry's wait_initial, wait_max, wait_jitter, wait_exp_base", loop(stamina())),
    Peer("every 2 s, but asleep through the delay", "", loop(fixed(2.0), sleeps=True), is_judged=False),
)
FAMILIES = (
    [loop(fixed(x)) for x in (0.5, 1, 2, 3, 5, 8, 15, 30)],
    [loop(google(x)) for x in (2, 5, 10, 20, 40)],
    [loop(google(x, jitter=False)) for x in (2, 5, 10, 20, 40)],
    [loop(stamina(x)) for x in (2, 5, 10, 20, 40)],
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


class Best:
    """The best policies, computed by another process in the meantime.

    Args:
        model: how callbacks live.
        costs: at which.
        pool: who computes.
    """

    def __init__(self, model: Model, costs: Sequence[float], pool: ProcessPoolExecutor) -> None:
        self.costs = costs
        self._found: dict[tuple[float, float, bool], Future[Optimum]] = {}
        for cost in costs:
            self._found[cost, 0, False] = pool.submit(Optimum, model, cost)
            if cost in COSTS:
                self._found[cost, DELAY, False] = pool.submit(Optimum, model, cost, delayed=True)
                self._found[cost, 0, True] = pool.submit(Optimum, model, cost, NO_WEIGHT)

    def tasks(self) -> list[tuple[float, float, bool]]:
        """Cost, delay, and whether only the end matters: those without a delay first."""
        return sorted(self._found, key=lambda task: (task[2], task[1], task[0]))

    def of(self, cost: float, delay: float = 0, *, only_end: bool = False) -> Optimum:
        """The best policy there."""
        return self._found[cost, delay, only_end].result()


def policy_of(best: Optimum) -> Policy:
    """What it looks like to the trial."""
    return lambda life, _, delay: best.polls(life, delay)


def judge_by_the_best(trial: Trial, best: Best) -> tuple[list[Target], list[str], list[dict[str, Any]]]:
    """Ours by default but for the cost, beside the best and the bound, on the same lives."""
    rows = [
        "| cost of a poll (s) | polls, mean lateness (s) | the best | its total | ours / best | bound / best |",
        "|---|---|---|---:|---:|---:|",
    ]
    targets, figures = [], []
    for cost, delay, only_end in best.tasks():
        polling, weights = Polling(cost=cost), NO_WEIGHT if only_end else {}
        optimum = best.of(cost, delay, only_end=only_end)
        seen = trial.run(ours(polling.for_the_end() if only_end else polling), delay, weights)
        least = trial.run(policy_of(optimum), delay, weights)
        ratio, bound = seen.total(cost) / least.total(cost), optimum.bound / optimum.total
        case = f"{cost:g}" + (f", a delay of {delay:g} s" if delay else "") + (", only the end" if only_end else "")
        texts = [f"{x.polls_each:.2f}, {x.mean:.2f}" for x in (seen, least)]
        rows.append(f"| {case} | {texts[0]} | {texts[1]} | {optimum.total:.3f} | {ratio:.4f} | {bound:.4f} |")
        computed = {"total": optimum.total, "bound": optimum.bound}
        figures.append({"case": case, "ours": seen.figures(), "best": least.figures() | computed, "ratio": ratio})
        if cost in COSTS and not delay and not only_end:
            targets.append(Target(f"cost {cost:g}: ours / best in cost x polls + lateness", ratio, 1.04))
    return targets, rows, figures


def judge_by_peers(
    trial: Trial, delay: float, curve: Curve, limits: tuple[float, float]
) -> tuple[list[Target], list[str], list[dict[str, Any]]]:
    """Polls of ours to those of each peer, at the peer's mean lateness."""
    rows = [
        f"| {f'a delay of {delay:g} s' if delay else 'no delay'} | polls | mean lateness (s) | ours then | ratio |",
        "|---|---:|---:|---:|---:|",
    ]
    ratios, figures = {}, []
    for peer in PEERS:
        if not (delay or peer.is_judged):
            continue
        seen = trial.run(peer.policy, delay)
        polls = curve.polls(seen.mean)
        ratio = math.inf if polls is None else polls / seen.polls_each
        texts = ("out of reach", "") if polls is None else (f"{polls:.1f}", f"{ratio:.3f}")
        rows.append(f"| {peer.name} | {seen.polls_each:.1f} | {seen.mean:.2f} | {texts[0]} | {texts[1]} |")
        figures.append({"peer": peer.name, "source": peer.source, "delay": delay} | seen.figures() | {"ours": polls})
        if peer.is_judged:
            ratios[peer.name] = ratio
    vendors = max(ratio for name, ratio in ratios.items() if "TENIOS" in name)
    named = f"a delay of {delay:g} s" if delay else "no delay"
    closest = max(ratios, key=lambda name: ratios[name])
    targets = [
        Target(f"{named}: polls beside a fixed interval of 2 or 3 s", vendors, limits[0]),
        Target(f"{named}: polls beside the best of the peers ({closest})", ratios[closest], limits[1]),
    ]
    return targets, rows, figures


def plot(file: Path, trial: Trial, curve: Curve, best: Best) -> None:
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
                "without its jitter" if "same" in peer.name else peer.name.rpartition(": ")[2],
                (seen.mean, seen.polls_each), fontsize=7, color="tab:red", xytext=(5, 2), textcoords="offset points",
            )  # fmt: skip
    axes.plot(*zip(*curve.points, strict=True), "-", lw=2, color="tab:blue", label="Polling(cost=...)")
    found = [trial.run(policy_of(best.of(cost))) for cost in best.costs]
    axes.plot([s.mean for s in found], [s.polls_each for s in found], "k+", ms=8, label="the best, computed")
    usual = trial.run(ours(Polling()))
    axes.plot(usual.mean, usual.polls_each, "o", color="tab:blue", ms=7, label="Polling()")
    # The bound holds for cost x polls + lateness: each cost gives a line that no policy lies below.
    means = [0.2 * 1.05**n for n in range(112)]
    per_life = usual.states / usual.lives
    bound = [max((best.of(cost).bound - per_life * mean) / cost for cost in best.costs) for mean in means]
    inside = [(mean, polls) for mean, polls in zip(means, bound, strict=True) if polls > 1]
    axes.plot(*zip(*inside, strict=True), ":", color="k", lw=1, label="no policy lies below")
    axes.set(xscale="log", yscale="log", xlim=(0.2, 45), ylim=(4, 500))
    axes.set(xlabel="mean lateness (s)", ylabel="polls per callback")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
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
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
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
    print(f"{options.seeds} seeds of {options.lives} lives; model: {named}\n", flush=True)
    document: dict[str, Any] = {"model": asdict(model), "seeds": options.seeds, "lives": options.lives}
    targets: list[Target] = []
    with ProcessPoolExecutor(1) as pool:
        best = Best(model, FRONTIER[:1] if options.quick else FRONTIER, pool)
        curves: list[Curve] = []
        for delay, limits in ((0, (0.4, 0.8)), (DELAY, (1 / 6, 0.3))):
            curves.append(Curve([trial.run(ours(schedule(cost)), delay) for cost in CURVE]))
            judged, rows, figures = judge_by_peers(trial, delay, curves[-1], limits)
            print("\n".join(rows) + "\n", flush=True)
            targets += judged
            document.setdefault("curves", []).append({"delay": delay, "mean_lateness_and_polls": curves[-1].points})
            document.setdefault("peers", []).extend(figures)
        judged, rows, document["best"] = judge_by_the_best(trial, best)
        print("\n".join(rows) + "\n", flush=True)
        targets += judged
        if options.plot:
            plot(options.plot, trial, curves[0], best)
    if not options.quick:
        print("| target | ratio | limit | |\n|---|---:|---:|---|")
        for target in targets:
            verdict = "met" if target.is_met else "**missed**"
            print(f"| {target.name} | {target.ratio:.4f} | {target.limit:.3g} | {verdict} |")
    if options.json:
        document["targets"] = [asdict(target) | {"is_met": target.is_met} for target in targets]
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 1 if not options.quick and not all(target.is_met for target in targets) else 0


if __name__ == "__main__":
    sys.exit(main())
