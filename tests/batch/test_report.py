"""The report: well formed, escaped, readable by everybody, and it says what the figures say."""

import base64
import hashlib
import itertools
import math
import re
from datetime import UTC, datetime, timedelta, timezone
from html.parser import HTMLParser
from importlib import resources
from xml.etree import ElementTree as ET

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenios_async.batch.figures import Doubt, Figures, Funnel, Histogram, Outcome, Rows, TimeAxis, Timeline
from tenios_async.batch.markup import Markup, Part, bars, column, element, escape, printable, scale, shares
from tenios_async.batch.report import REFUSALS_SHOWN, html, table
from tenios_async.batch.words import lasting, plural, share, zone

CET = timezone(timedelta(hours=1))
NINE = datetime(2026, 11, 23, 9, tzinfo=CET)
GROUPS = [
    ("QUEUED", None, 1100),
    ("SENDING", None, 3),
    ("PLACED", "CALLING_B", 17),
    ("REFUSED", None, 45),
    ("UNKNOWN", None, 6),
    ("FINISHED", "DISCONNECTED", 2048),
    ("FINISHED", "CALL_A_FAILED", 77),
    ("FINISHED", "CALL_B_FAILED", 512),
    ("FINISHED", None, 9),
]
AXIS = TimeAxis.over(NINE, NINE + timedelta(hours=6))
EMPTY = Figures(
    name="Winter",
    ledger="winter campaign.db",
    source="contacts.csv",
    callback_config_id=None,
    created_at=NINE.astimezone(UTC),
    first_placed_at=None,
    generated_at=NINE,
)
USUAL = attrs.evolve(
    EMPTY,
    callback_config_id="c1f2-9a",
    first_placed_at=NINE,
    generated_at=NINE + timedelta(hours=6, minutes=1),
    rows=Rows.of(GROUPS),
    rejected=31,
    funnel=Funnel.of(GROUPS),
    time_in_state={"CALLING_A": Histogram.of([6.0] * 400 + [30.0] * 77), "CONNECTED": Histogram.of([190.0] * 2048)},
    timeline=Timeline.of(AXIS, [(index % 7, *group) for index, group in enumerate(GROUPS)]),
    refusals={"INVALID_NUMBER": 33, "+491234567890 is barred": 12},
    doubts=tuple(Doubt(10 * n, f"+49123456789{n}", NINE + timedelta(minutes=n), "no answer") for n in range(1, 4)),
    polls=46_000,
)
ALL_UNKNOWN = attrs.evolve(
    EMPTY, rows=Rows(unknown=500), doubts=(Doubt(None, "+491234567890", None, "the program ended"),)
)
ONE_GROUP = [("FINISHED", "DISCONNECTED", 1)]
ONE = attrs.evolve(
    EMPTY,
    rows=Rows.of(ONE_GROUP),
    funnel=Funnel.of(ONE_GROUP),
    time_in_state={"CONNECTED": Histogram.of([190.0])},
    timeline=Timeline.of(TimeAxis.over(NINE, NINE), [(0, *ONE_GROUP[0])]),
    polls=17,
)
MILLIONS = attrs.evolve(
    USUAL,
    rows=Rows.of([(state, status, count * 1000) for state, status, count in GROUPS] + [("SENDING", None, 1)]),
    funnel=Funnel.of([(state, status, count * 1000) for state, status, count in GROUPS]),
)
SAMPLES = {
    "empty": EMPTY,
    "not begun": attrs.evolve(EMPTY, rows=Rows(queued=12)),
    "one": ONE,
    "usual": USUAL,
    "millions": MILLIONS,
    "all unknown": ALL_UNKNOWN,
    "nothing has ended": attrs.evolve(ONE, timeline=Timeline.of(AXIS, [])),
}
every_sample = pytest.mark.parametrize("figures", SAMPLES.values(), ids=SAMPLES)
HOSTILE = "<script>alert(1)</script>\"'&]]>-->\x00\x1b\ud800\u202e"


def parsed(document: str) -> ET.Element:
    return ET.fromstring(document.removeprefix("<!DOCTYPE html>\n"))


def words(node: ET.Element) -> str:
    return " ".join("".join(node.itertext()).replace("\u00a0", " ").split())


def cells(root: ET.Element) -> list[list[list[str]]]:
    """All tables, row by row."""
    return [[[words(cell) for cell in row] for row in part.iter("tr")] for part in root.iter("table")]


