"""A campaign's figures for people: one HTML file that needs nothing else, and rows for a terminal. Pure.

The file fetches nothing and runs nothing; its policy allows its own style sheet, by its hash, and nothing besides. Keys
are not in the figures and numbers are masked there.
"""

from __future__ import annotations

import base64
import hashlib
import math
import shlex
from importlib import resources
from typing import TYPE_CHECKING

from tenios_async import CallbackStatus
from tenios_async.batch.figures import (
    BINS,
    EDGES,
    Figures,
    Histogram,
    Outcome,
    TimeAxis,
    Timeline,
    bounds_of,
    round_width,
)
from tenios_async.batch.markup import (
    BAR_PITCH,
    Child,
    Markup,
    Part,
    bars,
    column,
    decoration,
    element,
    grid,
    join,
    line,
    picture,
    rect,
    scale,
    strip,
    text,
)
from tenios_async.batch.words import LABELS, MEANINGS, STAGES, lasting, moment, number, plural, share, zone

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime, tzinfo

NOT_REACHED = (Outcome.CUSTOMER_NOT_REACHED, Outcome.AGENT_NOT_REACHED, Outcome.REFUSED, Outcome.UNOBSERVED)
"""Contacts that are dealt with, and whom nobody is known to have talked to."""

TO_COME = (Outcome.UNDER_WAY, Outcome.QUEUED)

REFUSALS_SHOWN = 12
"""Reasons, the most frequent first; the others are summed up."""


def table(figures: Figures) -> list[tuple[str, str]]:
    """The report in words for a terminal: labels with their values, in the order in which one wants to know them.

    Texts from the contacts file and from TENIOS are in it as they came.
    """
    total, outcomes = figures.rows.total, figures.outcomes
    rows = [("Contacts", _contacts(figures))]
    rows += [
        (LABELS[outcome], f"{number(count)} ({share(count, total)}): {MEANINGS[outcome]}")
        for outcome, count in outcomes.items()
        if count or outcome is Outcome.TALKED
    ]
    if figures.rows.unknown:
        rows.append(("To decide", f"tenios batch resolve {shlex.quote(figures.ledger)}"))
    rows += [(f"Refused: {reason}", number(count)) for reason, count in _refusals(figures)]
    rows.append(("Polls", _polls(figures)))
    return rows


def html(figures: Figures) -> str:
    """The report as one HTML document, to be written as UTF-8."""
    style = Markup(resources.files("tenios_async.batch").joinpath("report.css").read_text(encoding="utf-8"))
    sections = [_standing(figures), _doubts(figures), _funnel(figures), _timeline(figures)]
    sections += [_refused(figures), _times(figures), _watching(figures)]
    document = element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=_policy(style)),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="referrer", content="no-referrer"),
            element("title", f"{figures.name}: campaign report"),
            element("style", style),
        ),
        element(
            "body",
            _head(figures),
            element("main", *(section for section in sections if section)),
            _foot(figures),
        ),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{document}\n"


def _policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _head(figures: Figures) -> Markup:
    return element(
        "header",
        element("p", f"Callback campaign, as of {_at(figures.generated_at, figures)}", class_="kicker"),
        element("h1", figures.name),
        element("p", _lede(figures), class_="lede"),
        _tiles(figures),
    )


def _lede(figures: Figures) -> str:
    rows, outcomes = figures.rows, figures.outcomes
    to_come = sum(outcomes[outcome] for outcome in TO_COME)
    if not rows.total:
        return "There are no contacts in this campaign."
    if rows.queued == rows.total:
        return f"Nobody has been called yet. {_are(rows.queued, 'contact')} still to come."
    talked = outcomes[Outcome.TALKED]
    reached = f"{number(talked)} of {plural(rows.total, 'contact')} {'was' if talked == 1 else 'were'} reached."
    doubt = f" {_are(rows.unknown, 'contact')} in doubt, for you to decide." if rows.unknown else ""
    rest = f" {_are(to_come, 'contact')} still to come." if to_come else " Nobody is left to call."
    return reached + doubt + rest


