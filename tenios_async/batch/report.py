"""A campaign's figures for people: one HTML file that needs nothing else, and rows for a terminal. Pure.

The file fetches nothing and runs nothing; its policy allows its own style sheet, by its hash, and nothing besides. Keys
are not in the figures and numbers are masked there.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from importlib import resources
from typing import TYPE_CHECKING

from tenios_async import CallbackStatus
from tenios_async.batch.charts import over_time, time_in_states
from tenios_async.batch.figures import Figures, Outcome
from tenios_async.batch.layout import at_of, behind, part_of, section, swatch, table_of, when
from tenios_async.batch.markup import BAR_PITCH, Markup, Part, bars, decoration, element, join, picture, rect, strip
from tenios_async.batch.words import LABELS, MEANINGS, STAGES, are, number, plural, share, zone

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    sections = [_standing(figures), _doubts(figures), _funnel(figures), over_time(figures)]
    sections += [_refused(figures), time_in_states(figures), _watching(figures)]
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
            element("main", *(part for part in sections if part)),
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
        element("p", f"Callback campaign, as of {at_of(figures.generated_at, figures)}", class_="kicker"),
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
        return f"Nobody has been called yet. {are(rows.queued, 'contact')} still to come."
    talked = outcomes[Outcome.TALKED]
    reached = f"{number(talked)} of {plural(rows.total, 'contact')} {'was' if talked == 1 else 'were'} reached."
    doubt = f" {are(rows.unknown, 'contact')} in doubt, for you to decide." if rows.unknown else ""
    rest = f" {are(to_come, 'contact')} still to come." if to_come else " Nobody is left to call."
    return reached + doubt + rest


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
    parts = [part_of(outcome, count) for outcome, count in figures.outcomes.items()]
    total = figures.rows.total
    said = ", ".join(f"{part.name} {part.count:,}" for part in parts if part.count) or "There are none."
    rows = [
        [
            join([swatch(part.look), part.name, element("span", MEANINGS[outcome], class_="meaning")]),
            number(part.count),
            share(part.count, total),
        ]
        for outcome, part in zip(figures.outcomes, parts, strict=True)
    ]
    return section(
        "Where everyone stands",
        element("figure", picture("standing", "All contacts by outcome", said, 36, strip(parts, 36))),
        table_of(("Outcome", "Contacts", "Share"), rows, total=["All contacts", number(total), share(total, total)]),
    )


def _doubts(figures: Figures) -> Markup:
    if not (total := figures.rows.unknown):
        return Markup()
    shown = figures.doubts
    zone_ = figures.generated_at.tzinfo
    rows = [
        [
            "" if doubt.line is None else f"{doubt.line} of {doubt.source}" if doubt.source else str(doubt.line),
            element("span", doubt.number, class_="fixed"),
            join([when(doubt.at, zone_), " ", element("span", doubt.reason, class_="why")]),
        ]
        for doubt in shown
    ]
    head = ("Line", "Number", f"When ({zone(figures.generated_at)}) and why")
    rest = f"The first {number(len(shown))} of {number(total)}." if len(shown) < total else ""
    return section(
        f"In doubt: {number(total)}",
        element(
            "p",
            element("strong", "These phones may have rung."),
            " A request left and no answer proves what became of it, so none of them is called again by itself."
            " Find out from your agents or your call records, and decide one by one:",
            class_="alarm",
        ),
        _ways(figures.ledger, next((doubt.line for doubt in shown if doubt.line is not None), None)),
        table_of(head, rows, rest, numeric=(0,)) if rows else "",
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
    ends = [part_of(outcome, figures.outcomes[outcome]) for outcome in ended]
    if funnel.under_way:
        ends.append(Part(funnel.under_way, "under-way", "Not ended yet"))
    return section(
        "How far the calls came",
        element("p", f"Parts of {plural(funnel.placed, 'callback')} placed.", class_="note"),
        _bars("funnel", "Callbacks that reached each stage", stages, funnel.placed),
        element("h3", "How they ended"),
        _bars("ends", "How the callbacks ended", ends, funnel.placed),
        behind(
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


def _refused(figures: Figures) -> Markup:
    refusals = _refusals(figures)
    if not refusals:
        return Markup()
    whole = sum(figures.refusals.values())
    rows = [[join([reason, _bar(count, whole)]), number(count), share(count, whole)] for reason, count in refusals]
    return section(
        f"Refused: {number(figures.rows.refused)}",
        element(
            "p",
            "No phone rang. Where TENIOS refused, mend the cause before these contacts go into another campaign.",
            class_="note",
        ),
        table_of(("Reason", "Contacts", "Share"), rows),
    )


def _bar(count: int, whole: int) -> Markup:
    return decoration([rect(0, 0, 100, 12, "track"), rect(0, 0, 100 * count / whole, 12, "refused")], "bar")


def _refusals(figures: Figures) -> list[tuple[str, int]]:
    ranked = sorted(figures.refusals.items(), key=lambda item: (-item[1], item[0]))
    rest = ranked[REFUSALS_SHOWN:]
    others = [(f"{plural(len(rest), 'other reason')}", sum(count for _, count in rest))] if rest else []
    return ranked[:REFUSALS_SHOWN] + others


def _watching(figures: Figures) -> Markup:
    if not figures.polls:
        return Markup()
    return section("Polls", element("p", f"{_polls(figures)}.", class_="note"))


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
        ("Made", at_of(figures.created_at, figures)),
        ("First call", at_of(figures.first_placed_at, figures) if figures.first_placed_at else "none yet"),
        ("This report", at_of(figures.generated_at, figures)),
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
    return f"{taken}; {plural(figures.rejected, 'line')} {'was' if figures.rejected == 1 else 'were'} rejected"
