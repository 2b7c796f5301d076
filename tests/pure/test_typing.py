"""Every public name is pinned in tests/typing, which `make check` hands to mypy and pyright."""

import ast
import importlib
from pathlib import Path

import pytest

PINNED = Path(__file__).parents[1] / "typing"


@pytest.mark.parametrize(
    ("face", "page"),
    [("tenios_async", "api"), ("tenios_async.batch", "batch"), ("tenios_async.simulator", "simulator")],
)
def test_every_name_of_a_face_is_pinned(face, page):
    tree = ast.parse((PINNED / f"{page}.py").read_text(encoding="utf-8"))
    imported = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == face
        for alias in node.names
    ]
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert set(imported) <= used
    assert {*imported, "__version__"} == {*importlib.import_module(face).__all__, "__version__"}