def _are(count: int, one: str) -> str:
    return f"{plural(count, one)} {'is' if count == 1 else 'are'}"


def _tiles(figures: Figures) -> Markup:
    outcomes, total = figures.outcomes, figures.rows.total
    tiles = [
        ("Reached", outcomes[Outcome.TALKED], "good"),
        ("Not reached", sum(outcomes[outcome] for outcome in NOT_REACHED), "bad"),
        ("In doubt", outcomes[Outcome.UNKNOWN], "doubt"),
        ("Still to come", sum(outcomes[outcome] for outcome in TO_COME), "rest"),
    ]
    return element(
        "dl",
        *(
            element(
                "div",
                element("dt", label),
                element("dd", number(count), class_="number"),
                element("dd", f"{share(count, total)} of all", class_="share"),
                class_=look,
            )
            for label, count, look in tiles
        ),
        class_="tiles",
    )


def _standing(figures: Figures) -> Markup:
    parts = [_part(outcome, count) for outcome, count in figures.outcomes.items()]
    total = figures.rows.total
    said = ", ".join(f"{part.name} {part.count:,}" for part in parts if part.count) or "There are none."
    rows = [
        [
            join([_swatch(part.look), part.name, element("span", MEANINGS[outcome], class_="meaning")]),
            number(part.count),
            share(part.count, total),
        ]
        for outcome, part in zip(figures.outcomes, parts, strict=True)
    ]
    return _section(
        "Where everyone stands",
        element("figure", picture("standing", "All contacts by outcome", said, 36, strip(parts, 36))),
        _table(("Outcome", "Contacts", "Share"), rows, total=["All contacts", number(total), share(total, total)]),
    )


def _doubts(figures: Figures) -> Markup:
    if not (total := figures.rows.unknown):
        return Markup()
    shown = figures.doubts
    zone_ = figures.generated_at.tzinfo
    rows = [
        [
            "" if doubt.line is None else str(doubt.line),
            element("span", doubt.number, class_="fixed"),
            join([_when(doubt.at, zone_), " ", element("span", doubt.reason, class_="why")]),
        ]
        for doubt in shown
    ]
    head = ("Line", "Number", f"When ({zone(figures.generated_at)}) and why")
    rest = f"The first {number(len(shown))} of {number(total)}." if len(shown) < total else ""
    return _section(
        f"In doubt: {number(total)}",
        element(
            "p",
            element("strong", "These phones may have rung."),
            " A request left and no answer proves what became of it, so none of them is called again by itself."
            " Find out from your agents or your call records, and decide one by one:",
            class_="alarm",
        ),
        _ways(figures.ledger, next((doubt.line for doubt in shown if doubt.line is not None), None)),
        _table(head, rows, rest, numeric=(0,)) if rows else "",
    )


def _ways(ledger: str, row: int | None) -> Markup:
    command = f"tenios batch resolve {shlex.quote(ledger)} --line {'LINE' if row is None else row}"
    ways = [
        ("It was called, and you know the callback's id: it is followed to its end.", f"{command} --called ID"),
        ("It was called: it counts as called, ended unseen.", f"{command} --called"),
        ("It was not called: it is queued, and called at the next run.", f"{command} --not-called"),
    ]
    pairs = [(element("dt", words), element("dd", element("code", typed))) for words, typed in ways]
    return element("dl", *(part for pair in pairs for part in pair), class_="ways")


def _funnel(figures: Figures) -> Markup:
    funnel = figures.funnel
    if not funnel.placed:
        return Markup()
    stages = [
        Part(funnel.placed, "stage", "Placed"),
        Part(funnel.accepted, "stage", STAGES[CallbackStatus.ACCEPTED]),
        Part(funnel.calling_a, "stage", STAGES[CallbackStatus.CALLING_A]),
        Part(funnel.calling_b, "stage", STAGES[CallbackStatus.CALLING_B]),
        Part(funnel.connected, "stage", "Connected"),
    ]
    ended = (Outcome.TALKED, Outcome.CUSTOMER_NOT_REACHED, Outcome.AGENT_NOT_REACHED, Outcome.UNOBSERVED)
    ends = [_part(outcome, figures.outcomes[outcome]) for outcome in ended]
    if funnel.under_way:
        ends.append(Part(funnel.under_way, "under-way", "Not ended yet"))
    return _section(
        "How far the calls came",
        element("p", f"Parts of {plural(funnel.placed, 'callback')} placed.", class_="note"),
        _bars("funnel", "Callbacks that reached each stage", stages, funnel.placed),
        element("h3", "How they ended"),
        _bars("ends", "How the callbacks ended", ends, funnel.placed),
        _behind(
            ("State", "Callbacks", "Share"),
            [[name, number(count), share(count, funnel.placed)] for name, count in _by_status(figures)],
        ),
    )


