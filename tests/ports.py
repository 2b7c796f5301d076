"""A port for a program that has to be told one."""

import random
import socket

PORTS = range(20_000, 30_000)
"""Below those that systems give to connections going out (32768 on Linux, 49152 elsewhere), any of which may be taken."""


def free_port():
    """One on which nobody listens; drawn, so that tests that run at the same time do not get the same."""
    return next(filter(_is_free, random.SystemRandom().sample(PORTS, len(PORTS))))


def _is_free(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