class Balanced(HTMLParser):
    """Complains about tags that do not match, and collects what is asked to be loaded or run."""

    def __init__(self):
        super().__init__()
        self.open, self.suspicious = [], []

    def handle_starttag(self, tag, attributes):
        if tag != "meta":
            self.open.append(tag)
        asked = [name for name, _ in attributes if name in ("src", "href", "style", "action") or name.startswith("on")]
        is_active = tag in ("script", "link", "img", "iframe", "object", "base", "a", "form")
        self.suspicious += [(tag, asked)] * (is_active or bool(asked))

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def hostile(figures: Figures) -> Figures:
    return attrs.evolve(
        figures,
        name=HOSTILE,
        ledger=HOSTILE,
        source=HOSTILE,
        callback_config_id=HOSTILE,
        refusals={HOSTILE: 1},
        doubts=(Doubt(1, HOSTILE, NINE, HOSTILE),),
    )


@every_sample
def test_it_is_well_formed_for_both_kinds_of_parsers(figures):
    parsed(html(figures))
    parser = Balanced()
    parser.feed(html(figures))
    parser.close()
    assert parser.open == []


@every_sample
@pytest.mark.parametrize("change", [lambda figures: figures, hostile], ids=["harmless", "hostile"])
def test_it_loads_nothing_and_runs_nothing(figures, change):
    document = html(change(figures))
    parser = Balanced()
    parser.feed(document)
    assert parser.suspicious == []
    assert not re.search(r"https?:|url\(|@import|javascript:", document)


def test_hostile_texts_are_shown_and_do_nothing_else():
    document = html(hostile(USUAL))
    document.encode()  # a lone surrogate could not be written
    shown = "<script>alert(1)</script>\"'&]]>-->????"
    root = parsed(document)
    assert "<script" not in document
    assert words(root.find(".//h1")) == shown
    assert words(root.find(".//title")).startswith(shown)
    assert shown in cells(root)[1][1][2]


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_survives_as_markup(text):
    node = ET.fromstring(element("p", text, title=text))
    assert "".join(node.itertext()) == printable(text)
    assert len(printable(text)) == len(text)


def test_markup_is_not_escaped_twice():
    assert escape(escape("a < b")) == escape("a < b") == "a &lt; b"
    assert element("p", element("b", "<"), Markup("<br />")) == "<p><b>&lt;</b><br /></p>"