def _by_status(figures: Figures) -> list[tuple[str, int]]:
    funnel = figures.funnel
    return [
        ("placed", funnel.placed),
        ("at least REQUESTED", funnel.requested),
        ("at least ACCEPTED", funnel.accepted),
        ("at least CALLING_A", funnel.calling_a),
        ("at least CALLING_B", funnel.calling_b),
        ("at least CONNECTED", funnel.connected),
        ("ended DISCONNECTED", funnel.disconnected),
        ("ended CALL_B_FAILED", funnel.call_b_failed),
        ("ended CALL_A_FAILED", funnel.call_a_failed),
        ("ended unseen", funnel.unobserved),
        ("not ended yet", funnel.under_way),
    ]


def _bars(key: str, title: str, parts: Sequence[Part], whole: int) -> Markup:
    notes = [f"{number(part.count)} \u00b7 {share(part.count, whole)}" for part in parts]
    said = ", ".join(f"{part.name} {part.count:,}" for part in parts)
    return element("figure", picture(key, title, said, len(parts) * BAR_PITCH, bars(parts, whole, notes)))


_PLOT_TOP, _PLOT_BOTTOM, _PLOT_HEIGHT = 12.0, 220.0, 250.0
_FEWEST_SLOTS = 12  # one column alone would fill the picture
_MOST_TICKS = 8
_TICKS_PER_LABEL = 3  # on a small screen


def _timeline(figures: Figures) -> Markup:
    timeline = figures.timeline
    if timeline is None:
        return Markup()
    seen = [outcome for outcome in Outcome if any(bucket.get(outcome, 0) for bucket in timeline.buckets)]
    if not seen:
        return Markup()
    zone_ = figures.generated_at.tzinfo
    axis = timeline.axis
    width, last = lasting(axis.width), axis.begin(axis.count)
    said = f"From {_at(axis.start, figures)} to {_at(last, figures)}, in steps of {width}. The numbers follow."
    legend = element("ul", *(element("li", _swatch(_look(o)), LABELS[o]) for o in seen), class_="legend")
    rows = [
        [_when(axis.begin(number_), zone_), *(number(bucket.get(outcome, 0)) for outcome in seen)]
        for number_, bucket in enumerate(timeline.buckets)
        if any(bucket.values())
    ]
    return _section(
        "Over time",
        element("p", f"Contacts every {width}, in {zone(figures.generated_at)}.", class_="note"),
        legend,
        element("figure", picture("time", "Outcomes over time", said, _PLOT_HEIGHT, _columns(timeline, seen, zone_))),
        _behind(("From", *(LABELS[outcome] for outcome in seen)), rows),
    )


def _columns(timeline: Timeline, seen: Sequence[Outcome], zone_: tzinfo | None) -> list[Markup]:
    axis = timeline.axis
    lines = scale(max(sum(bucket.values()) for bucket in timeline.buckets))
    slots = max(axis.count, _FEWEST_SLOTS)
    width, per_count = 100 / slots, (_PLOT_BOTTOM - _PLOT_TOP) / lines[-1]
    shapes = grid(lines, _PLOT_TOP, _PLOT_BOTTOM)
    for slot, bucket in enumerate(timeline.buckets):
        parts = [_part(outcome, bucket.get(outcome, 0)) for outcome in seen]
        shapes += column(slot * width + width * 0.08, width * 0.84, _PLOT_BOTTOM, per_count, parts)
    for tick, slot in enumerate(_ticks(axis, slots, zone_)):
        label = _tick(axis.begin(slot).astimezone(zone_), axis.width, slots)
        x, look = slot * width, "tick roomy" if tick % _TICKS_PER_LABEL else "tick"
        anchor = "start" if x < 8 else "end" if x > 92 else "middle"  # noqa: PLR2004  # per cent: none sticks out
        shapes += [
            line(x, _PLOT_BOTTOM, x, _PLOT_BOTTOM + 5, f"axis {look}"),
            text(x, _PLOT_BOTTOM + 20, label, anchor=anchor, look=look),
        ]
    return shapes


