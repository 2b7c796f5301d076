"""The parts that the sections of a report are made of. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenios_async.batch.markup import Child, Markup, Part, decoration, element
from tenios_async.batch.words import LABELS, moment, zone

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime, tzinfo

    from tenios_async.batch.figures import Figures, Outcome


def at_of(at: datetime, figures: Figures) -> str:
    """A moment, in the time zone of the report."""
    local = at.astimezone(figures.generated_at.tzinfo)
    return f"{moment(local)} {zone(local)}"


def when(at: datetime | None, zone_: tzinfo | None) -> Markup:
    """The same for a table."""
    if at is None:
        return element("span", "not known", class_="note")
    local = at.astimezone(zone_)
    return element("time", moment(local), datetime=local.isoformat(timespec="seconds"), class_="fixed")


def look_of(outcome: Outcome) -> str:
    """Its class in the style sheet."""
    return outcome.lower().replace("_", "-")


def part_of(outcome: Outcome, count: int) -> Part:
    """As a part of a drawing."""
    return Part(count, look_of(outcome), LABELS[outcome])


def swatch(look: str) -> Markup:
    """The colour that something has in a drawing, for a legend."""
    return decoration([element("rect", width="100%", height="100%", class_=look)], "swatch")


def section(title: str, *children: Child) -> Markup:
    """A section with its heading."""
    return element("section", element("h2", title), *children)


def behind(head: Sequence[str], rows: Sequence[Sequence[Child]]) -> Markup:
    """The numbers behind a picture."""
    return element("details", element("summary", "The numbers"), table_of(head, rows))


def table_of(
    head: Sequence[str],
    rows: Iterable[Sequence[Child]],
    caption: str = "",
    *,
    total: Sequence[Child] = (),
    numeric: Sequence[int] | None = None,
) -> Markup:
    """A table. All columns but the first are numeric, where it is not said which are."""
    numeric = range(1, len(head)) if numeric is None else numeric
    looks = ["numeric" if index in numeric else "text" for index in range(len(head))]

    def cells(tags: Sequence[str], row: Sequence[Child], **attributes: str) -> list[Markup]:
        return [
            element(tag, cell, class_=look, **(attributes if tag == "th" else {}))
            for tag, cell, look in zip(tags, row, looks, strict=True)
        ]

    body_tags = ["th", *["td"] * (len(head) - 1)]
    parts = [element("caption", caption)] if caption else []
    parts.append(element("thead", element("tr", *cells(["th"] * len(head), head, scope="col"))))
    parts.append(element("tbody", *(element("tr", *cells(body_tags, row, scope="row")) for row in rows)))
    if total:
        parts.append(element("tfoot", element("tr", *cells(body_tags, total, scope="row"))))
    return element("div", element("table", *parts), class_="wide")
