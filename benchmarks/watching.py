"""What it costs to follow a callback to its end, beside hand-written loops that ask every 2 s, over real sockets.

The callbacks live as the built-in model says, and everything is sped up by one factor: lives, intervals and the latency
of the answers, which is chosen so that a loop that asks every 2 s has 25 polls in flight on average. A trial run tells
how large the factor may be: the busiest loop has to sleep for more than half of the time. Our schedule runs at the cost
at which its news are as late as the loops': reckoned in virtual time and corrected by a trial run, for a monitor makes
looks that are nearly due together. Each client follows the same callbacks, from the same instants on, in a fresh
process on one core; the responder runs on another, and measures how late each state is seen: from its beginning until a
poll arrives that is answered with it or a later one.

A run in which a process was busy for half of the time, or in which ours was later than the loops, is void: it exits
with 2. A missed target makes it exit with 1.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from call_responder import Followed
from followers import AIOHTTP, FOLLOWERS, HTTPX, INTERVAL, MONITOR, TERMINAL, WATCHES, Task, schedule
from lifecycles import Model
from polling import Target, machine, pin, prepare, quartiles, rotated, say, verdict
from responder import LOOP

from tenios_async import Callback, CallbackStatus
from tenios_async._watch import Poll, Sleep, Stop, WatchMachine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lifecycles import Life

    Ask = Callable[[float], str]

IN_FLIGHT = 25.0
"""Polls, on average, of a loop that asks every 2 s."""
LONGEST = 480.0
"""Seconds that a callback may live: one in 16 lives longer, and would go on alone after all others have ended."""
RAMP = 30.0
"""Seconds in which the first ones begin, so that connections need not all be opened at once."""
BUSY = 0.5
"""The part of the time for which no process may be busy."""
BUSIEST = 0.38
"""What the speed is chosen for. A loop may spend more on a poll then than in its trial run, and is not void at once."""
TRIAL_SPEED = 10.0
"""At which that is found out, and at which all run where the busiest of the loops is not measured."""
NOISE = 1.03
"""What equal lateness may be measured as."""
TOLERANCE = 0.1
"""By what part the polls in flight may be off."""
SEED = 20
BISECTIONS = 12


@dataclass(frozen=True)
class Sample:
    """One client, in one round.

    Attributes:
        cpu: milliseconds for one callback, without imports and the opening of the client.
        polls: for one callback.
        lateness: seconds, the mean over all states entered after the first, as if nothing were sped up.
        busy: the part of the time in which the client computed.
        responder_busy: the same of the responder.
        in_flight: polls, on average.
    """

    cpu: float
    polls: float
    lateness: float
    busy: float
    responder_busy: float
    in_flight: float


@dataclass(frozen=True)
class Plan:
    """What every client is to follow, in seconds that are not sped up yet.

    Attributes:
        lives: of all callbacks, in the order in which they are placed.
        starts: when each is placed.
        latency: of an answer.
        lateness: of the loops.
        cost: at which our schedule is as late as that.
        speed: by what all of it will be sped up.
    """

    lives: list[Life]
    starts: list[float]
    latency: float
    lateness: float
    cost: float
    speed: float

    def as_late(self, trial: Sample) -> Plan:
        """The same at the cost at which ours would have been as late as the loops: lateness grows as its root does."""
        return replace(self, cost=self.cost * (self.lateness / trial.lateness) ** 2)

    def as_busy(self, trial: Sample) -> Plan:
        """The same at the speed at which that client is about as busy as any may be."""
        return replace(self, speed=self.speed * BUSIEST / trial.busy)

    def for_responder(self) -> dict[str, Any]:
        """All of it on the clock."""
        return {
            "latency": self.latency / self.speed,
            "calls": [
                {"states": [state for _, state in life], "begin": [(start + at) / self.speed for at, _ in life]}
                for start, life in zip(self.starts, self.lives, strict=True)
            ],
        }

    def for_client(self, port: int) -> Task:
        """What a client needs to know."""
        return Task(port, [start / self.speed for start in self.starts], self.speed, self.cost)


def make_plan(callbacks: int, lanes: int, speed: float) -> Plan:
    """The same for the same arguments."""
    rng, model = random.Random(SEED), Model.load()
    lives: list[Life] = []
    while len(lives) < callbacks:
        life = model.draw(rng)
        if life[-1][0] <= LONGEST:
            lives.append(life)
    lives, starts = _spread(lives, lanes, rng)
    latency = _latency_for(IN_FLIGHT, lives, starts)
    lateness = _mean_lateness([_followed(life, lambda ask: _loop(ask, latency)) for life in lives])
    return Plan(lives, starts, latency, lateness, _cost_for(lateness, lives, latency), speed)


def _spread(lives: list[Life], lanes: int, rng: random.Random) -> tuple[list[Life], list[float]]:
    """In which order and when they are placed, so that about as many go on at any time.

    In each of the lanes, which are about of a length, one callback follows another.
    """
    ends = [(0.0, lane) for lane in range(lanes)]
    by_lane: list[list[Life]] = [[] for _ in ends]
    for life in sorted(lives, key=lambda life: -life[-1][0]):
        end, lane = heapq.heappop(ends)
        by_lane[lane].append(life)
        heapq.heappush(ends, (end + life[-1][0], lane))
    placed: list[tuple[float, Life]] = []
    for lane_lives in by_lane:
        rng.shuffle(lane_lives)
        at = rng.uniform(0, RAMP)
        for life in lane_lives:
            placed.append((at, life))
            at += life[-1][0] + rng.uniform(0, INTERVAL)
    placed.sort(key=lambda pair: pair[0])
    return [life for _, life in placed], [at for at, _ in placed]


def _latency_for(in_flight: float, lives: list[Life], starts: list[float]) -> float:
    """At which the loops have so many polls in flight, by Little's law."""
    low, high = 0.0, 10.0 * INTERVAL
    for _ in range(BISECTIONS):
        latency = (low + high) / 2
        polls = [_followed(life, lambda ask, latency=latency: _loop(ask, latency)).polls for life in lives]
        end = max(start + n * (INTERVAL + latency) for start, n in zip(starts, polls, strict=True))
        low, high = (latency, high) if sum(polls) * latency / end < in_flight else (low, latency)
    return (low + high) / 2


