"""`make mutation`: one small fault at a time in a room of the ground floor or of the ledger, judged by its own tests.

The faults are cosmic-ray's and one of ours, a statement left out. Each is put in the place of the module in a fork of
a process that has imported what the tests need, so nothing on disk is touched and a mutant costs as long as its
tests. Whatever the tests do not notice must stand in survivors.toml with the reason. Needs `os.fork`.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import difflib
import importlib
import math
import os
import re
import resource
import shlex
import shutil
import signal
import sys
import time
import tomllib
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import hypothesis
import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.exceptions import CosmicRayTestingException
from cosmic_ray.mutating import MutationVisitor
from cosmic_ray.operators.exception_replacer import ExceptionReplacer
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator, operator_names
from parso.python.tree import Keyword, Name

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SURVIVORS = Path(__file__).with_name("survivors.toml")
PLUGINS = ("pytest_timeout", "pytest_asyncio.plugin", "anyio.pytest_plugin", "_hypothesis_pytestplugin")
WARM = (*PLUGINS, "httpx", "httptools", "h11", "trio", "trio.testing", "looptime", "sqlite3", "zoneinfo", "psycopg")
LEDGER = (
    "tests/batch/test_beside.py tests/batch/test_ledger.py tests/batch/test_contract.py tests/batch/test_campaign.py"
    " -k 'not postgres'"
)
SOON = "--timeout=10 --timeout-method=thread"
"""Where a fault may make a test wait for ever."""
CONTRACT = f"tests/batch/test_contract.py tests/batch/test_ledger.py -k 'not postgres' {SOON}"
POSTGRES = (
    "tests/batch/test_contract.py tests/batch/test_postgres.py -k 'not sqlite and not several_processes'"
    " --timeout=20 --timeout-method=thread"  # which ends whoever waits for what a fault keeps from coming
)
JUDGES = {
    "_errors": "tests/pure/test_errors.py tests/pure/test_models.py",
    "_models": "tests/pure/test_models.py",
    "_lifecycle": "tests/pure/test_lifecycle.py",
    "_lifetimes": "tests/pure/test_lifetimes.py tests/pure/test_polling.py",
    "_wire": "tests/pure/test_wire.py",
    "_polling": "tests/pure/test_polling.py tests/pure/test_watch.py tests/pure/test_near_the_best.py",
    "_watch": "tests/pure/test_watch.py",
    "_limits": "tests/pure/test_limits.py",
    "_agenda": "tests/pure/test_agenda.py",
    "_events": "tests/pure/test_events.py",
    "batch/standing": "tests/batch/test_standing.py",
    "batch/hours": "tests/batch/test_hours.py",
    "batch/breakers": "tests/batch/test_breakers.py",
    "batch/numbers": "tests/batch/test_numbers.py tests/batch/test_opening.py -k 'test_numbers or list_of_numbers'",
    "batch/beside": "tests/batch/test_beside.py",
    "batch/checks": "tests/batch/test_beside.py tests/batch/test_ledger.py",
    "batch/arguments": "tests/batch/test_runner.py tests/batch/test_campaign.py tests/batch/test_breakers.py",
    "batch/making": "tests/batch/test_making.py",
    "batch/opening": "tests/batch/test_opening.py",
    "batch/placing": f"tests/batch/test_placing.py {CONTRACT}",
    "batch/ledger": CONTRACT,
    "batch/sqlite": CONTRACT,
    "batch/row": CONTRACT,
    "batch/recording": f"tests/batch/test_recording.py tests/batch/test_runner.py {SOON}",
    "batch/following": f"tests/batch/test_following.py {SOON}",
    "batch/errors": LEDGER,
    "batch/tables": LEDGER,
    "batch/ledger_file": LEDGER,
    "batch/postgres_url": "tests/batch/test_postgres.py -k 'url or password'",
    "batch/postgres": POSTGRES,
    "batch/postgres_tables": POSTGRES,
    "batch/postgres_session": POSTGRES,
    "batch/postgres_link": POSTGRES,
}
"""Which tests have to notice a fault in which room."""
FAULTS = re.compile(
    r"core/(AddNot|ReplaceTrueWithFalse|ReplaceFalseWithTrue|ReplaceAndWithOr|ReplaceOrWithAnd|ReplaceBreakWithContinue"
    r"|ReplaceContinueWithBreak|NumberReplacer|RemoveDecorator|ZeroIterationForLoop"
    r"|ReplaceUnaryOperator_(USub_UAdd|Delete_Not)"
    r"|ReplaceBinaryOperator_(Add_Sub|Sub_Add|Mul_Div|Div_Mul|FloorDiv_Mul|Mod_Mul|Pow_Mul|BitAnd_BitOr|LShift_RShift)"
    r"|ReplaceComparisonOperator_(Eq_NotEq|NotEq_Eq|Lt_LtE|Lt_GtE|LtE_Lt|LtE_Gt|Gt_GtE|Gt_LtE|GtE_Gt|GtE_Lt|Is_IsNot"
    r"|IsNot_Is|In_NotIn|NotIn_In))"
)
"""Of cosmic-ray's: one or two for each operator of Python, and none for `|`, which is in annotations only."""
ARITHMETIC = {"arith_expr", "term", "power", "and_expr", "shift_expr"}
"""Where `*` is a product, and not the mark before arguments."""


