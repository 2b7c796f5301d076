"""CSV that cannot start a formula in a spreadsheet, and comes back as it was. Pure.

OWASP, "CSV Injection": a cell that begins with = + - @ tab or carriage return may be run as a formula. Such a cell is
written with an apostrophe before it, which spreadsheets take for "text follows"; so is one that begins with an
apostrophe, so that reading can take exactly that one away again.
"""

from __future__ import annotations

_DANGEROUS = frozenset("=+-@\t\r")


def guarded(cell: str) -> str:
    """The cell as it is written."""
    return f"'{cell}" if cell[:1] in _DANGEROUS | {"'"} and cell else cell


def unguarded(cell: str) -> str:
    """The cell as it was. One that some other program wrote with an apostrophe of its own keeps that."""
    return cell[1:] if cell[:1] == "'" and cell[1:2] in _DANGEROUS | {"'"} and len(cell) > 1 else cell
