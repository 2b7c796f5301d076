"""Phone numbers of a list: one way to write each, and which are called at all."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenios_async.batch.numbers import Numbers, read_opt_outs

GERMAN = Numbers("DE")


@pytest.mark.parametrize(
    "text",
    ["0221 123456", "+49 221 123456", "0049221123456", "+49 (0)221-123456", "0221/12 34 56", " +49221123456 ", "0221\u2013123456",
     "(0221) 12.34.56", "+49\xa0221\xa0123456"],
)  # fmt: skip
def test_one_person_in_many_ways(text):
    assert GERMAN.normalise(text) == "+49221123456"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("112", "somebody can have"), ("116117", "somebody can have"), ("+491234", "somebody can have"), ("abc", "letters"),
        ("0221 CALLME", "letters"), ("", "letters"), ("0900 1234567", "premium"), ("0180 5123456", "premium"),
        ("0137 1234567", "premium"), ("+41 44 668 18 00", "country"), ("+43 1 58858", "country"), ("\u0660221123456", "letters"),
        ("0221 123456 ext. 7", "letters"), ("+" * 40, "not a phone"),
    ],
)  # fmt: skip
def test_not_called_by_region(text, says):
    with pytest.raises(ValueError, match=says):
        GERMAN.normalise(text)


def test_of_countries_that_share_a_code_only_the_one_that_was_named():
    assert Numbers("US").normalise("(202) 555-0123") == "+12025550123"
    for jamaican in ("+1 876 555 1234", "876-555-1234"):
        with pytest.raises(ValueError, match="country"):
            Numbers("US").normalise(jamaican)
    assert Numbers("US", ["+1"]).normalise("+1 876 555 1234") == "+18765551234"


def test_prefixes_beside_a_region_say_which_countries():
    numbers = Numbers("DE", ["+49", "+41"])
    assert numbers.normalise("+41 44 668 18 00") == "+41446681800"
    assert numbers.normalise("0221 123456") == "+49221123456"
    with pytest.raises(ValueError, match="country"):
        numbers.normalise("+43 1 58858")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0221123456", "E.164"), ("+49 221 123456", "E.164"), ("+4911", "E.164"), ("+043123456", "E.164"), ("", "E.164"),
        ("+49\u0661234567", "E.164"), ("+43123456789", "country"), ("+49900123456", "premium"), ("+49180123456", "premium"),
        ("+491371234567", "premium"), ("+4918", "E.164"), ("+49116117", "service"), ("+4911833000", "service"),
    ],
)  # fmt: skip
def test_not_called_without_a_region(text, says):
    with pytest.raises(ValueError, match=says):
        Numbers(prefixes=["+49"]).normalise(text)


@pytest.mark.parametrize(
    "dear", ["+979123456", "+808123456", "+43900123456", "+41900123456", "+449012345678", "+19005551234"]
)
def test_dear_numbers_elsewhere(dear):
    with pytest.raises(ValueError, match="premium"):
        Numbers(prefixes=[dear[:3]]).normalise(dear)


@pytest.mark.parametrize(
    ("region", "prefixes", "says"),
    [
        (None, [], "--region"), ("XX", [], "no region"), ("Germany", [], "no region"), (None, ["49"], "prefix"),
        (None, ["+"], "prefix"), (None, ["+0"], "prefix"), (None, [49], "prefix"),
    ],
)  # fmt: skip
def test_what_may_be_called_must_be_said(region, prefixes, says):
    with pytest.raises(ValueError, match=says):
        Numbers(region, prefixes)


def test_without_a_region_a_number_has_its_bounds_and_white_space_is_none_of_it():
    assert Numbers(prefixes=["+49"]).normalise(" +49301234 ") == "+49301234"
    with pytest.raises(ValueError, match=r"E\.164"):
        Numbers(prefixes=["+49"]).normalise("+4930123")


def test_what_the_extra_knows_to_be_dear_is_not_called():
    assert Numbers("FR").normalise("01 42 68 53 00") == "+33142685300"
    with pytest.raises(ValueError, match="premium"):
        Numbers("FR").normalise("0892 12 34 56")


def test_without_the_extra_a_region_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "phonenumbers", None)
    with pytest.raises(ValueError, match=r"tenios_async\[phone\]"):
        Numbers("DE")
    assert Numbers(prefixes=["+49"]).normalise("+49221123456") == "+49221123456"


@given(
    st.text(max_size=30) | st.from_regex(r"(\+49|0049|0)[ /]?\(?[1-9][0-9]{1,3}\)?[ /-]?[0-9 ]{4,9}", fullmatch=True)
)
def test_any_text_is_a_number_that_stays_as_it_is_or_a_value_error(text):
    for numbers in (GERMAN, Numbers(prefixes=["+4"])):
        try:
            number = numbers.normalise(text)
        except ValueError:
            continue
        assert numbers.normalise(number) == number


def test_an_opt_out_list(tmp_path):
    path = tmp_path / "opt-out.csv"
    path.write_text("\ufeffnumber;why\n0221 123456;asked\n# a comment\n\n+41446681800 # also abroad\n'+49221123457\n")
    assert read_opt_outs(path, GERMAN) == {"+49221123456", "+41446681800", "+49221123457"}


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_an_opt_out_list_without_a_header(tmp_path, mark):
    path = tmp_path / "opt-out"
    path.write_text(f"{mark}0221 123456\n0221 123457\n")
    assert read_opt_outs(path, GERMAN) == {"+49221123456", "+49221123457"}


@pytest.mark.parametrize(("line", "says"), [("0221 CALLME", "line 2"), ("12", "line 2"), ("\udcff", "UTF-8")])
def test_an_opt_out_that_cannot_be_read_is_not_passed_over(tmp_path, line, says):
    path = tmp_path / "opt-out"
    path.write_bytes(f"+49221123456\n{line}\n".encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=says):
        read_opt_outs(path, GERMAN)