@every_sample
def test_its_policy_allows_its_own_style_sheet_and_nothing_else(figures):
    root = parsed(html(figures))
    (style,) = root.iter("style")
    (policy,) = [meta.get("content") for meta in root.iter("meta") if meta.get("http-equiv")]
    digest = base64.b64encode(hashlib.sha256(style.text.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


@every_sample
def test_every_picture_is_described_and_every_id_is_its_own(figures):
    root = parsed(html(figures))
    ids = [node.get("id") for node in root.iter() if node.get("id")]
    assert len(ids) == len(set(ids))
    pictures = [svg for svg in root.iter("svg") if svg.get("aria-hidden") != "true"]
    assert pictures
    for svg in pictures:
        title, description = svg.find("title"), svg.find("desc")
        assert svg.get("role") == "img"
        assert svg.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
        assert title.text
        assert description.text


@every_sample
def test_its_headings_are_an_outline(figures):
    root = parsed(html(figures))
    levels = [int(node.tag[1]) for node in root.iter() if re.fullmatch("h[1-6]", node.tag)]
    assert root.get("lang") == "en"
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


@every_sample
def test_the_first_table_is_the_whole_campaign(figures):
    (_, *rows, total), *_ = cells(parsed(html(figures)))
    counts = [int(row[1].replace(",", "")) for row in rows]
    assert counts == list(figures.outcomes.values())
    assert total[1] == f"{sum(counts):,}"


def test_it_holds_the_numbers_it_was_given():
    root = parsed(html(USUAL))
    standing, doubts, states, over_time, refusals, times = cells(root)
    assert standing[1][1:] == ["2,048", "54 %"]
    assert doubts[1:] == [
        ["10", "+49*******891", "2026-11-23 09:01 no answer"],
        ["20", "+49*******892", "2026-11-23 09:02 no answer"],
        ["30", "+49*******893", "2026-11-23 09:03 no answer"],
    ]
    assert {name: count for name, count, _ in states[1:]} == {
        "placed": "2,663",
        "at least REQUESTED": "2,654",
        "at least ACCEPTED": "2,654",
        "at least CALLING_A": "2,654",
        "at least CALLING_B": "2,577",
        "at least CONNECTED": "2,048",
        "ended DISCONNECTED": "2,048",
        "ended CALL_B_FAILED": "512",
        "ended CALL_A_FAILED": "77",
        "ended unseen": "9",
        "not ended yet": "17",
    }
    summed = [
        sum(int(cell.replace(",", "")) for cell in column) for column in list(zip(*over_time[1:], strict=True))[1:]
    ]
    assert over_time[0][1:] == [
        "Reached",
        "Customer not reached",
        "Agent not reached",
        "Refused",
        "Ended unseen",
        "In doubt",
    ]
    assert summed == [2048, 512, 77, 45, 9, 6]
    assert refusals[1:] == [["INVALID_NUMBER", "33", "73 %"], ["+49*******890 is barred", "12", "27 %"]]
    assert times == [
        ["Lasting", "CALLING_A", "CONNECTED"],
        ["5.7 s to 8 s", "400", "0"],
        ["23 s to 32 s", "77", "0"],
        ["3 min 1 s to 4 min 16 s", "0", "2,048"],
    ]
    assert "54\u00a0%" in html(USUAL)  # a number and its unit stay on one line
    said = words(root)
    assert "46,000 status polls, 17.3 for each of 2,663 callbacks placed" in said
    assert "3,817 from contacts.csv; 31 lines were rejected" in said
    assert "as of 2026-11-23 15:01 UTC+01:00" in said
    assert "c1f2-9a" in said


def test_the_first_line_says_how_it_stands():
    def lede(figures):
        return words(parsed(html(figures)).find(".//header/p[@class='lede']"))

    assert lede(EMPTY) == "There are no contacts in this campaign."
    assert lede(SAMPLES["not begun"]) == "Nobody has been called yet. 12 contacts are still to come."
    assert lede(ONE) == "1 of 1 contact was reached. Nobody is left to call."
    assert (
        lede(ALL_UNKNOWN)
        == "0 of 500 contacts were reached. 500 contacts are in doubt, for you to decide. Nobody is left to call."
    )
    assert (
        lede(USUAL)
        == "2,048 of 3,817 contacts were reached. 6 contacts are in doubt, for you to decide. 1,120 contacts are still to come."
    )
    assert "1 contact is in doubt" in lede(attrs.evolve(EMPTY, rows=Rows(unknown=1)))


def test_the_four_tiles_are_all_contacts():
    numbers = [int(words(node).replace(",", "")) for node in parsed(html(USUAL)).findall(".//dd[@class='number']")]
    assert numbers == [2048, 643, 6, 1120]
    assert sum(numbers) == USUAL.rows.total


def test_who_has_doubts_is_told_what_to_do():
    said = words(parsed(html(USUAL)))
    assert "The first 3 of 6." in said
    for way in ("--called ID", "--called", "--not-called"):
        assert f"tenios batch resolve 'winter campaign.db' --line 10 {way}" in said
    assert "--line LINE" in words(parsed(html(ALL_UNKNOWN)))
    assert "resolve" not in words(parsed(html(ONE)))
    assert len(cells(parsed(html(attrs.evolve(ALL_UNKNOWN, doubts=()))))) == 1


@every_sample
def test_no_number_stands_in_full(figures):
    assert not re.search(r"\+[0-9]{5}", html(figures))
    assert not re.search(r"\+[0-9]{5}", str(table(figures)))


def test_what_there_is_nothing_to_say_about_is_left_out():
    def titles(figures):
        return [words(node) for node in parsed(html(figures)).iter("h2")]

    assert titles(EMPTY) == ["Where everyone stands", "About this campaign"]
    assert "Over time" not in titles(SAMPLES["nothing has ended"])
    assert titles(USUAL) == [
        *("Where everyone stands", "In doubt: 6", "How far the calls came", "Over time", "Refused: 45"),
        *("Time in each state", "Polls", "About this campaign"),
    ]


def test_the_size_does_not_grow_with_the_campaign():
    assert len(html(MILLIONS)) < 1.05 * len(html(USUAL))


def test_one_in_a_million_can_be_seen():
    outcomes = attrs.evolve(EMPTY, rows=Rows(queued=999_999, unknown=1))
    (drawn,) = [node for node in parsed(html(outcomes)).iter("svg") if node.get("class") == "standing"]
    widths = [float(rect.get("width").rstrip("%")) for rect in drawn.iter("rect") if "part" in rect.get("class")]
    assert min(widths) > 0.5
    assert sum(widths) == pytest.approx(100, abs=0.01)


@given(st.lists(st.integers(0, 10**9), max_size=9))
def test_shares_fill_the_width(counts):
    drawn = shares(counts)
    assert sum(drawn) == pytest.approx(100 if any(counts) else 0)
    assert all((width > 0.5) == (count > 0) for width, count in zip(drawn, counts, strict=True))


@given(st.integers(0, 10**9))
def test_a_scale_reaches_the_largest_and_not_far_beyond(largest):
    lines = scale(largest)
    step = lines[1] - lines[0]
    assert lines[0] == 0
    assert lines[-1] >= max(largest, 1)
    assert lines[-1] - step < max(largest, 1)
    assert len(lines) <= 7
    assert str(step).rstrip("0") in ("1", "2", "5")


def test_a_column_stands_on_its_line():
    shapes = [
        ET.fromstring(shape)
        for shape in column(0, 5, 100, 2.0, [Part(10, "a", "A"), Part(0, "b", "B"), Part(20, "c", "C")])
    ]
    assert [(rect.get("y"), rect.get("height"), rect.get("class")) for rect in shapes] == [
        ("80.0", "20.0", "a part"),
        ("40.0", "40.0", "c part"),
    ]


def test_bars_are_parts_of_the_whole():
    shapes = [ET.fromstring(shape) for shape in bars([Part(5, "a", "A"), Part(0, "b", "B")], 20, ["", ""])]
    assert [s.get("width") for s in shapes if s.tag == "rect" and s.get("class") != "track"] == ["25.000%", "0.000%"]


def test_reasons_beyond_the_first_are_summed_up():
    refusals = {f"reason {n:02}": 100 - n for n in range(REFUSALS_SHOWN + 3)}
    figures = attrs.evolve(EMPTY, rows=Rows(refused=sum(refusals.values())), refusals=refusals)
    rows = cells(parsed(html(figures)))[1][1:]
    assert len(rows) == REFUSALS_SHOWN + 1
    assert rows[0][0].startswith("reason 00")
    assert rows[-1][0].startswith("3 other reasons")
    assert rows[-1][1] == str(88 + 87 + 86)
    assert ("Refused: 3 other reasons", "261") in table(figures)


@pytest.mark.parametrize(
    ("hours", "first", "count"),
    [
        (0.001, "09:00:00", 6),
        (118 / 3600, "09:00:00", 4),
        (6, "09:00", 7),
        (50, "11-23 12:00", 4),
        (24 * 40, "2026-11-23", 6),
    ],
)
def test_the_times_below_the_timeline_are_few_and_round(hours, first, count):
    timeline = Timeline.of(TimeAxis.over(NINE, NINE + timedelta(hours=hours)), [(0, *ONE_GROUP[0])])
    root = parsed(html(attrs.evolve(ONE, timeline=timeline)))
    (drawn,) = [node for node in root.iter("svg") if node.get("class") == "time"]
    labels = [node.text for node in drawn.iter("text") if node.get("x").endswith("%")]
    assert labels[0] == first
    assert len(labels) == count


def test_every_column_of_the_timeline_is_explained():
    root = parsed(html(USUAL))
    legend = [(swatch.find("rect").get("class"), words(item)) for item in root.find(".//ul") for swatch in item]
    (drawn,) = [node for node in root.iter("svg") if node.get("class") == "time"]
    columns = {(rect.get("class").split()[0], rect.find("title").text.split(":")[0]) for rect in drawn.iter("rect")}
    assert set(legend) == columns
    assert len(legend) == 6


def panel(durations) -> tuple[ET.Element, str]:
    figures = attrs.evolve(EMPTY, time_in_state={"CONNECTED": Histogram.of(durations)})
    (drawn,) = [node for node in parsed(html(figures)).iter("svg") if node.get("class") == "panel"]
    return drawn, drawn.find("desc").text.replace("\u00a0", " ")


@pytest.mark.parametrize("seconds", [0.05, 0.13, 1, 190, 8000, 10**6])
def test_the_median_is_drawn_where_its_bar_is(seconds):
    drawn, _ = panel([seconds] * 3)
    (bar,) = drawn.iter("rect")
    (median,) = [node for node in drawn.iter("line") if node.get("class") == "median"]
    left, width, x = (float(text.rstrip("%")) for text in (bar.get("x"), bar.get("width"), median.get("x1")))
    assert left - 0.001 <= x <= left + width + 0.001


def test_the_bars_of_a_panel_are_as_high_as_they_count():
    drawn, said = panel([1.0] * 40 + [10.0] * 20 + [100.0])
    heights = [float(rect.get("height")) for rect in drawn.iter("rect")]
    assert heights[1] / heights[0] == pytest.approx(0.5)
    assert heights[2] >= 1
    assert said == "median about 1.3 s, mean 5.6 s, 61 calls"
    assert panel([10**6])[1].startswith("median over 2 h 16 min")


def test_the_terminal_says_the_same():
    rows = table(USUAL)
    assert rows[:3] == [
        ("Contacts", "3,817 from contacts.csv; 31 lines were rejected"),
        ("Reached", "2,048 (54\u00a0%): Customer and agent were connected."),
        ("Customer not reached", "512 (13\u00a0%): The agent answered, the customer did not."),
    ]
    assert ("To decide", "tenios batch resolve 'winter campaign.db'") in rows
    assert ("Refused: INVALID_NUMBER", "33") in rows
    assert rows[-1] == ("Polls", "46,000 status polls, 17.3 for each of 2,663 callbacks placed")
    assert [label for label, _ in table(EMPTY)] == ["Contacts", "Reached", "Polls"]


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [
        (0, 0, "0 %"),
        (0, 9, "0 %"),
        (9, 9, "100 %"),
        (1, 1000, "< 1 %"),
        (999, 1000, "> 99 %"),
        (1, 100, "1 %"),
        (99, 100, "99 %"),
        (2, 3, "67 %"),
    ],
)
def test_shares_in_words(part, whole, shown):
    assert share(part, whole).replace("\u00a0", " ") == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (0.04, "0.0 s"),
        (0.43, "0.4 s"),
        (1, "1 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3605, "1 h"),
        (4321, "1 h 12 min"),
        (90_000, "1 d 1 h"),
        (604_800, "7 d"),
    ],
)
def test_durations_in_words(seconds, shown):
    assert lasting(seconds).replace("\u00a0", " ") == shown


