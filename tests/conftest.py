import asyncio

from hypothesis import settings

from . import canary

pytest_plugins = ["pytester"]

# Up to Python 3.13 asyncio makes a loop for whoever asks while none was ever set, pytest-asyncio asks, and nobody closes it.
asyncio.set_event_loop(None)

# A machine that is busy is no failure.
settings.register_profile("tenios", settings.default, deadline=None)
settings.load_profile("tenios")


def pytest_configure(config):
    canary.register(config)
