"""When a phone may begin to ring."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenios_async.batch import Hours

BERLIN = ZoneInfo("Europe/Berlin")


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("hours", "moment", "is_open"),
    [
        ("9-18", "2026-11-23 09:00", True), ("9-18", "2026-11-23 08:59:59", False), ("9-18", "2026-11-23 17:59:59", True),
        ("9-18", "2026-11-23 18:00", False), ("9:30-12,13-18", "2026-11-23 12:30", False), ("9:30-12, 13-18", "2026-11-23 13:00", True),
        ("Fri-Mon 9-18", "2026-11-30 11:00", True), ("Fri-Mon 9-18", "2026-12-01 11:00", False),
        ("9-9:59", "2026-11-23 09:58", True), ("9-9:59", "2026-11-23 09:59", False),
        ("9:30-12", "2026-11-23 09:29", False), ("9:30-12", "2026-11-23 09:30", True), ("9-9:30", "2026-11-23 09:29", True),
        ("22-6", "2026-11-23 23:00", True), ("22-6", "2026-11-23 05:59", True), ("22-6", "2026-11-23 12:00", False),
        ("Mon-Fri 9-18; Sat 10-14", "2026-11-28 11:00", True), ("Mon-Fri 9-18; Sat 10-14", "2026-11-29 11:00", False),
        ("Mon,Wed 9-18", "2026-11-24 11:00", False), ("Fri-Mon 9-18", "2026-11-29 11:00", True), ("Fri 22-6", "2026-11-28 05:00", True),
        ("Fri 22-6", "2026-11-27 05:00", False), ("0-24", "2026-11-23 00:00", True), ("sun 20-2", "2026-11-23 01:00", True),
    ],
)  # fmt: skip
def test_open(hours, moment, is_open):
    assert Hours.parse(hours, tz="Europe/Berlin").is_open(at(moment)) is is_open


@pytest.mark.parametrize(
    "text",
    [
        "",
        "9",
        "9-9",
        "24-5",
        "25-26",
        "9:60-10",
        "9:60-12",
        "24:01-25",
        "9-18;",
        "Mo-Fr 9-18",
        "Xyz 9-18",
        "Xyz-Mon 9-18",
        "Mon-Xyz 9-18",
        "9-18 Mon",
        "nine-ten",
        "9-18-20",
    ],
)
def test_what_are_no_hours(text):
    with pytest.raises(ValueError, match=r"hours|time|day|beginning"):
        Hours.parse(text, tz="Europe/Berlin")


@pytest.mark.parametrize(("text", "time"), [("9:60-12", "9:60"), ("25-26", "25:00")])
def test_a_time_that_there_is_not_is_named(text, time):
    with pytest.raises(ValueError, match=f"there is no time {time}"):
        Hours.parse(text, tz="Europe/Berlin")


@pytest.mark.parametrize("tz", ["Europe/Colonia", "Europe", "", "../etc/passwd", "/etc/localtime"])
def test_no_such_zone(tz):
    with pytest.raises(ValueError, match="time zone"):
        Hours.parse("9-18", tz=tz)


@pytest.mark.parametrize(
    ("hours", "now", "opens"),
    [
        ("9-18", "2026-11-23 10:00:30", "2026-11-23T10:00:30+01:00"),
        ("9-18", "2026-11-23 18:00:01", "2026-11-24T09:00:00+01:00"),
        ("Sat 10-14", "2026-11-28 14:00", "2026-12-05T10:00:00+01:00"),
        ("9-18", "2026-03-28 20:00", "2026-03-29T09:00:00+02:00"),  # the clocks skip an hour that night
        ("2-3", "2026-03-28 12:00", "2026-03-30T02:00:00+02:00"),  # and with it this window
    ],
)
def test_opens_at(hours, now, opens):
    assert Hours.parse(hours, tz="Europe/Berlin").opens_at(at(now)).isoformat() == opens


def test_hours_without_any_are_not_waited_for():
    with pytest.raises(ValueError, match="never open"):
        Hours(frozenset(), BERLIN, "").opens_at(at("2026-03-28 12:00"))


def test_a_window_that_is_skipped_every_year_is_found_a_week_later():
    assert (
        Hours.parse("Sun 2-3", tz="Europe/Berlin").opens_at(at("2026-03-29 00:00")).isoformat()
        == "2026-04-05T02:00:00+02:00"
    )


@given(
    st.integers(0, 23),
    st.integers(1, 24),
    st.datetimes(datetime(2026, 3, 20), datetime(2026, 11, 5)),  # noqa: DTZ001
)
def test_what_opens_is_open_and_was_not_before(first, last, naive):
    if first == last:
        return
    hours = Hours.parse(f"{first}-{last}", tz="Europe/Berlin")
    now = naive.replace(tzinfo=UTC)
    opens = hours.opens_at(now)
    assert hours.is_open(opens)
    assert opens >= now
    if opens > now:
        assert not hours.is_open(opens.astimezone(UTC) - timedelta(seconds=1))


def test_they_are_equal_however_they_are_written():
    assert Hours.parse("9-18", tz="UTC") == Hours.parse("Mon-Sun 9:00-18", tz="UTC") != Hours.parse("9-17", tz="UTC")
