"""The reference names all that is public, and nothing else."""

import inspect
import re

import pytest

import tenios_async
import tenios_async.batch
import tenios_async.otel
import tenios_async.simulator
from tenios_async import ApiError, TeniosError
from tenios_async.batch import LedgerError

from .pages import DOCS, read

ENTRY = re.compile(r"^::: (tenios_async(?:\.\w+)*)\.(\w+)$", re.MULTILINE)
ENTRIES = [entry for page in sorted((DOCS / "reference").glob("*.md")) for entry in ENTRY.findall(read(page))]


def public(module):
    """What a module exports; without a list of that, what is defined there and has a public name."""
    if hasattr(module, "__all__"):
        return set(module.__all__)
    return {
        name
        for name, value in vars(module).items()
        if name.isidentifier()
        and not name.startswith("_")
        and (value.__module__ == module.__name__ if inspect.isclass(value) else name.isupper())
        and name != "TYPE_CHECKING"
    }


@pytest.mark.parametrize(
    "module", [tenios_async, tenios_async.batch, tenios_async.simulator, tenios_async.otel], ids=lambda m: m.__name__
)
def test_every_public_name_has_an_entry(module):
    assert {name for path, name in ENTRIES if path == module.__name__} == public(module)


def test_every_error_that_can_be_caught_is_in_the_table_of_errors():
    """All but the bases, which are caught for others."""
    table = "\n".join(line for line in read(DOCS / "errors.md").splitlines() if line.startswith("|"))
    errors = {
        value
        for module in (tenios_async, tenios_async.batch)
        for name in public(module)
        if inspect.isclass(value := getattr(module, name)) and issubclass(value, Exception)
    }
    bases = {TeniosError, ApiError, LedgerError}
    assert {error.__name__ for error in errors - bases if f"`{error.__name__}`" not in table} == set()


def test_nothing_has_two_entries():
    assert len(ENTRIES) == len(set(ENTRIES))
