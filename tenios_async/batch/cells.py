"""CSV that cannot start a formula in a spreadsheet, and comes back as it was. Pure.

OWASP, "CSV Injection": a cell that begins with = + - @ tab or carriage return may be run as a formula, also behind
quotation marks. And a spreadsheet that is set to another separator than the file's, as a German one to semicolons,
begins cells in the middle of ours, quoted or not. At each such place an apostrophe is written, which spreadsheets take
for "text follows"; so is one before an apostrophe that stands there, so that reading can take exactly that one away.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_BEGINNING = r"(?<![^;|\t\r\n])"
"""Where a cell may begin. At a comma none does: whoever splits there heeds our quotation marks."""
_FORMULA = r"""(?=['"]*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20])"""
"""The last four are the first four in full width, as they are written in East Asia."""
_TO_GUARD = re.compile(_BEGINNING + _FORMULA)
_GUARD = re.compile(_BEGINNING + "'" + _FORMULA)
_TO_QUOTE = re.compile(r'["\r\n,;\t|]')


def line_of(cells: Iterable[str]) -> str:
    """A line of CSV (RFC 4180), with a line feed at its end; `csv` itself leaves a lone carriage return unquoted."""
    return ",".join(map(_written, cells)) + "\n"


def unguarded(cell: str) -> str:
    """The cell as it was. An apostrophe that another program wrote stays, unless a formula could begin behind it."""
    return _GUARD.sub("", cell)


def _written(cell: str) -> str:
    cell = _TO_GUARD.sub("'", cell)
    return '"{}"'.format(cell.replace('"', '""')) if _TO_QUOTE.search(cell) else cell