def _cost_for(lateness: float, lives: list[Life], latency: float) -> float:
    """At which our schedule is as late, on average, in virtual time."""
    low, high = 1e-3, 10.0
    for _ in range(BISECTIONS):
        cost, rng = (low * high) ** 0.5, random.Random(SEED)
        followed = [_followed(life, lambda ask, cost=cost, rng=rng: _watch(ask, cost, latency, rng)) for life in lives]
        low, high = (low, cost) if _mean_lateness(followed) > lateness else (cost, high)
    return low


def _followed(life: Life, client: Callable[[Ask], None]) -> Followed:
    """Lets a client follow one callback in virtual time."""
    followed = Followed([state for _, state in life], [at for at, _ in life])
    client(followed.asked)
    return followed


def _loop(ask: Ask, latency: float) -> None:
    now = 0.0
    while ask(now) not in TERMINAL:
        now += latency + INTERVAL


def _watch(ask: Ask, cost: float, latency: float, rng: random.Random) -> None:
    polling = schedule(cost, 1.0)
    watch = WatchMachine(
        Callback(1),
        polling,
        now=0.0,
        age=None,
        timeout=2 * LONGEST,
        poll_timeout=2 * latency,
        chance=rng.random,
        utc_now=lambda: datetime.now(UTC),
    )
    now, seen = 0.0, None
    while not isinstance(action := watch.step(now, seen), Stop):
        seen = None
        if isinstance(action, Poll):
            seen = CallbackStatus(ask(now))
            now += latency
        elif isinstance(action, Sleep):
            now = action.until


def _mean_lateness(followed: Sequence[Followed]) -> float:
    return statistics.fmean(late for callback in followed for late in callback.lateness)


