import asyncio

import hypothesis

from . import canary

pytest_plugins = ["pytester"]

# Up to Python 3.13 asyncio makes a loop for whoever asks while none was ever set, pytest-asyncio asks, and nobody closes it.
asyncio.set_event_loop(None)

# No test depends on how fast the machine is; a hang is pytest-timeout's to end.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_configure(config):
    canary.register(config)