class LeaveOut(Operator):
    """Leaves one statement of a function out."""

    @staticmethod
    def _is_one(node) -> bool:
        return (
            node.type == "simple_stmt"
            and node.children[0].type in ("expr_stmt", "atom_expr", "return_stmt", "raise_stmt")
            and (function := node.search_ancestor("funcdef")) is not None
            and not (node.children[0].get_code().strip() == "return None" and node.end_pos == function.end_pos)
        )

    def mutation_positions(self, node):
        if self._is_one(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):
        left_out = node.children[0]
        node.children[0] = Keyword("pass", left_out.start_pos, left_out.get_first_leaf().prefix)
        return node

    @classmethod
    def examples(cls):
        return ()


class CatchAnother(ExceptionReplacer):
    """Cosmic-ray's, which does not know an error that is named by its module."""

    @staticmethod
    def _name_nodes(node):
        caught = node.children[1]
        if caught.type == "atom":
            caught = caught.children[1]
        return caught.children[::2] if caught.type == "testlist_comp" else (caught,)

    def mutate(self, node, index):
        caught = self._name_nodes(node)[index]
        among = caught.parent.children
        another = Name(CosmicRayTestingException.__name__, caught.start_pos, caught.get_first_leaf().prefix)
        among[among.index(caught)] = another
        return node


@attrs.frozen
class Mutant:
    """A room with one fault in it."""

    room: str
    fault: str
    source: str = attrs.field(repr=False)
    was: str
    now: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.room, self.was, self.now


def path_of(room: str) -> Path:
    return ROOT / "tenios_async" / f"{room}.py"


def changed(before: str, after: str) -> tuple[str, str]:
    """The lines that differ."""
    was, now = [], []
    for line in difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0):
        if line[1:].strip() and not line.startswith(("---", "+++", "@@")):
            (was if line[0] == "-" else now).append(line[1:].strip())
    return "\n".join(was), "\n".join(now)


def mutants(room: str) -> Iterator[Mutant]:
    """Every fault of every kind, each once."""
    source = path_of(room).read_text(encoding="utf-8")
    operators: dict[str, Operator] = {"LeaveOut": LeaveOut(), "CatchAnother": CatchAnother()}
    operators |= {name: get_operator(name)() for name in operator_names() if FAULTS.fullmatch(name)}
    for name, operator in operators.items():
        places = [node for node in ast_nodes(get_ast(source)) for _ in operator.mutation_positions(node)]
        for place, node in enumerate(places):
            if "BinaryOperator" in name and node.parent.type not in ARITHMETIC:
                continue
            mutated = MutationVisitor.mutate_code(source, operator, place)
            if mutated is not None and mutated != source:
                was, now = changed(source, mutated)
                if was != "if TYPE_CHECKING:":  # what is imported there is imported anyway
                    yield Mutant(room, name.removeprefix("core/"), mutated, was, now)


class Planted(SourceFileLoader):
    """Finds and loads the one module that has the fault."""

    def __init__(self, room: str, source: str) -> None:
        super().__init__(f"tenios_async.{room.replace('/', '.')}", str(path_of(room)))
        self.source = source

    def find_spec(self, name, path=None, target=None):
        return spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, fullname):
        return compile(self.source, self.path, "exec", dont_inherit=True)


