"""The vendor's service as a pure model on a clock that is handed in. It counts what it was asked to dial."""

from __future__ import annotations

import enum
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import attrs

from tenios_async.simulator.assertions import Assertions, Init, shown_number
from tenios_async.simulator.scripts import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

MANDATORY = ("access_key", "callback_config_id", "callback_number", "delay")


class Manner(enum.Enum):
    """How an answer is delivered."""

    WHOLE = "whole"
    DROP = "drop"
    """The connection is closed without an answer."""
    RESET = "reset"
    """The connection is reset without an answer."""
    STALL = "stall"
    """No answer ever comes."""
    DRIP = "drip"
    """The answer comes a byte a second."""


@attrs.frozen
class Answer:
    """What the service says to one request."""

    status_code: int
    body: bytes = attrs.field(repr=False)
    headers: tuple[tuple[str, str], ...] = ()
    manner: Manner = Manner.WHOLE


@attrs.frozen
class Fault:
    """Something that goes wrong with one request.

    Attributes:
        status_code: answered instead, or None for the true answer.
        before: whether it strikes before the request is carried out; otherwise the call is accepted all the same.
        body: answered instead, or None.
        headers: added to the answer.
        manner: how the answer is delivered.
        error_code: of the error that is answered, where there is one.

    Raises `ValueError` for what could not be answered.
    """

    status_code: int | None = None
    before: bool = True
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    manner: Manner = Manner.WHOLE
    error_code: str = "SIMULATED"

    def __attrs_post_init__(self) -> None:
        for is_right, says in (
            (self.status_code is None or _is_status_code(self.status_code), "status_code is a number from 200 to 999"),
            (self.body is None or isinstance(self.body, bytes), "body is bytes"),
            (_are_headers(self.headers), 'headers are a tuple of pairs of texts, such as (("Retry-After", "1"),)'),
            (isinstance(self.manner, Manner), "manner is a Manner, such as Manner.DROP"),
            (isinstance(self.error_code, str), "error_code is a text"),
        ):
            if not is_right:
                raise ValueError(says)

    @classmethod
    def refused(cls, error_code: str = "SIMULATED", status_code: int = 400) -> Fault:
        """A clear no, as for `BAD_CREDENTIALS`: nothing is carried out."""
        return cls(status_code, error_code=error_code)

    @classmethod
    def busy(cls, retry_after: str | None = "1") -> Fault:
        """429 before anything is carried out, with `Retry-After` unless None."""
        return cls(429, headers=() if retry_after is None else (("Retry-After", retry_after),))

    @classmethod
    def error(cls, status_code: int = 500, *, accepted: bool = False) -> Fault:
        """5xx, before or (`accepted`) after the request was carried out."""
        return cls(status_code, before=not accepted)

    @classmethod
    def garbage(cls, body: bytes = b"<html>It works!</html>") -> Fault:
        """200 with something that is not the API's, after the request was carried out."""
        return cls(200, before=False, body=body)

    @classmethod
    def lost(cls, manner: Manner = Manner.DROP) -> Fault:
        """The request is carried out and its answer lost, in the given manner."""
        return cls(before=False, manner=manner)

    @classmethod
    def stalled(cls) -> Fault:
        """The request is carried out and no answer ever comes."""
        return cls.lost(Manner.STALL)


@attrs.frozen
class SimulatedCallback:
    """A callback the service has accepted.

    Attributes:
        id: its id.
        number: whom it calls.
        request: the request as parsed, without the access key.
        accepted_at: when, on the service's clock.
        delay: seconds, as asked for.
        script: how it lives.
    """

    id: int
    number: str = attrs.field(repr=shown_number)
    request: Mapping[str, Any] = attrs.field(repr=False)
    accepted_at: float
    delay: int
    script: Script


