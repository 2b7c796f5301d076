"""The server of `watching.py`: answers with the state in which each callback is, after a fixed latency.

It reads a line of JSON that says how the callbacks live, says its port in another, and is told the instant at which
everything begins. Told to stop, it says what it saw: for each callback how often it was asked for, and for each state
how late it was seen: from its beginning until a poll arrives that is answered with it or with a later one.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from responder import ACCESS_KEY, BACKLOG, HOST, LOOP, Answers, Connection, arguments, run

_ID = re.compile(rb'"id": *([0-9]+)')
_KEY = ACCESS_KEY.encode()


@dataclass
class Followed:
    """One callback: the instants at which its states begin, on the clock of this machine, and what was asked of it."""

    states: list[str]
    begins: list[float]
    seen: int = 1
    polls: int = 0
    lateness: list[float] = field(default_factory=list)

    def asked(self, now: float) -> str:
        """The state as of now; takes note of those that are seen for the first time."""
        self.polls += 1
        while self.seen < len(self.begins) and self.begins[self.seen] <= now:
            self.lateness.append(now - self.begins[self.seen])
            self.seen += 1
        return self.states[self.seen - 1]


class Calls:
    """All callbacks, by their ids, from 1. Others have only been requested: a client can warm up on them.

    Args:
        plan: `latency` in seconds, and the `calls`, each with its `states` and the seconds after which they `begin`.
    """

    def __init__(self, plan: dict[str, Any]) -> None:
        self._calls = plan["calls"]
        self.latency: float = plan["latency"]
        self.callbacks: dict[int, Followed] = {}
        self.answers = Answers({state for call in self._calls for state in call["states"]} | {"REQUESTED"})
        self.seconds_in_flight = 0.0
        self._began = self._cpu = math.inf

    def begin(self, at: float) -> None:
        """Everything begins at that instant."""
        self.callbacks = {
            n: Followed(call["states"], [at + seconds for seconds in call["begin"]])
            for n, call in enumerate(self._calls, start=1)
        }
        self._began, self._cpu = at, time.process_time()

    def report(self, until: float) -> dict[str, Any]:
        """What was seen until then."""
        wall = until - self._began
        callbacks = self.callbacks.values()
        return {
            "busy": (time.process_time() - self._cpu) / wall,
            "in_flight": self.seconds_in_flight / wall,
            "polls": [callback.polls for callback in callbacks],
            "lateness": [callback.lateness for callback in callbacks],
            "unseen": sum(len(callback.begins) - callback.seen for callback in callbacks),
        }


class _Line(Connection):
    def __init__(self, calls: Calls, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._calls = calls
        self._loop = loop

    def asked(self, body: bytes) -> bool:
        found = _ID.search(body)
        if found is None or _KEY not in body:
            return False
        now = time.monotonic()
        callback = self._calls.callbacks.get(int(found[1]))
        state = "REQUESTED" if callback is None else callback.asked(now)
        self._loop.call_later(self._calls.latency, self._answer, state, math.inf if callback is None else now)
        return True

    def _answer(self, state: str, since: float) -> None:
        self._calls.seconds_in_flight += max(0.0, time.monotonic() - since)
        self.transport.write(self._calls.answers.by_state[state])


async def _serve() -> None:
    loop = asyncio.get_running_loop()

    async def told() -> Any:
        return json.loads(await loop.run_in_executor(None, sys.stdin.readline))

    calls = Calls(await told())
    server = await loop.create_server(lambda: _Line(calls, loop), HOST, 0, backlog=BACKLOG)
    print(json.dumps({"port": server.sockets[0].getsockname()[1], "loop": LOOP}), flush=True)
    calls.begin(await told())
    print(json.dumps(calls.report(await told())), flush=True)
    os._exit(0)  # connections that are open still need no farewell


if __name__ == "__main__":
    run(_serve(), arguments(__doc__).core)