def judge(room: str, source: str, timeout: float, work: int = 600, *, aloud: bool = False) -> str:
    """What the tests of the room say of this source: passed, killed or timed out, after seconds of time or of work."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
            resource.setrlimit(resource.RLIMIT_CPU, (work, work + 1))
            nothing = os.open(os.devnull, os.O_RDWR)
            for number in () if aloud else (0, 1, 2):
                os.dup2(nothing, number)
            sys.meta_path.insert(0, Planted(room, source))
            options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=mutation", "-o", "addopts="]
            plugins = [sys.modules[plugin] for plugin in PLUGINS]
            code = int(pytest.main([*options, "--import-mode=importlib", *shlex.split(JUDGES[room])], plugins))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    ends = time.monotonic() + timeout
    try:
        while (done := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > ends:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return "timed out"
            time.sleep(0.01)
    finally:
        end_servers_of(child)
    ended = os.waitstatus_to_exitcode(done[1])
    return "passed" if ended == 0 else "timed out" if ended == -signal.SIGXCPU else "killed"


def end_servers_of(group: int) -> None:
    """Ends the PostgreSQL that a process group which was killed has left behind: it is in none of ours."""
    from tests.batch.server import PLACE, Server, binaries

    for folder in PLACE.glob(f"pg-{group}-*"):
        with contextlib.suppress(AssertionError):  # where it does not run
            Server(folder, binaries()).stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


def _worked() -> float:
    """Seconds of work that all who have ended have done: no other load makes that more."""
    times = os.times()
    return times.children_user + times.children_system


def measure(room: str, listed: set[tuple[str, str, str]], jobs: int) -> tuple[Counter[str], set[tuple[str, str, str]]]:
    """Judges every mutant of the room; prints those that pass and are not listed. Also gives the keys of all that passed."""
    source = path_of(room).read_text(encoding="utf-8")
    began, worked = time.monotonic(), _worked()
    assert judge(room, source, 600, aloud=True) == "passed", f"{JUDGES[room]} must pass before they can judge"
    timeout = 10 + 10 * (time.monotonic() - began)
    work = math.ceil(3 + 3 * (_worked() - worked))
    assert judge(room, source + "\nraise RuntimeError\n", timeout) == "killed", "the tests do not see the module"
    counts, passed = Counter[str](), set()
    with ThreadPoolExecutor(jobs) as pool:
        found = list(mutants(room))
        for mutant, verdict in zip(
            found, pool.map(lambda one: judge(room, one.source, timeout, work), found), strict=True
        ):
            counts[verdict] += 1
            if verdict != "passed":
                continue
            passed.add(mutant.key)
            if mutant.key in listed:
                counts["listed"] += 1
            else:
                print(f"{room}: {mutant.fault}\n-  {mutant.was}\n+  {mutant.now}", flush=True)
    return counts, passed


def main() -> int:
    """0 where every mutant is killed or listed, and every one that is listed still passes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="*", choices=[*JUDGES, []], help="all of them if none is named")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time")
    options = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    os.environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    os.environ["TENIOS_TESTS_NEED_POSTGRESQL"] = "1"  # tests that are skipped notice nothing
    if (memory := Path("/dev/shm")).is_dir():
        os.environ["TMPDIR"] = os.environ["TENIOS_TESTS_POSTGRESQL_IN"] = str(memory)  # where nobody waits for a disk
    hypothesis.settings.register_profile("mutation", derandomize=True, database=None, deadline=None)
    builtins.CosmicRayTestingException = CosmicRayTestingException  # or whatever is caught would be a NameError
    for module in WARM:
        importlib.import_module(module)
    assert "tenios_async" not in sys.modules
    listed = tomllib.loads(SURVIVORS.read_text(encoding="utf-8")) if SURVIVORS.exists() else {}
    is_well = True
    for room in options.rooms or JUDGES:
        keys = {(room, one["was"], one["now"]) for one in listed.get(room, [])}
        began = time.monotonic()
        counts, passed = measure(room, keys, options.jobs)
        for _, was, now in keys - passed:
            print(f"{room}: listed, but a test notices it, or it is not there any more\n-  {was}\n+  {now}")
        unlisted = counts["passed"] - counts["listed"]
        is_well &= not unlisted and keys <= passed
        print(
            f"{room}: {counts.total() - counts['listed']} mutants, {counts['killed']} killed, {counts['timed out']} timed out,"
            f" {counts['listed']} listed, {unlisted} not noticed ({time.monotonic() - began:.0f} s)",
            flush=True,
        )
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
