"""Phone numbers of a list: one way to write each, and which of them are called at all. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tenios_async import mask_number
from tenios_async.batch.checks import is_ledger

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_E164 = re.compile(r"\+[1-9][0-9]{1,14}")  # ITU-T E.164, 6.2.1
_WRITTEN = re.compile(r"[0-9+()/.\-\s\u00a0\u2010-\u2015]+")
_PREFIX = re.compile(r"\+[1-9][0-9]{0,6}")
_REGION = re.compile(r"[A-Za-z]{2}")
_LEAST_DIGITS = 8
"""With the country code. The shortest subscribers' numbers in use have as many; emergency and service codes fewer."""

_DEAR = (
    # International premium rate and shared cost: ITU-T E.169.2 and E.169.3.
    "+979", "+808",
    # Germany, Bundesnetzagentur's plan of numbers: premium (0900, once 0190), mass traffic (0137, 0138), shared cost
    # (0180), inquiries and services for everybody (0118, 0116, 0115), innovative (012).
    "+49900", "+49190", "+49137", "+49138", "+49180", "+4911", "+4912",
    # Austria, KEM-V: 09xx is premium, 081x and 082x shared cost, 0118 inquiries.
    "+439", "+4381", "+4382", "+43118",
    # Switzerland and Liechtenstein, BAKOM: 090x is premium, 084x shared cost, 18xx inquiries.
    "+4190", "+4184", "+4118", "+42390",
    # United Kingdom, Ofcom: 09 premium, 084 and 087 shared cost, 070 personal numbers. North America: 900 premium.
    "+449", "+4484", "+4487", "+4470", "+1900",
)  # fmt: skip
"""Numbers that cost whoever calls them, for when phonenumberslite is not there to know."""

OPTED_OUT = "on the opt-out list"
"""Why somebody is not called, also where a file that this library wrote says so."""


class Numbers:
    """How the numbers of a list are written, and which may be called.

    Args:
        region: two letters (`DE`): numbers may be written as people there do; they must belong to that country, unless
            `prefixes` say otherwise. Needs the extra `[phone]`.
        prefixes: beginnings of numbers that may be called, such as `+49`.

    Raises `ValueError` where neither is given or one cannot be read, and for a region without the extra.
    """

    def __init__(self, region: str | None = None, prefixes: Collection[str] = ()) -> None:
        for prefix in prefixes:
            if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
                raise ValueError(f"a prefix is '+' and a country code, such as +49, and not {prefix!r}")
        if region is None and not prefixes:
            raise ValueError("say which countries may be called: --region DE, or --prefix +49")
        self._phonenumbers: Any = None
        self._region: str | None = None
        self._is_of_region = False
        self._prefixes = tuple(prefixes)
        if region is not None:
            self._phonenumbers = library = _phonenumbers()
            code = library.country_code_for_region(region.upper()) if _REGION.fullmatch(region) else 0
            if not code:
                raise ValueError(f"there is no region {region!r}; a region has two letters, such as DE")
            self._region = region.upper()
            self._prefixes = self._prefixes or (f"+{code}",)
            self._is_of_region = not prefixes

    def normalise(self, text: str) -> str:
        """The number in E.164 form. Raises `ValueError` for one that cannot be read or is not to be called."""
        number = self.read(text)
        if not number.startswith(self._prefixes) or not self._may_be_of_region(number):
            raise ValueError(f"{mask_number(number)} is in a country that this campaign does not call")
        if self._is_dear(number):
            raise ValueError(f"{mask_number(number)} is a premium-rate, shared-cost or service number")
        return number

    def read(self, text: str) -> str:
        """The number in E.164 form, whether it may be called or not. Raises `ValueError`."""
        text = text.strip()
        if self._region is None:
            if not _E164.fullmatch(text) or len(text) <= _LEAST_DIGITS:
                raise ValueError(
                    f"{mask_number(text[:20])!r} is not a number in E.164 form, such as +491234567890"
                    " (other ways of writing need --region)"
                )
            return text
        if not _WRITTEN.fullmatch(text) or not text.isascii():
            text = _as_ascii(text)
        return self._read_by_region(text)

    def _read_by_region(self, text: str) -> str:
        library = self._phonenumbers
        try:
            number = library.parse(text, self._region)
        except library.NumberParseException:
            raise ValueError(f"{mask_number(text[:20])!r} is not a phone number") from None
        if not library.is_valid_number(number):
            raise ValueError(f"{mask_number(text[:20])!r} is not a number that somebody can have")
        return str(library.format_number(number, library.PhoneNumberFormat.E164))

    def _may_be_of_region(self, number: str) -> bool:
        """Of countries that share a code (+1 is Jamaica too, at a price) only the one that was named is called."""
        if not self._is_of_region:
            return True
        found = self._phonenumbers.region_code_for_number(self._phonenumbers.parse(number))
        return bool(found == self._region)

    def _is_dear(self, number: str) -> bool:
        if number.startswith(_DEAR):
            return True
        if self._phonenumbers is None:
            return False
        types = self._phonenumbers.PhoneNumberType
        found = self._phonenumbers.number_type(self._phonenumbers.parse(number))
        return found in (types.PREMIUM_RATE, types.SHARED_COST, types.UAN, types.VOICEMAIL)


def read_opt_outs(path: Path, numbers: Numbers) -> set[str]:
    """The numbers in a file that must not be called: one a line, or in the first column of a CSV file; # comments.

    Raises `ValueError`, with its line, for one that cannot be read: it must not be called by mistake.
    """
    if is_ledger(path):
        raise ValueError(f"{path} is a ledger; give the list of numbers that are not called")
    found: set[str] = set()
    with path.open("rb") as file:
        for line, raw in enumerate(file, 1):
            try:
                text = raw.decode("utf-8-sig" if line == 1 else "utf-8").partition("#")[0]
                cell = re.split(r"[,;\t]", text, maxsplit=1)[0].strip().strip('"').removeprefix("'")
                if cell and not (line == 1 and not any(c.isdigit() for c in cell)):  # a header
                    found.add(numbers.read(cell))
            except ValueError as problem:
                reason = "it is not UTF-8" if isinstance(problem, UnicodeDecodeError) else problem
                raise ValueError(f"{path}, line {line}: {reason}. Nobody is called until it can be read") from None
    return found


def _as_ascii(text: str) -> str:
    """With the dashes and spaces that word processors make; anything else that is no digit is no number."""
    plain = re.sub(r"[\u2010-\u2015]", "-", text).replace("\u00a0", " ")
    if not _WRITTEN.fullmatch(plain) or not plain.isascii():
        raise ValueError(f"{mask_number(text[:20])!r} is not a phone number: it has letters or signs in it")
    return plain


def _phonenumbers() -> Any:
    try:
        import phonenumbers  # noqa: PLC0415  # 30 ms, and an extra
    except ImportError:
        raise ValueError(
            "--region needs phonenumberslite: pip install 'tenios_async[phone]'"
            " (or name countries by --prefix, and write numbers as +491234567890)"
        ) from None
    return phonenumbers
