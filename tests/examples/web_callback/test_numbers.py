"""What people type, and what they are told about it."""

import pytest

from web_callback.numbers import Numbers


@pytest.mark.parametrize(
    ("typed", "number"),
    [
        ("0221 123456", "+49221123456"),
        ("0221/123456", "+49221123456"),
        ("(0221) 12 34-56", "+49221123456"),
        ("+49 221 123456", "+49221123456"),
        ("+49 (0) 221 123456", "+49221123456"),
        ("0049221123456", "+49221123456"),
        ("  0171-1234567\t", "+491711234567"),
        ("٠٢٢١ ١٢٣٤٥٦", "+49221123456"),
    ],
)
def test_national_and_international_ways_of_writing(typed, number):
    assert Numbers(["DE"]).read(typed) == number


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("", "enter your phone number"),
        ("   ", "enter your phone number"),
        ("hello", "not a phone number"),
        ("0221 CALL-ME", "not a phone number"),
        ("<script>", "not a phone number"),
        ("+", "not a phone number"),
        ("0221 123456 ext 9", "not a phone number"),
        ("0221 123456;ext=9", "not a phone number"),
        ("0221123456" * 5, "not a phone number"),
        ("12", "no such phone number"),
        ("+49 1", "not a phone number"),
        ("0221 1234567890123", "no such phone number"),
        ("110", "no such phone number"),
        ("+43 1 5811670", "begin with +49"),
        ("+1 201 555 0123", "begin with +49"),
        ("0900 1234567", "of this kind"),
        ("0180 5 123456", "of this kind"),
        ("0800 1234567", "of this kind"),
    ],
)
def test_what_is_not_called_is_said_clearly(typed, says):
    with pytest.raises(ValueError, match=says.replace("+", r"\+")) as refused:
        Numbers(["DE"]).read(typed)
    assert len(typed) < 3 or typed.strip() not in str(refused.value) or not typed.strip()


def test_several_countries():
    numbers = Numbers(["AT", "DE", "CH"])
    assert numbers.read("01 5811670") == "+4315811670"
    assert numbers.read("+49 221 123456") == "+49221123456"
    with pytest.raises(ValueError, match=r"\+43 or \+49 or \+41"):
        numbers.read("+33 1 42 68 53 00")


def test_a_country_with_the_same_code_is_another_country():
    with pytest.raises(ValueError, match=r"begin with \+1"):
        Numbers(["US"]).read("+1 876 523 4567")


@pytest.mark.parametrize("regions", [[], ["XX"], ["de"], ["DE", ""]])
def test_regions_that_are_none(regions):
    with pytest.raises(ValueError, match="two letters"):
        Numbers(regions)


def test_the_examples_are_numbers_that_are_called():
    numbers = Numbers(["DE"])
    assert len({numbers.read(example) for example in numbers.examples}) == 1