class Service(Assertions):
    """The Callback API. As lenient as the vendor's samples: `delay` and `id` may be numbers or strings.

    Args:
        clock: gives the present in seconds.
        seed: of the sampled lifecycles; the same seed gives the same calls.
        speed: how many times faster than in life calls go.
        access_key: the one that is right; None takes any.
        config_ids: those that exist; None takes any.
        script: for every number that `script()` names none for; None samples.
        latency: seconds until an answer comes.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        seed: int = 0,
        speed: float = 1.0,
        access_key: str | None = None,
        config_ids: Collection[str] | None = None,
        script: Script | None = None,
        latency: float = 0.0,
    ) -> None:
        if not isinstance(speed, (int, float)) or not 0 < speed <= sys.float_info.max:
            raise ValueError("speed must be a number above 0")
        self._clock = clock
        self._seed = seed
        self._speed = speed
        self._access_key = access_key
        self._config_ids = config_ids
        self._script = None if script is None else _checked_script(script)
        self._scripts: dict[str, Script] = {}
        self._faults: list[tuple[str, str | None, Fault]] = []
        self.latency = latency
        self.is_reachable = True
        """Whether a connection can be had. Only `SimulatorTransport` asks."""
        self.inits: Counter[str] = Counter()
        """How many inits were parsed for each number, whatever was answered."""
        self.requests: dict[str, list[Init]] = {}
        """The same, each with what was asked for and whether it was refused."""
        self.polls: Counter[int] = Counter()
        """How many status requests were parsed for each id."""
        self.told: dict[int, str] = {}
        """The last state that was answered for each id."""
        self.callbacks: dict[int, SimulatedCallback] = {}

    def script(self, number: str, script: Script) -> None:
        """Calls to this number go by this script."""
        self._scripts[_checked_number(number)] = _checked_script(script)

    def fail_init(self, *faults: Fault, number: str | None = None) -> None:
        """The next inits (to this number, if one is given) meet these faults, one each, in order."""
        whom = None if number is None else _checked_number(number)
        self._faults += [("init", whom, fault) for fault in _checked_faults(faults)]

    def fail_status(self, *faults: Fault) -> None:
        """The next status requests meet these faults, one each, in order."""
        self._faults += [("status", None, fault) for fault in _checked_faults(faults)]

    @property
    def _service(self) -> Service:
        return self

    def state(self, callback_id: int) -> str:
        """The state a callback is in now."""
        callback = self.callbacks[callback_id]
        return callback.script.state((self._clock() - callback.accepted_at) * self._speed, callback.delay)

    def handle(self, method: str, path: str, body: bytes) -> Answer:
        """What the service answers to a request."""
        endpoint = path.partition("?")[0].rstrip("/").rpartition("/callback/")[2]
        if endpoint not in ("init", "status") or "/callback/" not in path:
            return _refusal(404, "NOT_FOUND", "Unknown method")
        if method != "POST":
            return _refusal(405, "METHOD_NOT_ALLOWED", "Method not allowed")
        try:
            parsed: Any = json.loads(body)
        except (ValueError, RecursionError):
            return _refusal(400, "BAD_REQUEST", "Malformed JSON")
        if not isinstance(parsed, dict):
            return _refusal(400, "BAD_REQUEST", "A JSON object is expected")
        fields = cast("dict[str, Any]", parsed)
        number = str(fields.get("callback_number", ""))
        calls: list[Init] = []
        if endpoint == "init" and number:  # written down before anything can fail: a phone may ring
            self.inits[number] += 1
            calls = self.requests.setdefault(number, [])
            calls.append(Init(self._clock(), _without_key(fields), is_refused=False))
        fault = self._next_fault(endpoint, number)
        answer = self._carry_out(endpoint, fields, fault)
        is_true = (fault is None or fault.body is None) and answer.manner in (Manner.WHOLE, Manner.DRIP)
        if calls and is_true and _is_refusal(answer.status_code):
            calls[-1] = attrs.evolve(calls[-1], is_refused=True)
        elif endpoint == "status" and is_true and answer.status_code == 200:  # noqa: PLR2004
            self.told[int(fields["id"])] = json.loads(answer.body)["status"]
        return answer

    def _carry_out(self, endpoint: str, fields: dict[str, Any], fault: Fault | None) -> Answer:
        if fault is not None and fault.before and fault.status_code is not None:
            answer = _simulated(fault.status_code, fault)
        else:
            answer = self._init(fields) if endpoint == "init" else self._status(fields)
        return answer if fault is None else _spoilt(answer, fault)

    def _next_fault(self, endpoint: str, number: str) -> Fault | None:
        for index, (where, whom, fault) in enumerate(self._faults):
            if where == endpoint and whom in (None, number):
                del self._faults[index]
                return fault
        return None

    def _init(self, fields: dict[str, Any]) -> Answer:
        missing = [name for name in MANDATORY if fields.get(name) in (None, "")]
        if missing:
            return _refusal(400, "MISSING_FIELDS", "Mandatory fields are missing", missing)
        if not self._knows(fields["access_key"], fields["callback_config_id"]):
            return _refusal(400, "BAD_CREDENTIALS", "Bad credentials")
        delay, number = _whole(fields["delay"]), fields["callback_number"]
        wrong = [
            *(["callback_number"] if not isinstance(number, str) else []),
            *(["delay"] if delay is None or delay < 0 else []),
        ]
        if wrong or delay is None:
            return _refusal(400, "INVALID_FIELDS", "Fields are not valid", wrong)
        callback_id = len(self.callbacks) + 10
        script = self._scripts.get(number) or self._script
        self.callbacks[callback_id] = SimulatedCallback(
            id=callback_id,
            number=number,
            request=_without_key(fields),
            accepted_at=self._clock(),
            delay=delay,
            script=script or Script.sampled(random.Random(f"{self._seed}/{callback_id}")),  # noqa: S311  # not a secret
        )
        return _answer(200, {"id": callback_id})

    def _status(self, fields: dict[str, Any]) -> Answer:
        missing = [name for name in ("access_key", "id") if fields.get(name) in (None, "")]
        if missing:
            return _refusal(400, "MISSING_FIELDS", "Mandatory fields are missing", missing)
        if not self._knows(fields["access_key"], None):
            return _refusal(400, "BAD_CREDENTIALS", "Bad credentials")
        callback_id = _whole(fields["id"])
        if callback_id is None or callback_id not in self.callbacks:
            return _refusal(404, "NOT_FOUND", "Unknown callback")
        self.polls[callback_id] += 1
        return _answer(200, {"status": self.state(callback_id)})

    def _knows(self, access_key: object, config_id: object) -> bool:
        """The vendor answers the same for a wrong key and for a wrong configuration."""
        wrong_key = not isinstance(access_key, str) or self._access_key not in (None, access_key)
        wrong_config = config_id is not None and self._config_ids is not None and config_id not in self._config_ids
        return not (wrong_key or wrong_config)


def _is_status_code(value: object) -> bool:
    return isinstance(value, int) and 200 <= value <= 999  # noqa: PLR2004  # of a final answer: RFC 9110 15


def _are_headers(value: tuple[tuple[str, str], ...]) -> bool:
    are_pairs = isinstance(value, tuple) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value)  # noqa: PLR2004
    return are_pairs and all(isinstance(text, str) for pair in value for text in pair)


def _checked_faults(faults: tuple[Fault, ...]) -> tuple[Fault, ...]:
    if not all(isinstance(fault, Fault) for fault in faults):
        raise ValueError("what fails is a Fault, such as Fault.lost() (with its brackets)")
    return faults


def _checked_script(script: Script) -> Script:
    if not isinstance(script, Script):
        raise ValueError("a script is a Script, such as Script.talk() (with its brackets)")  # noqa: TRY004  # as all bad arguments
    return script


def _checked_number(number: str) -> str:
    if not isinstance(number, str):
        raise ValueError("a number is a text, as it stands in the request")  # noqa: TRY004  # as all bad arguments
    return number


def _whole(value: object) -> int | None:
    """A number as the samples send it: `30` or `"0"`."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:  # noqa: PLR2004
        return int(value)
    return value if isinstance(value, int) else None


def _without_key(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "access_key"}


def _is_refusal(status_code: int) -> bool:
    """Whether it proves, with the API's error and whole, that no phone rings."""
    return 400 <= status_code < 500  # noqa: PLR2004


def _answer(status_code: int, fields: Mapping[str, Any]) -> Answer:
    return Answer(status_code, json.dumps(fields).encode(), (("Content-Type", "application/json"),))


def _refusal(status_code: int, error_code: str, error_message: str, fields: Collection[str] = ()) -> Answer:
    body = {"error_code": error_code, "error_message": error_message, "fields": list(fields)}
    return _answer(status_code, body)


def _simulated(status_code: int, fault: Fault) -> Answer:
    return _refusal(status_code, fault.error_code, "Simulated fault")


def _spoilt(answer: Answer, fault: Fault) -> Answer:
    if fault.status_code is not None and fault.body is None:
        answer = _simulated(fault.status_code, fault)
    return attrs.evolve(
        answer,
        status_code=fault.status_code or answer.status_code,
        body=answer.body if fault.body is None else fault.body,
        headers=(*answer.headers, *fault.headers),
        manner=fault.manner,
    )
