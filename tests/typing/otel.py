# pyright: reportUnnecessaryTypeIgnoreComment=true
"""The face of `tenios_async.otel`, as type checkers see it. Checked by `make check`, never run."""

from __future__ import annotations

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from tenios_async import Event, Observer, TeniosClient
from tenios_async.otel import Telemetry


def observing(traces: TracerProvider, metrics: MeterProvider, event: Event) -> None:
    Telemetry()
    telemetry = Telemetry(tracer_provider=traces, meter_provider=metrics, max_open=10_000, forget_after=3600)
    observer: Observer = telemetry
    client = TeniosClient(observers=[telemetry, observer])
    telemetry(event)
    telemetry.observe_connections(client)
    telemetry.close()
    Telemetry(traces)  # type: ignore[call-arg]