def test_counts_and_zones_in_words():
    assert (plural(1, "person", "people"), plural(1234, "person", "people"), plural(0, "call")) == (
        "1 person",
        "1,234 people",
        "0 calls",
    )
    assert (zone(NINE), zone(NINE.astimezone(UTC))) == ("UTC+01:00", "UTC")
    assert zone(NINE.astimezone(timezone(-timedelta(hours=3, minutes=30)))) == "UTC-03:30"


# Colours. WCAG 2.2, 1.4.3 and 1.4.11; colour blindness as in Machado, Oliveira and Fernandes 2009, severity 1;
# distances in OKLab, where 0.02 is about the least that is noticed side by side.

BLINDNESS = {
    "none": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


def palettes() -> dict[str, dict[str, tuple[float, ...]]]:
    """The colours of both themes, as linear light."""
    style = resources.files("tenios_async.batch").joinpath("report.css").read_text(encoding="utf-8")
    light, dark = (block for block in re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL))
    found = {}
    for theme, block in (("light", light), ("dark", dark)):
        colours = re.findall(r"--([a-z-]+): #([0-9a-f]{6});", block)
        found[theme] = {
            name: tuple(linear(int(code[i : i + 2], 16) / 255) for i in (0, 2, 4)) for name, code in colours
        }
    return found


def linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def contrast(one, other) -> float:
    low, high = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (one, other))
    return (high + 0.05) / (low + 0.05)


def seen(colour, kind) -> tuple[float, ...]:
    """The colour in OKLab, as somebody sees it."""
    r, g, b = (min(max(sum(x * y for x, y in zip(row, colour, strict=True)), 0), 1) for row in BLINDNESS[kind])
    long = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    middle = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    short = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    )


def looks() -> list[str]:
    return [outcome.lower().replace("_", "-") for outcome in Outcome if outcome is not Outcome.QUEUED]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_pictures_have_contrast(theme):
    palette = palettes()[theme]
    for name in ("ink", "muted", "alarm"):
        assert contrast(palette[name], palette["page"]) >= 4.5, name
    for name in [*looks(), "edge"]:
        assert contrast(palette[name], palette["page"]) >= 3, name


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("kind", BLINDNESS)
def test_everybody_can_tell_the_outcomes_apart(theme, kind):
    palette = palettes()[theme]
    for one, other in itertools.combinations(looks(), 2):
        assert math.dist(seen(palette[one], kind), seen(palette[other], kind)) > 0.09, (one, other)


def test_every_look_is_in_the_style_sheet():
    root = parsed(html(USUAL))
    (style,) = root.iter("style")
    used = {name for node in root.iter("rect") for name in node.get("class").split()}
    assert used >= {*looks(), "queued"}
    assert [name for name in used if f".{name} " not in style.text] == []
