"""What a test asks afterwards: who was called, how often, and whether each call was followed to its end."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tenios_async.simulator.service import Service, SimulatedCallback

_ENDS = frozenset({"CALL_A_FAILED", "CALL_B_FAILED", "DISCONNECTED"})
_MOST_SHOWN = 10


@attrs.frozen
class Init:
    """A request to call somebody.

    Attributes:
        at: when it arrived, on the service's clock.
        request: what was asked for, without the access key.
        is_refused: whether it was answered with a clear no, so that whoever asked may ask again.
    """

    at: float
    request: Mapping[str, Any] = attrs.field(repr=False)
    is_refused: bool


class Assertions(abc.ABC):
    """Questions about who was called. A request counts as a call unless it was clearly refused: a phone may ring.

    Each `assert_...` raises `AssertionError`, which says what happened instead, with numbers masked.
    """

    @property
    @abc.abstractmethod
    def _service(self) -> Service:
        """The one that was asked."""

    def times_called(self, number: str) -> int:
        """How often this number was called: requests that arrived and were not clearly refused."""
        return len(self._calls(number))

    def assert_called_once(self, number: str, **asked_for: Any) -> None:
        """This number was called, once.

        Args:
            number: as it stood in the request.
            asked_for: fields of the request, such as `delay=30`; None for one that was left out.
        """
        calls = self._calls(number)
        if not calls:
            raise AssertionError(f"{masked(number)} was not called{self._refused(number)}; {self._who_was()}")
        if len(calls) > 1:
            raise AssertionError(_times(number, calls))
        (call,) = calls
        other = {name: call.request.get(name) for name in asked_for if call.request.get(name) != asked_for[name]}
        if other:
            told = ", ".join(
                f"{name}={_shown(name, value)} instead of {_shown(name, asked_for[name])}"
                for name, value in other.items()
            )
            raise AssertionError(f"{masked(number)} was called with {told}")

    def assert_not_called(self, number: str) -> None:
        """This number was not called, though others may have been."""
        if calls := self._calls(number):
            raise AssertionError(_times(number, calls))

    def assert_nobody_called(self) -> None:
        """No number was called."""
        if any(map(self._calls, self._service.requests)):
            raise AssertionError(self._who_was())

    def assert_nobody_called_twice(self) -> None:
        """No number was called more than once."""
        twice = [_times(number, calls) for number in self._service.requests if len(calls := self._calls(number)) > 1]
        if twice:
            raise AssertionError("; ".join(_shortened(twice)))

    def assert_followed_to_the_end(self, number: str) -> None:
        """Each call to this number was placed, and whoever followed it was told its last state."""
        placed = [callback for callback in self._service.callbacks.values() if callback.number == number]
        if not placed:
            raise AssertionError(f"no call to {masked(number)} was accepted{self._refused(number)}; {self._who_was()}")
        if open_ones := [self._how_far(callback) for callback in placed if not self._has_ended(callback)]:
            raise AssertionError(f"the call to {masked(number)} was not followed to its end: {'; '.join(open_ones)}")

    def _calls(self, number: str) -> list[Init]:
        return [init for init in self._service.requests.get(number, ()) if not init.is_refused]

    def _has_ended(self, callback: SimulatedCallback) -> bool:
        return self._service.told.get(callback.id) in _ENDS

    def _how_far(self, callback: SimulatedCallback) -> str:
        polls = self._service.polls[callback.id]
        if not polls:
            return "nobody asked for its state"
        status = self._service.told.get(callback.id)
        if status is None:
            return f"nobody was told its state, though it was asked for {_often(polls)}"
        return f"{status} was the last that was told, and it was asked for {_often(polls)}"

    def _refused(self, number: str) -> str:
        refused = sum(init.is_refused for init in self._service.requests.get(number, ()))
        return f", but refused {_often(refused)}" if refused else ""

    def _who_was(self) -> str:
        called = {number: count for number in self._service.requests if (count := self.times_called(number))}
        if not called:
            return "nobody was called"
        whom = _shortened([f"{masked(number)} {_often(count)}" for number, count in called.items()])
        return f"called: {', '.join(whom)}"


def masked(number: str) -> str:
    """Enough to tell which number of a test it is."""
    return f"{number[:3]}{'*' * (len(number) - 6)}{number[-3:]}" if len(number) > 6 else "*" * len(number)  # noqa: PLR2004


def shown_number(number: object) -> str:
    """The same, as a repr: with quotes around a text."""
    text = masked(str(number))
    return repr(text) if isinstance(number, str) else text


def _shown(name: str, value: object) -> str:
    return shown_number(value) if name == "callback_number" and value is not None else repr(value)


def _times(number: str, calls: Sequence[Init]) -> str:
    text = f"{masked(number)} was called {_often(len(calls))}"
    if len(calls) > 1:
        after = ", ".join(f"{call.at - calls[0].at:.1f} s" for call in calls[1:])
        text += f", again after {after}"
    return text


def _often(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _shortened(texts: list[str]) -> list[str]:
    more = len(texts) - _MOST_SHOWN
    return texts if more <= 0 else [*texts[:_MOST_SHOWN], f"{more} more"]