def _ticks(axis: TimeAxis, slots: int, zone_: tzinfo | None) -> list[int]:
    """The buckets that begin at round times, a few of them."""
    step = round_width(slots * axis.width / _MOST_TICKS, of=axis.width) // axis.width
    midnight = axis.begin(0).astimezone(zone_).replace(hour=0, minute=0, second=0)
    past = axis.bucket(midnight) % step
    return list(range(past, slots, step))


def _tick(at: datetime, width: int, slots: int) -> str:
    day = 86_400
    if width >= day:
        return f"{at:%Y-%m-%d}"
    if width * slots > day:
        return f"{at:%m-%d %H:%M}"
    return f"{at:%H:%M:%S}" if width % 60 else f"{at:%H:%M}"


def _refused(figures: Figures) -> Markup:
    refusals = _refusals(figures)
    if not refusals:
        return Markup()
    whole = sum(figures.refusals.values())
    rows = [[join([reason, _bar(count, whole)]), number(count), share(count, whole)] for reason, count in refusals]
    return _section(
        f"Refused by TENIOS: {number(figures.rows.refused)}",
        element("p", "No phone rang. Mend the cause before these contacts go into another campaign.", class_="note"),
        _table(("Reason", "Contacts", "Share"), rows),
    )


def _bar(count: int, whole: int) -> Markup:
    return decoration([rect(0, 0, 100, 12, "track"), rect(0, 0, 100 * count / whole, 12, "refused")], "bar")


def _refusals(figures: Figures) -> list[tuple[str, int]]:
    ranked = sorted(figures.refusals.items(), key=lambda item: (-item[1], item[0]))
    rest = ranked[REFUSALS_SHOWN:]
    others = [(f"{plural(len(rest), 'other reason')}", sum(count for _, count in rest))] if rest else []
    return ranked[:REFUSALS_SHOWN] + others


def _times(figures: Figures) -> Markup:
    known = {status: figures.time_in_state.get(status, Histogram()) for status in STAGES}
    timed = {status: histogram for status, histogram in known.items() if histogram.count}
    if not timed:
        return Markup()
    rows = [
        [_bin(index), *(number(histogram.counts[index]) for histogram in timed.values())]
        for index in range(BINS)
        if any(histogram.counts[index] for histogram in timed.values())
    ]
    return _section(
        "Time in each state",
        element("p", "As the polls saw it, on a logarithmic scale. The line marks the median.", class_="note"),
        element("div", *(_panel(status, histogram) for status, histogram in timed.items()), class_="panels"),
        _behind(("Lasting", *timed), rows),
    )


_PANEL_HEIGHT = 84.0
_TICKS = ((1, "1 s"), (10, "10 s"), (60, "1 min"), (600, "10 min"), (3600, "1 h"))


