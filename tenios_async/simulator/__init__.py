"""A TENIOS for tests, demos and benchmarks. It shares no code with the client: an oracle must not share a bug."""

from tenios_async.simulator.app import SimulatorApp
from tenios_async.simulator.assertions import Init
from tenios_async.simulator.fixture import Simulator
from tenios_async.simulator.scripts import Script
from tenios_async.simulator.server import SimulatorServer
from tenios_async.simulator.service import Answer, Fault, Manner, Service, SimulatedCallback
from tenios_async.simulator.transport import SimulatorTransport

__all__ = [
    "Answer",
    "Fault",
    "Init",
    "Manner",
    "Script",
    "Service",
    "SimulatedCallback",
    "Simulator",
    "SimulatorApp",
    "SimulatorServer",
    "SimulatorTransport",
]
