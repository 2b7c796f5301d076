"""What a campaign may be told by mistake, and is told before anything is written or sent. Pure."""

from __future__ import annotations

import math


def check_concurrency(concurrency: object) -> None:
    """Raises `ValueError` where no call may be under way, or half of one."""
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise ValueError("concurrency must be a whole number of 1 or more")


def check_rate(rate: object) -> None:
    """Raises `ValueError` for what is no pace."""
    if not _number(rate) > 0:
        raise ValueError("rate must be a number of calls a second above 0")


def check_limit(limit: object) -> None:
    """Raises `ValueError` for what is no number of calls; infinite is one."""
    if not _is_count(limit):
        raise ValueError("limit must be a whole number of calls of 0 or more, or math.inf")


def check_max_bad(max_bad: object) -> None:
    """Raises `ValueError` for what is no number of lines; infinite is one."""
    if not _is_count(max_bad):
        raise ValueError("max_bad must be a whole number of lines of 0 or more, or math.inf")


def check_max_unknown(share: object) -> None:
    """Raises `ValueError` for what is no share."""
    if not 0 <= _number(share) <= 1:
        raise ValueError("max_unknown must be a share from 0 to 1")


def _is_count(value: object) -> bool:
    number = _number(value)
    return number >= 0 and (math.isinf(number) or number == int(number))


def _number(value: object) -> float:
    """NaN for what is none."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