def _panel(status: str, histogram: Histogram) -> Markup:
    mean, median = histogram.mean or 0.0, histogram.median or 0.0
    highest, width = max(histogram.counts), 100 / BINS
    shapes: list[Markup] = []
    for index, count in enumerate(histogram.counts):
        if count:
            height = max(count / highest * (_PANEL_HEIGHT - 8), 1.0)
            hint = f"{_bin(index)}: {count:,}"
            shapes.append(rect(index * width, _PANEL_HEIGHT - height, width, height, "stage part", hint=hint))
    shapes.append(line(0, _PANEL_HEIGHT, 100, _PANEL_HEIGHT, "axis"))  # over the bars, whose edges are page-coloured
    shapes.append(line(_place(median), 0, _place(median), _PANEL_HEIGHT, "median"))
    for seconds, label in _TICKS:
        x = _place(seconds)
        shapes += [
            line(x, _PANEL_HEIGHT, x, _PANEL_HEIGHT + 4, "axis"),
            text(x, _PANEL_HEIGHT + 18, label, anchor="middle", look="tick"),
        ]
    about = "over" if median >= EDGES[-1] else "about"
    said = f"median {about} {lasting(median)}, mean {lasting(mean)}, {plural(histogram.count, 'call')}"
    return element(
        "figure",
        element("h3", STAGES[status]),
        element("p", element("code", status), f": {said}", class_="note"),
        picture(f"panel-{status.lower()}", f"Time in {status}", said, _PANEL_HEIGHT + 24, shapes),
    )


def _place(seconds: float) -> float:
    """Where a duration stands in a panel, in per cent: bins are equally wide."""
    if seconds < EDGES[0]:
        return 100 / BINS * seconds / EDGES[0]
    return min(100.0, 100 / BINS * (1 + 2 * math.log2(seconds / EDGES[0])))


def _bin(index: int) -> str:
    low, high = bounds_of(index)
    if not low:
        return f"under {high:.2g}\u00a0s"
    return f"{_edge(low)} and more" if math.isinf(high) else f"{_edge(low)} to {_edge(high)}"


def _edge(seconds: float) -> str:
    return f"{seconds:.2g}\u00a0s" if seconds < 1 else lasting(seconds)


def _watching(figures: Figures) -> Markup:
    if not figures.polls:
        return Markup()
    return _section("Polls", element("p", f"{_polls(figures)}.", class_="note"))


def _polls(figures: Figures) -> str:
    spent, each = plural(figures.polls, "status poll"), figures.polls_per_callback
    if each is None:
        return spent
    return f"{spent}, {each:.1f} for each of {plural(figures.funnel.placed, 'callback')} placed"


def _foot(figures: Figures) -> Markup:
    facts = [
        ("Contacts", _contacts(figures)),
        ("Campaign", figures.ledger),
        ("Callback configuration", figures.callback_config_id or "each contact names its own"),
        ("Made", _at(figures.created_at, figures)),
        ("First call", _at(figures.first_placed_at, figures) if figures.first_placed_at else "none yet"),
        ("This report", _at(figures.generated_at, figures)),
    ]
    return element(
        "footer",
        element(
            "section",
            element("h2", "About this campaign"),
            element(
                "dl",
                *(element(tag, words) for fact in facts for tag, words in zip(("dt", "dd"), fact, strict=True)),
                class_="facts",
            ),
        ),
    )


def _contacts(figures: Figures) -> str:
    taken = f"{number(figures.rows.total)} from {figures.source}"
    if not figures.rejected:
        return taken
    return f"{taken}; {plural(figures.rejected, 'line')} of it {'was' if figures.rejected == 1 else 'were'} rejected"


def _at(at: datetime, figures: Figures) -> str:
    local = at.astimezone(figures.generated_at.tzinfo)
    return f"{moment(local)} {zone(local)}"


def _when(at: datetime | None, zone_: tzinfo | None) -> Markup:
    if at is None:
        return element("span", "not known", class_="note")
    local = at.astimezone(zone_)
    return element("time", moment(local), datetime=local.isoformat(timespec="seconds"), class_="fixed")


def _look(outcome: Outcome) -> str:
    return outcome.lower().replace("_", "-")


def _part(outcome: Outcome, count: int) -> Part:
    return Part(count, _look(outcome), LABELS[outcome])


def _swatch(look: str) -> Markup:
    return decoration([element("rect", width="100%", height="100%", class_=look)], "swatch")


def _section(title: str, *children: Child) -> Markup:
    return element("section", element("h2", title), *children)


def _behind(head: Sequence[str], rows: Sequence[Sequence[Child]]) -> Markup:
    """The numbers behind a picture."""
    return element("details", element("summary", "The numbers"), _table(head, rows))


def _table(
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
