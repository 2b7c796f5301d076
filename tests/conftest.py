import asyncio

pytest_plugins = ["pytester"]

# Up to Python 3.13 asyncio makes a loop for whoever asks while none was ever set, pytest-asyncio asks, and nobody closes it.
asyncio.set_event_loop(None)
