import asyncio

from . import canary

pytest_plugins = ["pytester"]

# Up to Python 3.13 asyncio makes a loop for whoever asks while none was ever set, pytest-asyncio asks, and nobody closes it.
asyncio.set_event_loop(None)


def pytest_configure(config):
    canary.register(config)
