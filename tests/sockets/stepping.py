"""Stops something at its k-th await, whichever loop runs it: of one coroutine, or of all tasks."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class Steps:
    """Counts how often any task is suspended, and acts at the k-th time."""

    def __init__(self, k: int, act: Callable[[], object] | None = None) -> None:
        self.left = k
        self.reached = False
        self.act = act

    def count(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.reached = True
            self.act()

    def after_task_step(self, task: object) -> None:
        """As an instrument of trio's."""
        del task
        self.count()


class Counted:
    """Awaits a coroutine, and counts each suspension."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], steps: Steps) -> None:
        self._coroutine = coroutine
        self._steps = steps

    def __await__(self):
        step, value = self._coroutine.send, None
        while True:
            try:
                waits_for = step(value)
            except StopIteration as result:
                return result.value
            self._steps.count()
            try:
                step, value = self._coroutine.send, (yield waits_for)
            except BaseException as error:
                step, value = self._coroutine.throw, error


class AtAwait(Counted):
    """Awaits a coroutine, and calls `act` when it is suspended for the k-th time.

    Attributes:
        reached: whether it was suspended that often.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], k: int, act: Callable[[], object]) -> None:
        super().__init__(coroutine, Steps(k, act))

    @property
    def reached(self) -> bool:
        return self._steps.reached


@contextlib.contextmanager
def counting(steps: Steps):
    """Every task that is made or stepped from here on is counted."""
    if trio.lowlevel.in_trio_run():
        trio.lowlevel.add_instrument(steps)
        yield
        trio.lowlevel.remove_instrument(steps)
        return

    def factory(loop, coroutine, **options):
        async def run():
            return await Counted(coroutine, steps)

        return asyncio.Task(run(), loop=loop, **options)

    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    yield
    loop.set_task_factory(None)


def every_k(most=200):
    """1, 2, 3 and so on, for a loop that ends when there is no k-th await any more."""
    yield from range(1, most)
    raise AssertionError("it never ran to its end")  # where a promise is broken
