"""Numbers, times and outcomes as people read them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenios_async import CallbackStatus
from tenios_async.batch.figures import Outcome
from tenios_async.batch.markup import NBSP

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400

LABELS: Mapping[Outcome, str] = {
    Outcome.TALKED: "Reached",
    Outcome.CUSTOMER_NOT_REACHED: "Customer not reached",
    Outcome.AGENT_NOT_REACHED: "Agent not reached",
    Outcome.REFUSED: "Refused",
    Outcome.UNOBSERVED: "Ended unseen",
    Outcome.UNKNOWN: "In doubt",
    Outcome.UNDER_WAY: "Under way",
    Outcome.QUEUED: "Still to call",
}

MEANINGS: Mapping[Outcome, str] = {
    Outcome.TALKED: "Customer and agent were connected.",
    Outcome.CUSTOMER_NOT_REACHED: "The agent answered, the customer did not.",
    Outcome.AGENT_NOT_REACHED: "The customer's phone did not ring.",
    Outcome.REFUSED: "By TENIOS, or on an opt-out list. No phone rang.",
    Outcome.UNOBSERVED: "Called, but nobody saw how it ended.",
    Outcome.UNKNOWN: "May have been called; not called again until you decide.",
    Outcome.UNDER_WAY: "Being placed, or followed to its end.",
    Outcome.QUEUED: "Not called yet.",
}

STAGES: Mapping[str, str] = {
    CallbackStatus.REQUESTED: "Requested",
    CallbackStatus.ACCEPTED: "Accepted by TENIOS",
    CallbackStatus.CALLING_A: "Agent's phone rang",
    CallbackStatus.CALLING_B: "Customer's phone rang",
    CallbackStatus.CONNECTED: "Talking to each other",
}


def number(count: int) -> str:
    """A count with its thousands apart."""
    return f"{count:,}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """A count with what is counted."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def are(count: int, one: str = "") -> str:
    """The same, of which something is said next."""
    return f"{plural(count, one) if one else number(count)} {'is' if count == 1 else 'are'}"


def share(part: int, whole: int) -> str:
    """A part in per cent. Only nothing is 0 %, and only all is 100 %."""
    if not part or not whole:
        return f"0{NBSP}%"
    exact = 100 * part / whole
    if exact < 1:
        return f"<{NBSP}1{NBSP}%"
    if part < whole and 100 * (whole - part) / whole < 1:
        return f">{NBSP}99{NBSP}%"
    return f"{exact:.0f}{NBSP}%"


_LONG_ENOUGH = 9.95
"""Seconds from which on tenths say nothing."""


def lasting(seconds: float) -> str:
    """A duration, as exactly as somebody would say it."""
    if seconds < _LONG_ENOUGH and seconds % 1:
        return f"{seconds:.1f}{NBSP}s"
    whole = round(seconds)
    parts = [
        (whole // _DAY, "d"),
        (whole % _DAY // _HOUR, "h"),
        (whole % _HOUR // _MINUTE, "min"),
        (whole % _MINUTE, "s"),
    ]
    first = next((index for index, (count, _) in enumerate(parts) if count), None)
    if first is None:
        return f"0{NBSP}s"
    return " ".join(f"{count}{NBSP}{unit}" for count, unit in parts[first : first + 2] if count)


def moment(at: datetime) -> str:
    """A moment to the minute, in its own time zone."""
    return f"{at:%Y-%m-%d %H:%M}"


def zone(at: datetime) -> str:
    """The time zone of a moment: `UTC+01:00`."""
    sign = f"{at:%z}"
    return "UTC" if at.utcoffset() is not None and not at.utcoffset() else f"UTC{sign[:3]}:{sign[3:5]}"
