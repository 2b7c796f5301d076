"""What one status poll costs, beside other HTTP clients: CPU time of this process, and time on the clock one at a time.

The responder runs on another core. Peers take turns within each round, in an order that moves on with each round; what
is compared is compared within a round, and the median of those ratios is judged. An answer that is not the expected one
ends the program with an error; a missed target makes it exit with 1.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peers import AIOHTTP, FLOOR, HTTPX, OURS, OWN_ROOM, PEERS, Server
from responder import STATUS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

PACKAGES = ("tenios_async", "httptools", "aiohttp", "httpx", "httpcore", "h11", "httpx2", "httpx-aiohttp", "anyio")
FILES = 4096
"""File descriptors that are wanted, for the sockets at both ends."""
CELL_TIMEOUT = 300.0
"""Seconds after which something is wrong."""
AT_ONCE = 10
"""Workers that begin together."""
NOISE = 1.05
"""What a ratio of 1 may be measured as."""
IMPORT_RUNS = 21
IMPORTS = ("pass", "import tenios_async", "import httpx")
HIDDEN = ("click", "pygments", "rich")
"""What `import httpx` would also import for its command, were it installed; hidden from all alike."""

Key = tuple[str, int, str]
"""Scheme, concurrent polls, peer."""


@dataclass(frozen=True)
class Sample:
    """Microseconds for one poll, in one round."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class Target:
    """A ratio that must not be above a limit."""

    name: str
    ratios: Sequence[float]
    limit: float

    @property
    def ratio(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.ratios)

    @property
    def is_met(self) -> bool:
        """Whether it is kept."""
        return self.ratio <= self.limit


class Window:
    """Hands out turns to workers without end, and measures some of them while all workers are busy.

    The first turns are the warm-up; it begins when `is_manned` is set.
    """

    def __init__(self, warm_up: int, polls: int) -> None:
        self._warm_up = warm_up
        self._polls = polls
        self.turns = self._hand_out()
        self.early_turns = 0
        self.is_manned = False
        self.measured: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()

    def _hand_out(self) -> Iterator[None]:
        while not self.is_manned:
            self.early_turns += 1
            yield
        yield from repeat(None, self._warm_up)
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        yield from repeat(None, self._polls)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        self.measured.set_result(Sample(cpu / self._polls * 1e6, wall / self._polls * 1e6))
        yield from repeat(None)


async def measure(peer: str, server: Server, polls: int) -> Sample:
    """One cell: opens the peer, lets it open its connections, warms it up and measures so many polls."""
    window = Window(server.concurrency + 20, polls)

    async def work(poll: Callable[[], Awaitable[str]]) -> None:
        for _ in window.turns:
            if (state := await poll()) != STATUS:
                raise RuntimeError(f"{peer} gave {state!r} for {STATUS!r}")

    async with asyncio.timeout(CELL_TIMEOUT), PEERS[peer](server) as poll, asyncio.TaskGroup() as group:
        workers = []
        while (missing := server.concurrency - len(workers)) > 0:
            # Where 500 begin at once, httpx takes over 10 s to open their connections: longer than a poll may take.
            workers += [group.create_task(work(poll)) for _ in range(min(missing, AT_ONCE))]
            enough = window.early_turns + 2 * AT_ONCE
            while window.early_turns < enough:  # noqa: ASYNC110  # an event would be work for each turn
                await asyncio.sleep(0.0005)
        window.is_manned = True
        sample = await window.measured
        for worker in workers:
            worker.cancel()
    return sample


