"""How many calls may be asked for. In memory: for one process, and forgotten when it ends."""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable

import attrs


class TooMany(Exception):
    """Not now.

    Attributes:
        what: `number`, `address` or `total`: of which there were too many.
        retry_after: whole seconds until one more is allowed.
    """

    def __init__(self, what: str, retry_after: float) -> None:
        super().__init__(f"too many calls by {what}")
        self.what = what
        self.retry_after = math.ceil(retry_after)


class Limit:
    """At most `count` in any `per` seconds for each key, under every one of the windows.

    Args:
        windows: pairs of `count` and `per`.
        clock: gives the present in seconds.
    """

    def __init__(self, *windows: tuple[int, float], clock: Callable[[], float] = time.monotonic) -> None:
        self._windows = windows
        self._longest = max(per for _, per in windows)
        self._clock = clock
        self._taken: dict[str, list[float]] = {}

    def wait(self, key: str) -> float:
        """Seconds until one more is allowed; 0 is now."""
        now, times = self._clock(), self._taken.get(key, [])
        return max([0.0, *(times[-count] + per - now for count, per in self._windows if len(times) >= count)])

    def take(self, key: str) -> None:
        """Counts one more."""
        now = self._clock()
        for other, times in list(self._taken.items()):
            if times[-1] + self._longest <= now:
                del self._taken[other]
        self._taken[key] = [*(at for at in self._taken.get(key, ()) if at + self._longest > now), now]

    def give_back(self, key: str) -> None:
        """The last one counts no longer."""
        times = self._taken.get(key, [])
        if times[:-1]:
            times.pop()
        else:
            self._taken.pop(key, None)


@attrs.define
class Limits:
    """What one visitor, one number and everybody together may ask for.

    `total` bounds what an attack can cost, and with it the memory of the other two.
    """

    address: Limit = attrs.field(factory=lambda: Limit((5, 600), (20, 86_400)))
    number: Limit = attrs.field(factory=lambda: Limit((1, 120), (4, 86_400)))
    total: Limit = attrs.field(factory=lambda: Limit((60, 3_600)))

    def take(self, address: str, number: str) -> None:
        """Counts one call, or raises `TooMany` and counts nothing."""
        keys = {"number": number, "address": network(address), "total": ""}
        for what, key in keys.items():
            if wait := getattr(self, what).wait(key):
                raise TooMany(what, wait)
        for what, key in keys.items():
            getattr(self, what).take(key)

    def give_back(self, number: str) -> None:
        """No phone rings: the number may be asked for again. It still counts for the visitor's address."""
        self.number.give_back(number)
        self.total.give_back("")


def network(address: str) -> str:
    """Whom an address belongs to: whoever has one of IPv6 has the whole /64."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if parsed.version == 4 else str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))  # noqa: PLR2004