@contextmanager
def _child(file: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A program beside this one, with pipes to and from it; it does not outlive the block."""
    command = [sys.executable, str(Path(__file__).with_name(file)), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603  # our own words
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _tell(process: subprocess.Popen[str], value: object) -> None:
    process.stdin.write(json.dumps(value) + "\n")
    process.stdin.flush()


def _hear(process: subprocess.Popen[str]) -> dict[str, Any]:
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{' '.join(process.args[1:])} ended early")
    return json.loads(line)


def measure(client: str, plan: Plan, core: int | None) -> Sample:
    """One client follows all callbacks."""
    pinned = () if core is None else ("--core", str(core))
    with _child("call_responder.py", *pinned) as responder, _child("followers.py", client) as follower:
        _tell(responder, plan.for_responder())
        _tell(follower, asdict(plan.for_client(_hear(responder)["port"])))
        _hear(follower)
        begin = time.monotonic() + 0.2
        _tell(responder, begin)
        _tell(follower, begin)
        spent = _hear(follower)
        _tell(responder, spent["end"])
        seen = _hear(responder)
    if spent["ended"] != len(plan.lives) or seen["unseen"]:
        raise RuntimeError(f"{client} saw {spent['ended']} of {len(plan.lives)} callbacks end")
    return Sample(
        cpu=spent["cpu"] / len(plan.lives) * 1e3,
        polls=statistics.fmean(seen["polls"]),
        lateness=statistics.fmean(late for callback in seen["lateness"] for late in callback) * plan.speed,
        busy=spent["cpu"] / spent["wall"],
        responder_busy=seen["busy"],
        in_flight=seen["in_flight"],
    )


def voids(samples: dict[str, list[Sample]]) -> list[str]:
    """Why nothing can be concluded from these rounds; empty where it can."""
    reasons = []
    for client, rounds in samples.items():
        for name, busy in (
            (f"the {client}", max(sample.busy for sample in rounds)),
            (f"the responder of the {client}", max(sample.responder_busy for sample in rounds)),
        ):
            if busy >= BUSY:
                reasons.append(f"{name} was busy for {busy:.0%} of the time; it must be less than {BUSY:.0%}")
    for client in (HTTPX, AIOHTTP):
        if client in samples:
            in_flight = statistics.median(sample.in_flight for sample in samples[client])
            if abs(in_flight / IN_FLIGHT - 1) > TOLERANCE:
                reasons.append(f"the {client} had {in_flight:.1f} polls in flight, not {IN_FLIGHT:.0f}")
            for ours in (WATCHES, MONITOR):
                later = statistics.median(_ratios(samples, ours, client, "lateness") or [1.0])
                if later > NOISE:
                    reasons.append(f"{ours}, was later than the {client}: by {later - 1:.1%}")
    return reasons


def targets(samples: dict[str, list[Sample]]) -> list[Target]:
    """Those for which the clients were measured."""
    ours = MONITOR if MONITOR in samples else WATCHES
    limits = ((HTTPX, 1 / 20), (AIOHTTP, 1 / 3))
    every = [Target(f"CPU: {ours} / {other}", _ratios(samples, ours, other, "cpu"), limit) for other, limit in limits]
    return [target for target in every if target.ratios]


def _ratios(samples: dict[str, list[Sample]], one: str, other: str, of: str) -> list[float]:
    """Round by round; empty where one of the two was not measured."""
    pairs = zip(samples.get(one, ()), samples.get(other, ()), strict=False)
    return [getattr(mine, of) / getattr(theirs, of) for mine, theirs in pairs]


def table(samples: dict[str, list[Sample]]) -> str:
    """What was measured, as Markdown."""
    lines = [
        "| for one callback | CPU, ms | polls | mean lateness, s | in flight | busy | responder busy |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for client, rounds in samples.items():
        low, middle, high = quartiles([sample.cpu for sample in rounds])
        cells = [f"{middle:.2f} ({low:.2f} to {high:.2f})"]
        cells += [
            format(statistics.median(getattr(sample, name) for sample in rounds), form)
            for name, form in (
                ("polls", ".1f"),
                ("lateness", ".3f"),
                ("in_flight", ".1f"),
                ("busy", ".1%"),
                ("responder_busy", ".1%"),
            )
        ]
        lines.append(f"| {client} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--callbacks", type=int, default=310, help="that each client follows")
    parser.add_argument("--lanes", type=int, default=68, help="callbacks that go on at a time")
    parser.add_argument("--speed", type=float, help="by what it all is sped up; found by a trial run if not given")
    parser.add_argument(
        "--clients",
        type=_names,
        default=[HTTPX, AIOHTTP, MONITOR],
        metavar=",".join(_SHORT),
        help=f"all but {_short(WATCHES)} where it is not given",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--quick", action="store_true", help="a smoke run, too short to judge by")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.callbacks, options.speed = 1, 36, 60.0
    if min(options.rounds, options.callbacks, options.lanes) < 1 or (options.speed or 1) <= 0:
        parser.error("at least one round of one callback in one lane, at a speed above 0")
    return options


def main() -> int:
    """Measures, prints, and says whether the targets are met."""
    options = arguments()
    prepare()
    core = pin()
    say("finding the latency and the cost")
    plan = make_plan(options.callbacks, options.lanes, options.speed or TRIAL_SPEED)
    if options.speed is None and HTTPX in options.clients:
        busy = 1.0
        while busy >= BUSY:  # too busy a loop falls behind, and then does not tell how slow is slow enough
            say(f"a trial run of the {HTTPX}, {plan.speed:.1f} times as fast as life")
            trial = measure(HTTPX, plan, core)
            plan, busy = plan.as_busy(trial), trial.busy
    plans = dict.fromkeys(options.clients, plan)
    for client in {WATCHES, MONITOR} & plans.keys():
        say(f"a trial run of {client}")
        plans[client] = plan.as_late(measure(client, plan, core))
    samples: dict[str, list[Sample]] = {}
    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds}")
        for client in rotated(options.clients, number):
            samples.setdefault(client, []).append(measure(client, plans[client], core))
    samples = {client: samples[client] for client in options.clients}
    judged, reasons = targets(samples), voids(samples)
    about = machine(LOOP, is_apart=core is not None)
    print("\n".join(f"- {name}: {text}" for name, text in about.items()))
    print(
        f"- {options.callbacks} callbacks, {plan.speed:.1f} times as fast as calls are; an answer takes"
        f" {plan.latency:.2f} s ({plan.latency / plan.speed * 1e3:.0f} ms on the clock)"
    )
    ours = {client: plans[client].cost for client in (WATCHES, MONITOR) if client in plans}
    print("".join(f"- {client}: at a cost of {cost:.3f}\n" for client, cost in ours.items()), end="")
    print(f"- {options.rounds} rounds; medians (quartiles), and the median of the rounds' ratios\n")
    print(table(samples) + "\n")
    if options.json:
        rounds = {client: [asdict(sample) for sample in values] for client, values in samples.items()}
        ratios = [{"name": t.name, "ratio": t.ratio, "limit": t.limit, "met": t.is_met} for t in judged]
        terms = {"callbacks": options.callbacks, "speed": plan.speed, "latency": plan.latency, "costs": ours}
        document = {"machine": about, "plan": terms, "rounds": rounds, "targets": ratios, "void": reasons}
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    if options.quick:
        return 0
    print(verdict(judged))
    for reason in reasons:
        print(f"\n**void**: {reason}")
    return 2 if reasons else 0 if all(target.is_met for target in judged) else 1


def _short(client: str) -> str:
    return client.removeprefix("ours, ").removesuffix(" loop")


_SHORT = {_short(client): client for client in FOLLOWERS}


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - _SHORT.keys():
        raise argparse.ArgumentTypeError(f"no such client: {', '.join(sorted(unknown))}")
    return [_SHORT[name] for name in names]


if __name__ == "__main__":
    sys.exit(main())