class Benchmark:
    """All rounds of all cells.

    Args:
        servers: one for each scheme and number of concurrent polls.
        peers: names.
        budget: seconds of CPU that one cell should take; at least every worker polls twice.
    """

    def __init__(self, servers: Sequence[Server], peers: Sequence[str], budget: float) -> None:
        self._cells = {(_scheme(server), server.concurrency): server for server in servers}
        self._peers = list(peers)
        self._budget = budget
        self._polls: dict[Key, int] = {}
        self.samples: dict[Key, list[Sample]] = {}

    def calibrate(self) -> None:
        """Finds how many polls of each peer take the budget."""
        for (scheme, concurrency), server in self._cells.items():
            for peer in self._peers:
                probe = max(concurrency, min(100, int(self._budget * 1e3)))
                sample = asyncio.run(measure(peer, server, probe))
                self._polls[scheme, concurrency, peer] = max(2 * concurrency, int(self._budget * 1e6 / sample.cpu))

    def run_round(self, number: int) -> None:
        """Measures every cell once."""
        for scheme, concurrency in self._cells:
            for peer in rotated(self._peers, number):
                key = scheme, concurrency, peer
                sample = asyncio.run(measure(peer, self._cells[scheme, concurrency], self._polls[key]))
                self.samples.setdefault(key, []).append(sample)

    def table(self, scheme: str) -> str:
        """What was measured over that scheme, as Markdown."""
        levels = [concurrency for name, concurrency in self._cells if name == scheme]
        columns: list[tuple[str, int, Callable[[Sample], float]]] = []
        for level in levels:
            columns.append((f"CPU, {level} at a time", level, _cpu))
            if level == 1:
                columns.append(("clock, 1 at a time", level, _wall))
        lines = [
            f"| µs for one poll over {scheme} | " + " | ".join(name for name, _, _ in columns) + " |",
            "|---|" + "---:|" * len(columns),
        ]
        for peer in self._peers:
            texts = [self._cell((scheme, level, peer), of) for _, level, of in columns]
            lines.append(f"| {peer} | " + " | ".join(texts) + " |")
        return "\n".join(lines)

    def _cell(self, key: Key, of: Callable[[Sample], float]) -> str:
        """The median, the quartiles, and the ratio to ours."""
        low, middle, high = quartiles([of(sample) for sample in self.samples[key]])
        text = f"{middle:,.0f} ({low:,.0f} to {high:,.0f})"
        if OURS in self._peers and key[2] != OURS:
            text += f" {statistics.median(self._ratios(key, (*key[:2], OURS), of)):.2f}x"
        return text

    def _ratios(self, key: Key, other: Key, of: Callable[[Sample], float]) -> list[float]:
        """Round by round; empty where one of the two was not measured."""
        pairs = zip(self.samples.get(key, ()), self.samples.get(other, ()), strict=False)
        return [of(one) / of(two) for one, two in pairs]

    def targets(self) -> list[Target]:
        """Those for which the peers and the numbers of concurrent polls were measured."""
        targets = []
        for scheme, level in self._cells:
            limits = [(OURS, AIOHTTP, 1 / 2), (OURS, FLOOR, 1.7), (OURS, HTTPX, 1 / 20)] if level in (50, 500) else []
            if level == 1:
                ratios = self._ratios((scheme, level, OURS), (scheme, level, AIOHTTP), _wall)
                targets.append(Target(f"{scheme}, {level} at a time, clock: {OURS} / {AIOHTTP}", ratios, 1.0))
                limits.append((OURS, AIOHTTP, 1.0))
            limits.append((OWN_ROOM, HTTPX, NOISE))
            for peer, other, limit in limits:
                ratios = self._ratios((scheme, level, peer), (scheme, level, other), _cpu)
                targets.append(Target(f"{scheme}, {level} at a time: {peer} / {other}", ratios, limit))
        for scheme in dict.fromkeys(scheme for scheme, _ in self._cells):
            ratios = self._ratios((scheme, 500, OURS), (scheme, 50, OURS), _cpu)
            targets.append(Target(f"{scheme}: {OURS}, 500 at a time / 50 at a time", ratios, 1.2))
            # The more sockets, the less finds room in the processor's caches: that much is the machine's.
            machines = self._ratios((scheme, 500, FLOOR), (scheme, 50, FLOOR), _cpu)
            beside = [ours / floor for ours, floor in zip(ratios, machines, strict=False)]
            targets.append(Target(f"{scheme}: the same / that of the {FLOOR}", beside, 1.2))
        return [target for target in targets if target.ratios]


def measure_imports(runs: int) -> dict[str, list[float]]:
    """Milliseconds of CPU of a whole interpreter for each import, taking turns."""
    if not hasattr(os, "wait4"):
        return {}
    hide = f"import sys; sys.modules.update(dict.fromkeys({HIDDEN}))"
    # What pip installs comes with its bytecode; a working copy writes its own at the first import, where it may.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    times: dict[str, list[float]] = {statement: [] for statement in IMPORTS}
    for number in range(runs + 1):
        for statement in rotated(IMPORTS, number):
            child = subprocess.Popen([sys.executable, "-c", f"{hide}; {statement}"], env=environment)  # noqa: S603  # our own words
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode:
                raise RuntimeError(f"`{statement}` failed")
            if number:  # the first time compiles
                times[statement].append((usage.ru_utime + usage.ru_stime) * 1e3)
    return times


def import_target(times: dict[str, list[float]]) -> list[Target]:
    """That ours costs no more than httpx."""
    _, ours, theirs = (times.get(statement, []) for statement in IMPORTS)
    ratios = [one / two for one, two in zip(ours, theirs, strict=True)]
    return [Target(f"CPU of `{IMPORTS[1]}` / `{IMPORTS[2]}`", ratios, 1.0)] if ratios else []


def import_table(times: dict[str, list[float]]) -> str:
    """What the imports cost, as Markdown."""
    lines = ["| ms of CPU for an interpreter | |", "|---|---:|"]
    for statement, values in times.items():
        low, middle, high = quartiles(values)
        lines.append(f"| `{statement}` | {middle:.1f} ({low:.1f} to {high:.1f}) |")
    return "\n".join(lines)


