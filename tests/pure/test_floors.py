"""Imports only point down, and the ground floor is pure."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import tenios_async

PACKAGE = Path(tenios_async.__file__).parent
GROUND = {
    "_errors",
    "_models",
    "_lifecycle",
    "_wire",
    "_polling",
    "_lifetimes",
    "_watch",
    "_limits",
    "_agenda",
    "_events",
}
FIRST = {"_exchange", "_pool", "_reader", "_rooms", "_placing", "_turns", "_monitor", "_client", "_records"}
IMPURE = {"httpx", "httpx2", "httpcore", "anyio", "asyncio", "trio", "time", "random", "socket", "ssl", "threading"}
TOP = {"__main__", "cli", "simulator", "batch", "otel"}


def imported(source: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that they can be read"
            names.add(node.module or "")
    return names


def offences(room: str, source: str) -> list[str]:
    """What a module in this room imports and must not."""
    found = []
    for name in imported(source):
        parts = name.split(".")
        ours = parts[0] == "tenios_async"
        target = parts[1] if ours and len(parts) > 1 else ""
        if room in GROUND:
            bad = parts[0] in IMPURE or (ours and target not in GROUND)
        elif room in FIRST:
            bad = ours and target not in GROUND | FIRST | {""}
        elif room == "simulator":
            bad = ours and target not in ("simulator", "")
        else:
            bad = ours and target.startswith("_")
        if bad:
            found.append(name)
    return found


def rooms() -> list[tuple[str, Path]]:
    files = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    return [(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path) for path in files]


@pytest.mark.parametrize(
    "path", [path for _, path in rooms() if path.name != "__main__.py"], ids=lambda path: path.name
)
def test_every_module_can_be_imported(path):
    """Also one that only type checkers import: whoever resolves annotations imports it too."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    importlib.import_module(".".join(part for part in parts if part != "__init__"))


@pytest.mark.parametrize(("room", "path"), rooms(), ids=lambda value: getattr(value, "name", value))
def test_imports_point_down(room, path):
    assert room in GROUND | FIRST | TOP
    assert offences(room, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("_wire", "import httpx"),
        ("_watch", "def f():\n    import time"),
        ("_models", "from tenios_async._client import TeniosClient"),
        ("_client", "from tenios_async.cli import run"),
        ("cli", "from tenios_async._wire import Body"),
        ("simulator", "from tenios_async._wire import Body"),
    ],
)
def test_an_import_that_points_up_is_noticed(room, source):
    assert offences(room, source)


def python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return result.stdout


def test_the_core_goes_without_the_extras_and_without_httpx():
    """Nobody pays for httpx, rich or cyclopts by importing the client."""
    out = python(
        "import sys; sys.modules['cyclopts'] = sys.modules['rich'] = sys.modules['h11'] = None\n"
        "import tenios_async; print('httpx' in sys.modules)"
    )
    assert out.strip() == "False"


def test_a_missing_extra_is_one_line():
    code = (
        "import sys; sys.modules['cyclopts'] = None\n"
        "from tenios_async.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit as e:\n    print(e.code)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "2"
    assert result.stderr.count("\n") == 1
    assert "tenios_async[cli]" in result.stderr


def test_the_face_exports_what_it_says_and_documents_it():
    for name in tenios_async.__all__:
        thing = getattr(tenios_async, name)
        if isinstance(thing, type) or (callable(thing) and name != "Observer"):
            assert thing.__doc__, name
    private = [name for name in tenios_async.__all__ if name.startswith("_") and name != "__version__"]
    assert private == []
    assert sorted(tenios_async.__all__) == tenios_async.__all__
