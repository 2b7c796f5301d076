"""Markup that is escaped by construction, and the few shapes a report draws. Pure; it knows nothing of campaigns.

What is written is HTML and XML at once, so that an XML parser can prove that it is well formed. Widths are in per cent
and heights in pixels: a picture fits any screen and paper while its text keeps its size.
"""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NBSP = "\u00a0"
"""The space at which no line ends."""

LEAST_SHARE = 0.6
"""Per cent of the width that any part gets which is not nothing: one in a million must not be out of sight."""

_VOID = frozenset({"meta"})


class Markup(str):
    """Text that is markup. Every other text is escaped where it meets one."""

    __slots__ = ()


Child: TypeAlias = "Markup | str"


def printable(text: str) -> str:
    """The text on one line, with a question mark for what cannot be printed or would turn the text around it."""
    return "".join(c if c.isprintable() or c == NBSP else " " if c.isspace() else "?" for c in text)


def escape(text: Child) -> Markup:
    """The text as markup that shows it and does nothing else."""
    return text if isinstance(text, Markup) else Markup(html.escape(printable(text)))


def join(children: Iterable[Child]) -> Markup:
    """One after the other."""
    return Markup("".join(escape(child) for child in children))


def element(tag: str, /, *children: Child, **attributes: str | float) -> Markup:
    """An element. In the name of an attribute `_` stands for `-`, and at its end for nothing (`class_`)."""
    written = "".join(f' {name.rstrip("_").replace("_", "-")}="{escape(str(v))}"' for name, v in attributes.items())
    if tag in _VOID:
        return Markup(f"<{tag}{written} />")
    return Markup(f"<{tag}{written}>{join(children)}</{tag}>")


def percent(part: float) -> str:
    """A length in a drawing."""
    return f"{part:.3f}%"


def picture(key: str, title: str, description: str, height: float, shapes: Iterable[Markup]) -> Markup:
    """A drawing as wide as there is room and `height` pixels high. The key is its own within the document."""
    return element(
        "svg",
        element("title", title, id=f"{key}-title"),
        element("desc", description, id=f"{key}-desc"),
        *shapes,
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
        width="100%",
        height=height,
        class_=key.partition("-")[0],
    )


def decoration(shapes: Iterable[Markup], look: str) -> Markup:
    """A drawing that says nothing that does not stand beside it. The style sheet gives it its size."""
    return element("svg", *shapes, class_=look, aria_hidden="true")


@attrs.frozen
class Part:
    """A part of a picture: how much there is of it, how it looks (a class of the style sheet), and its name."""

    count: int
    look: str
    name: str


def rect(x: float, y: float, width: float, height: float, look: str, *, hint: str = "") -> Markup:
    """A rectangle (x and width in per cent), with what a pointer that rests on it is told."""
    hints = [element("title", hint)] if hint else []
    return element(
        "rect", *hints, x=percent(x), y=f"{y:.1f}", width=percent(width), height=f"{height:.1f}", class_=look
    )


def text(x: float, y: float, words: str, *, anchor: str = "start", look: str = "") -> Markup:
    """One line of text (x in per cent)."""
    return element("text", words, x=percent(x), y=f"{y:.1f}", text_anchor=anchor, class_=look or "plain")


def line(x1: float, y1: float, x2: float, y2: float, look: str) -> Markup:
    """A straight line (x in per cent)."""
    return element("line", x1=percent(x1), y1=f"{y1:.1f}", x2=percent(x2), y2=f"{y2:.1f}", class_=look)


def shares(counts: Sequence[int]) -> list[float]:
    """The counts in per cent of their sum, where even the smallest that is not 0 gets `LEAST_SHARE`."""
    total = sum(counts)
    if not total:
        return [0.0] * len(counts)
    raised = [max(100 * count / total, LEAST_SHARE) if count else 0.0 for count in counts]
    return [share * 100 / sum(raised) for share in raised]


def strip(parts: Sequence[Part], height: float) -> list[Markup]:
    """All parts side by side, as one bar of the full width."""
    shapes, x = [rect(0, 0, 100, height, "track")], 0.0
    for part, share in zip(parts, shares([part.count for part in parts]), strict=True):
        if part.count:
            shapes.append(rect(x, 0, share, height, f"{part.look} part", hint=f"{part.name}: {part.count:,}"))
        x += share
    return shapes


BAR_PITCH = 46
"""Pixels from one bar of `bars` to the next."""


def bars(parts: Sequence[Part], whole: int, notes: Sequence[str]) -> list[Markup]:
    """One bar below the other, each with its name and a note above it, as parts of the whole."""
    shapes: list[Markup] = []
    for number, (part, note) in enumerate(zip(parts, notes, strict=True)):
        y = number * BAR_PITCH
        share = max(100 * part.count / whole, LEAST_SHARE) if part.count else 0.0
        shapes += [
            text(0, y + 15, part.name),
            text(100, y + 15, note, anchor="end"),
            rect(0, y + 22, 100, 12, "track"),
            rect(0, y + 22, share, 12, part.look, hint=f"{part.name}: {part.count:,}"),
        ]
    return shapes


def scale(largest: int) -> list[int]:
    """Round numbers from 0 to at least `largest` for the lines of a picture, at most seven of them."""
    largest = max(largest, 1)
    least = math.ceil(largest / 6)
    power = 10 ** (len(str(least)) - 1)
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= least)
    return list(range(0, largest + step, step))


def grid(lines: Sequence[int], top: float, bottom: float) -> list[Markup]:
    """Horizontal lines from `bottom` (the first) to `top` (the last), each with its number at the left."""
    shapes: list[Markup] = []
    for number in lines:
        y = bottom - (bottom - top) * number / lines[-1]
        label = element("text", f"{number:,}", x=-8, y=f"{y + 4:.1f}", text_anchor="end", class_="tick")
        shapes += [line(0, y, 100, y, "rule" if number else "axis"), label]
    return shapes


def column(x: float, width: float, bottom: float, per_count: float, parts: Iterable[Part]) -> list[Markup]:
    """Parts on top of each other. `per_count` is the height in pixels of one; what is there is seen."""
    shapes, y = list[Markup](), bottom
    for part in parts:
        if part.count:
            height = max(part.count * per_count, 1.0)
            y -= height
            shapes.append(rect(x, y, width, height, f"{part.look} part", hint=f"{part.name}: {part.count:,}"))
    return shapes