def verdict(targets: Sequence[Target]) -> str:
    """The targets as Markdown."""
    lines = ["| target | ratio | limit | |", "|---|---:|---:|---|"]
    lines += [
        f"| {target.name} | {target.ratio:.3f} | {target.limit:.3g} | {'met' if target.is_met else '**missed**'} |"
        for target in targets
    ]
    return "\n".join(lines)


@contextmanager
def responder(core: int | None) -> Iterator[dict[str, Any]]:
    """Runs the responder, and gives what it says of itself."""
    command = [sys.executable, str(Path(__file__).with_name("responder.py"))]
    if core is not None:
        command += ["--core", str(core)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603  # our own words
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def pin() -> int | None:
    """Keeps this process on the first core it may use, and gives the last, or None where there is no other."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    first, *others = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {first})
    return others[-1] if others else None


def prepare() -> None:
    """Takes away what would change the way requests go, and makes room for the sockets."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            del os.environ[name]
    with suppress(ImportError):
        import resource  # noqa: PLC0415  # not on Windows

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def machine(served_by: str, *, is_apart: bool) -> dict[str, str]:
    """What this ran on and with."""
    model = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    apart = "on another core" if is_apart else "on the same core"
    versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    return {
        "CPU": f"{model}, {os.cpu_count()} cores",
        "system": " ".join((platform.system(), *platform.release().split(".")[:1])),
        "Python": f"{platform.python_implementation()} {platform.python_version()}, asyncio's own loop",
        "packages": ", ".join(versions),
        "responder": f"a process {apart}, asyncio.Protocol on {served_by}",
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--concurrency", type=_numbers, default=[1, 50, 500], metavar="1,50,500")
    parser.add_argument("--budget", type=float, default=0.3, metavar="SECONDS", help="CPU time of one cell, about")
    scheme = parser.add_mutually_exclusive_group()
    scheme.add_argument("--plain", action="store_true", help="without TLS only")
    scheme.add_argument("--tls", action="store_true", help="with TLS only")
    parser.add_argument("--peers", type=_names, default=list(PEERS), metavar=",".join(PEERS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--quick", action="store_true", help="a smoke run, too short to judge by")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.concurrency, options.budget = 2, [1, 50], 0.02
    if options.rounds < 1:
        parser.error("at least one round")
    return options


def main() -> int:
    """Measures, prints, and says whether the targets are met."""
    options = arguments()
    prepare()
    core = pin()
    with responder(core) as server:
        schemes = [name for name in ("plain", "tls") if getattr(options, name) or not (options.plain or options.tls)]
        servers = [
            Server(server[name], server["ca"], name == "tls", concurrency)
            for name in schemes
            for concurrency in options.concurrency
        ]
        benchmark = Benchmark(servers, options.peers, options.budget)
        say("finding how many polls to measure")
        benchmark.calibrate()
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}")
            benchmark.run_round(number)
    say("imports")
    imports = measure_imports(2 if options.quick else IMPORT_RUNS)
    targets = benchmark.targets() + import_target(imports)
    about = machine(server["loop"], is_apart=core is not None)
    print("\n".join(f"- {name}: {text}" for name, text in about.items()))
    print(f"- {options.rounds} rounds; medians (quartiles), and the median of the rounds' ratios to {OURS}\n")
    for scheme in dict.fromkeys(map(_scheme, servers)):
        print(benchmark.table(scheme) + "\n")
    print(import_table(imports) + "\n")
    if not options.quick:
        print(verdict(targets))
    if options.json:
        _write(options.json, about, benchmark, imports, targets)
    return 1 if not options.quick and not all(target.is_met for target in targets) else 0


def _write(
    file: Path, about: dict[str, str], benchmark: Benchmark, imports: dict[str, list[float]], targets: Sequence[Target]
) -> None:
    polls = [
        {
            "scheme": scheme,
            "concurrency": concurrency,
            "peer": peer,
            "cpu_us": [sample.cpu for sample in samples],
            "wall_us": [sample.wall for sample in samples],
        }
        for (scheme, concurrency, peer), samples in benchmark.samples.items()
    ]
    judged = [{"name": t.name, "ratio": t.ratio, "limit": t.limit, "met": t.is_met} for t in targets]
    document = {"machine": about, "polls": polls, "imports_cpu_ms": imports, "targets": judged}
    file.write_text(json.dumps(document, indent=2) + "\n")


def _scheme(server: Server) -> str:
    return "TLS" if server.is_tls else "plain HTTP"


def _cpu(sample: Sample) -> float:
    return sample.cpu


def _wall(sample: Sample) -> float:
    return sample.wall


def rotated(items: Sequence[str], by: int) -> list[str]:
    """The same, but begins so many later."""
    by %= len(items)
    return [*items[by:], *items[:by]]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The quartiles of at least one value."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(",")]
    if min(numbers) < 1:
        raise ValueError
    return numbers


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - PEERS.keys():
        raise argparse.ArgumentTypeError(f"no such peer: {', '.join(sorted(unknown))}")
    return names


def say(text: str) -> None:
    """Tells whoever waits what is going on."""
    print(f"{text} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
