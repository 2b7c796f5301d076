"""The sections of a report that are drawn over time: what came when, and how long each state lasted. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

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
from tenios_async.batch.layout import at_of, behind, look_of, part_of, section, swatch, when
from tenios_async.batch.markup import Markup, column, element, grid, line, picture, rect, scale, text
from tenios_async.batch.words import LABELS, STAGES, lasting, number, plural, zone

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, tzinfo

_PLOT_TOP, _PLOT_BOTTOM, _PLOT_HEIGHT = 12.0, 220.0, 250.0

_FEWEST_SLOTS = 12  # one column alone would fill the picture

_MOST_TICKS = 8

_TICKS_PER_LABEL = 3  # on a small screen


def over_time(figures: Figures) -> Markup:
    """How the contacts ended, over time; empty where none has."""
    timeline = figures.timeline
    if timeline is None:
        return Markup()
    seen = [outcome for outcome in Outcome if any(bucket.get(outcome, 0) for bucket in timeline.buckets)]
    if not seen:
        return Markup()
    zone_ = figures.generated_at.tzinfo
    axis = timeline.axis
    width, last = lasting(axis.width), axis.begin(axis.count)
    said = f"From {at_of(axis.start, figures)} to {at_of(last, figures)}, in steps of {width}. The numbers follow."
    legend = element("ul", *(element("li", swatch(look_of(o)), LABELS[o]) for o in seen), class_="legend")
    rows = [
        [when(axis.begin(number_), zone_), *(number(bucket.get(outcome, 0)) for outcome in seen)]
        for number_, bucket in enumerate(timeline.buckets)
        if any(bucket.values())
    ]
    return section(
        "Over time",
        element("p", f"Contacts every {width}, in {zone(figures.generated_at)}.", class_="note"),
        legend,
        element("figure", picture("time", "Outcomes over time", said, _PLOT_HEIGHT, _columns(timeline, seen, zone_))),
        behind(("From", *(LABELS[outcome] for outcome in seen)), rows),
    )


def _columns(timeline: Timeline, seen: Sequence[Outcome], zone_: tzinfo | None) -> list[Markup]:
    axis = timeline.axis
    lines = scale(max(sum(bucket.values()) for bucket in timeline.buckets))
    slots = max(axis.count, _FEWEST_SLOTS)
    width, per_count = 100 / slots, (_PLOT_BOTTOM - _PLOT_TOP) / lines[-1]
    shapes = grid(lines, _PLOT_TOP, _PLOT_BOTTOM)
    for slot, bucket in enumerate(timeline.buckets):
        parts = [part_of(outcome, bucket.get(outcome, 0)) for outcome in seen]
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


def time_in_states(figures: Figures) -> Markup:
    """How long each state lasted; empty where none was seen to its end."""
    known = {status: figures.time_in_state.get(status, Histogram()) for status in STAGES}
    timed = {status: histogram for status, histogram in known.items() if histogram.count}
    if not timed:
        return Markup()
    rows = [
        [_bin(index), *(number(histogram.counts[index]) for histogram in timed.values())]
        for index in range(BINS)
        if any(histogram.counts[index] for histogram in timed.values())
    ]
    return section(
        "Time in each state",
        element("p", "As the polls saw it, on a logarithmic scale. The line marks the median.", class_="note"),
        element("div", *(_panel(status, histogram) for status, histogram in timed.items()), class_="panels"),
        behind(("Lasting", *timed), rows),
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
