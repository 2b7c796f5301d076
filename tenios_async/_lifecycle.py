"""How a callback lives: the one place that compares two states.

```
REQUESTED -> ACCEPTED -> CALLING_A -> CALLING_B -> CONNECTED -> DISCONNECTED
                             |            |
                      CALL_A_FAILED  CALL_B_FAILED
```

TENIOS rings the agent (A) first and the customer (B) once A has answered. The states are the vendor's (FACTS: callback
page); that they form this chain follows from their descriptions. The enumeration is open: a state that is not in the
table is yielded as itself, ends nothing and is compared with nothing.
"""

from __future__ import annotations

from typing import ClassVar, Literal

MAX_STATUS_LENGTH = 64


class CallbackStatus(str):
    """A state of a callback. A string; the eight documented ones are attributes, an unknown one is still a value.

    Raises `ValueError` for what cannot be a state: not text, empty, over 64 characters, not printable.
    """

    __slots__ = ()

    REQUESTED: ClassVar[CallbackStatus]
    ACCEPTED: ClassVar[CallbackStatus]
    CALLING_A: ClassVar[CallbackStatus]
    CALL_A_FAILED: ClassVar[CallbackStatus]
    CALLING_B: ClassVar[CallbackStatus]
    CALL_B_FAILED: ClassVar[CallbackStatus]
    CONNECTED: ClassVar[CallbackStatus]
    DISCONNECTED: ClassVar[CallbackStatus]

    def __new__(cls, value: str) -> CallbackStatus:  # noqa: PYI034  # a documented state is one object
        if not isinstance(value, str) or not 0 < len(value) <= MAX_STATUS_LENGTH or not value.isprintable():
            raise ValueError(f"a status is 1 to {MAX_STATUS_LENGTH} printable characters")
        return _KNOWN.get(value) or super().__new__(cls, value)

    def __repr__(self) -> str:
        return f"CallbackStatus.{self!s}" if self.is_known else f"CallbackStatus({str(self)!r})"

    def __getnewargs__(self) -> tuple[str]:
        return (str(self),)

    @property
    def is_known(self) -> bool:
        """Whether this is one of the eight documented states."""
        return self in _PATH

    @property
    def is_terminal(self) -> bool:
        """Whether the call has ended: CALL_A_FAILED, CALL_B_FAILED or DISCONNECTED."""
        return self in TERMINAL


_KNOWN: dict[str, CallbackStatus] = {}
_SUCCESSFUL = ("REQUESTED", "ACCEPTED", "CALLING_A", "CALLING_B", "CONNECTED", "DISCONNECTED")
_FAILURES = {"CALL_A_FAILED": "CALLING_A", "CALL_B_FAILED": "CALLING_B"}
for _name in (*_SUCCESSFUL, *_FAILURES):
    _KNOWN[_name] = str.__new__(CallbackStatus, _name)
    setattr(CallbackStatus, _name, _KNOWN[_name])

_PATH: dict[str, tuple[CallbackStatus, ...]] = {
    **{name: tuple(_KNOWN[n] for n in _SUCCESSFUL[: i + 1]) for i, name in enumerate(_SUCCESSFUL)},
    **{
        failed: (*(_KNOWN[n] for n in _SUCCESSFUL[: _SUCCESSFUL.index(calling) + 1]), _KNOWN[failed])
        for failed, calling in _FAILURES.items()
    },
}
"""Each state with the states that lead to it, itself last."""

INITIAL = CallbackStatus.REQUESTED
TERMINAL = frozenset({CallbackStatus.CALL_A_FAILED, CallbackStatus.CALL_B_FAILED, CallbackStatus.DISCONNECTED})
BEFORE_DIALLING = frozenset({CallbackStatus.REQUESTED, CallbackStatus.ACCEPTED})
"""The states in which a callback waits for its `delay`."""
REACHED_BOTH = frozenset({CallbackStatus.CONNECTED, CallbackStatus.DISCONNECTED})
FAILED_PARTY: dict[str, Literal["A", "B"]] = {CallbackStatus.CALL_A_FAILED: "A", CallbackStatus.CALL_B_FAILED: "B"}


def skipped(previous: CallbackStatus, status: CallbackStatus) -> tuple[CallbackStatus, ...]:
    """The states that must have been passed between the two, in order; empty where that cannot be told."""
    path = _PATH.get(status, ())
    return path[path.index(previous) + 1 : -1] if previous in path else ()


def is_regression(previous: CallbackStatus, status: CallbackStatus) -> bool:
    """Whether `status` cannot follow `previous`. Nothing is a regression from or to a state never heard of."""
    return previous in _PATH and status in _PATH and previous not in _PATH[status]
