"""Every experiment, for as long as it is asked to: `make soak`, or `python -m tests.faults.soak --help`.

Without `--hours` each makes the number of passes that docs/reliability.md names; with it all are made again and again,
each time with further seeds, until the time is up. It prints a table at the end, and ends with 1 if anything did not
hold: an invariant, or the bound of a time or of memory. The canary listens, as in the suite.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
import traceback
from dataclasses import dataclass, field

from ..canary import Canary, watching
from .experiment import Experiment, Skipped, Tally
from .table import experiments, markdown


@dataclass
class Line:
    """What came of one experiment."""

    experiment: Experiment
    tally: Tally = field(default_factory=lambda: Tally(is_measuring=True))
    passes: int = 0
    seconds: float = 0.0
    skipped: str | None = None
    failed: list[int] = field(default_factory=list)
    over: list[int] = field(default_factory=list)

    def make(self, seed: int, passes: int, canary: Canary, *, until: float) -> None:
        """So many passes, or as many as there is time for but one at least."""
        for number in range(passes):
            if number and time.monotonic() > until:
                return
            began, over = time.monotonic(), self.tally.over
            try:
                self.experiment.make_pass(seed + number, self.tally)
                canary.check()
            except Skipped as reason:
                self.skipped = str(reason)
                return
            except KeyboardInterrupt:
                raise
            except BaseException:  # the others are made all the same
                traceback.print_exc()
                self.failed.append(seed + number)
            if self.tally.over > over:
                print(f"over a bound; {self.experiment.again(seed + number)}", file=sys.stderr)
                self.over.append(seed + number)
            self.passes += 1
            self.seconds += time.monotonic() - began

    @property
    def is_bad(self) -> bool:
        return bool(self.failed or self.over)

    def __str__(self) -> str:
        if self.skipped is not None:
            return f"{self.experiment.name:24} skipped: {self.skipped}"
        verdict = "holds"
        if self.is_bad:
            verdict = f"FAILED with seeds {self.failed}" if self.failed else f"OVER ITS BOUND with seeds {self.over}"
        figures = "".join(f"; {what}: {figure}" for what, figure in self.tally.figures.items())
        ends = ", ".join(f"{count:,} {end}" for end, count in sorted(self.tally.ended.items()))
        line = f"{self.experiment.name:24} {self.tally.trials:9,} trials {self.seconds:8.1f} s  {verdict}{figures}"
        return f"{line}\n{'':24}   {ends}" if ends else line


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, help="go on for so long; 0.5 is half an hour")
    parser.add_argument("--only", action="append", metavar="NAME", help="this experiment; may be said again")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="of the first pass")
    parser.add_argument("--passes", type=int, help="instead of the number that the page names")
    parser.add_argument("--table", action="store_true", help="print the table of docs/reliability.md and end")
    return parser.parse_args()


def main() -> int:
    options = parse()
    if options.table:
        print(markdown())
        return 0
    chosen = [each for each in experiments() if options.only is None or each.name in options.only]
    if not chosen or (options.only and len(chosen) != len(set(options.only))):
        sys.exit(f"there are {', '.join(each.name for each in experiments())}")
    logging.getLogger("tenios_async").addHandler(logging.NullHandler())  # or each doubt would be a line on a terminal
    lines = [Line(each) for each in chosen]
    ends = time.monotonic() + (options.hours or 0) * 3600
    seed, goes_on = options.seed, True
    try:
        with watching() as canary:
            while goes_on:
                for line in lines:
                    passes = options.passes or (1 if options.hours else line.experiment.passes)
                    print(f"{line.experiment.name}: --seed {seed} --passes {passes}", flush=True)
                    line.make(seed, passes, canary, until=ends if options.hours else float("inf"))
                    print(line, flush=True)
                seed += max(options.passes or 1, 1)
                goes_on = time.monotonic() < ends
    except KeyboardInterrupt:
        print("\nended by hand; so far:")
    print("\n".join(["", *map(str, lines)]))
    return 1 if any(line.is_bad for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
