"""A telemetry whose spans and metrics stay in memory."""

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tenios_async.otel import Telemetry


class Recorded:
    """A telemetry, and what it has exported."""

    def __init__(self, **options):
        self._spans, self._metrics = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self._meter_provider = MeterProvider([self._metrics], shutdown_on_exit=False)
        self.telemetry = Telemetry(tracer_provider=self.tracer_provider, meter_provider=self._meter_provider, **options)

    @property
    def spans(self):
        """Those that have ended, of callbacks."""
        return [span for span in self._spans.get_finished_spans() if span.name == "tenios callback"]

    def instruments(self):
        data = self._metrics.get_metrics_data()
        scopes = [] if data is None else [scope for one in data.resource_metrics for scope in one.scope_metrics]
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def points(self, name):
        """The points of an instrument that have counted something, by their attributes."""
        metric = self.instruments().get(name)
        points = [] if metric is None else metric.data.data_points
        found = {frozenset(point.attributes.items()): point for point in points}
        return {
            key: point for key, point in found.items() if getattr(point, "count", None) or getattr(point, "value", 0)
        }

    def values(self, name):
        """The same as plain numbers: a counter's, or a histogram's (count, sum)."""
        return {
            tuple(value for _, value in sorted(key)): (
                (point.count, pytest.approx(point.sum)) if hasattr(point, "count") else point.value
            )
            for key, point in self.points(name).items()
        }

    def everything(self):
        """All that was exported, as text."""
        yield from (span.to_json() for span in self._spans.get_finished_spans())
        yield from (metric.to_json() for metric in self.instruments().values())
