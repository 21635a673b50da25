"""What a server counts, in Prometheus's form.

Owns prometheus_client (extra `serve`). Refuses to know HTTP.
"""

from __future__ import annotations

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class ServiceMetrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = CollectorRegistry()
        self._requests = Counter(
            "tfscale_serve_requests", "Requests, by model and status.", ["model", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "tfscale_serve_request_seconds", "From the headers to the answer.", ["model"], buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self._batch_rows = Histogram(
            "tfscale_serve_batch_examples", "Examples of a batch.", ["model"], buckets=[2**i for i in range(11)],
            registry=self._registry,
        )  # fmt: skip
        self._batch_seconds = Histogram(
            "tfscale_serve_batch_seconds", "A batch in the model.", ["model"], buckets=_SECONDS, registry=self._registry
        )
        self._logged = Counter(
            "tfscale_serve_log_requests", "Requests that were drawn for the log.", ["outcome"], registry=self._registry
        )
        self.in_flight = Gauge(
            "tfscale_serve_in_flight", "Requests that are not answered yet.", registry=self._registry
        )
        self.held_bytes = Gauge("tfscale_serve_held_bytes", "Bytes of their bodies.", registry=self._registry)

    def logged(self, how: str) -> None:
        """Args: how: what became of a request for the log."""
        self._logged.labels(how).inc()

    def request(self, model: str, status: int, seconds: float) -> None:
        """Args: model: its name; "" where the request named none that there is."""
        self._requests.labels(model, str(status)).inc()
        self._seconds.labels(model).observe(seconds)

    def batch(self, model: str, rows: int, seconds: float) -> None:
        self._batch_rows.labels(model).observe(rows)
        self._batch_seconds.labels(model).observe(seconds)

    def written(self) -> bytes:
        """The page that Prometheus reads."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)
