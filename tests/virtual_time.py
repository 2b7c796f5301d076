"""A loop of asyncio in virtual time."""

import asyncio

import looptime


def virtual_loop() -> asyncio.AbstractEventLoop:
    """Without the empty turns in which looptime waits for threads before it moves time: nothing comes from any."""
    return looptime.patch_event_loop(asyncio.new_event_loop(), start=0.0, noop_cycles=0)
