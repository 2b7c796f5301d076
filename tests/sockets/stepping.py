"""Stops something at its k-th await, whichever loop runs it."""


class AtAwait:
    """Awaits a coroutine, and calls `act` when it is suspended for the k-th time.

    Attributes:
        reached: whether it was suspended that often.
    """

    def __init__(self, coroutine, k, act):
        self._coroutine = coroutine
        self._left = k
        self._act = act
        self.reached = False

    def __await__(self):
        step, value = self._coroutine.send, None
        while True:
            try:
                waits_for = step(value)
            except StopIteration as result:
                return result.value
            self._left -= 1
            if self._left == 0:
                self.reached = True
                self._act()
            try:
                step, value = self._coroutine.send, (yield waits_for)
            except BaseException as error:
                step, value = self._coroutine.throw, error


def every_k(most=200):
    """1, 2, 3 and so on, for a loop that ends when there is no k-th await any more."""
    yield from range(1, most)
    raise AssertionError("it never ran to its end")  # where a promise is broken
