"""The number somebody typed, as the API wants it, or a sentence that says what is wrong with it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import phonenumbers
from phonenumbers import PhoneNumberFormat, PhoneNumberType

_CALLED = {
    PhoneNumberType.FIXED_LINE,
    PhoneNumberType.MOBILE,
    PhoneNumberType.FIXED_LINE_OR_MOBILE,
    PhoneNumberType.VOIP,
}
"""Not: premium rate, shared cost, toll free, voicemail: what costs whoever calls it, or is nobody's telephone."""
_LONGEST = 40


class Numbers:
    """Which numbers are called, and how people write them.

    Args:
        regions: countries, by two letters (ISO 3166). In the first, numbers may be written without a country code.
    """

    def __init__(self, regions: Sequence[str]) -> None:
        is_known = bool(regions) and set(regions) <= set(phonenumbers.SUPPORTED_REGIONS)
        sample = phonenumbers.example_number_for_type(regions[0], PhoneNumberType.FIXED_LINE) if is_known else None
        if sample is None:
            raise ValueError(f"regions must be countries by their two letters, such as DE, and not {list(regions)}")
        self._regions = tuple(regions)
        self.examples = tuple(
            phonenumbers.format_number(sample, form)
            for form in (PhoneNumberFormat.NATIONAL, PhoneNumberFormat.INTERNATIONAL)
        )
        """The same number, written in both ways."""

    def read(self, text: str) -> str:
        """The number in E.164 form. Raises `ValueError` with a sentence for the page."""
        if not text.strip():
            raise ValueError("Please enter your phone number.")
        number = None
        if len(text) <= _LONGEST and not any(char.isalpha() for char in text):
            with contextlib.suppress(phonenumbers.NumberParseException):
                number = phonenumbers.parse(text, self._regions[0])
        if number is None or number.extension:
            raise ValueError(f"This is not a phone number. Write it like {' or '.join(self.examples)}.")
        if not phonenumbers.is_valid_number(number):
            raise ValueError("There is no such phone number. Please check the digits.")
        if phonenumbers.region_code_for_number(number) not in self._regions:
            codes = dict.fromkeys(f"+{phonenumbers.country_code_for_region(region)}" for region in self._regions)
            raise ValueError(f"We only call numbers that begin with {' or '.join(codes)}.")
        if phonenumbers.number_type(number) not in _CALLED:
            raise ValueError("We do not call numbers of this kind. Please enter a landline or mobile number.")
        return phonenumbers.format_number(number, PhoneNumberFormat.E164)
