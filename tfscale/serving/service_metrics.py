"""What a server counts, in Prometheus's form: how it is written, and how it is read again.

Owns prometheus_client (extra `serve`), and the names. Refuses to know HTTP.

    metrics = ServiceMetrics()
    metrics.request("digits", 200, 0.012)
    read_counts(metrics.written({"digits": {3: ""}}).decode(), "digits").statuses      # {"200": 1.0}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tfscale.errors import DataMissing, UsageError, nearest

_REQUESTS, _REQUEST_SECONDS, _STATES = (
    "tfscale_serve_requests",
    "tfscale_serve_request_seconds",
    "tfscale_serve_model_state",
)
_AVAILABLE, _FAILED = "available", "failed"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class ServiceMetrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = CollectorRegistry()
        self._requests = Counter(
            _REQUESTS, "Requests, by model and status.", ["model", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            _REQUEST_SECONDS, "From the headers to the answer.", ["model"], buckets=_SECONDS,
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
        self._states = Gauge(
            _STATES, "1 of the version that is served, and of one that can't be.", ["model", "version", "state"],
            registry=self._registry,
        )  # fmt: skip
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

    def written(self, states: Mapping[str, Mapping[int, str]]) -> bytes:
        """The page that Prometheus reads.

        Args:
            states: of each model by version what is wrong with it, "" for the one that is served.
        """
        from prometheus_client import generate_latest

        self._states.clear()
        for name, versions in states.items():
            for version, why in versions.items():
                self._states.labels(name, str(version), _FAILED if why else _AVAILABLE).set(1)
        return generate_latest(self._registry)


@dataclass(frozen=True)
class Counts:
    """What a server has counted of one model since it was started.

    Attributes:
        statuses: requests by status, such as "200".
        buckets: requests by the longest that they took: of each bucket's upper bound in seconds, infinity too.
        since: when it began to count, in seconds since 1970; 0 where the page doesn't say it.
        version: that is served; "" where the page doesn't say it.
        failed: a newer one that can't be served; "" for none.
    """

    statuses: Mapping[str, float]
    buckets: Mapping[float, float]
    since: float = 0.0
    version: str = ""
    failed: str = ""


def read_counts(page: str, model: str) -> Counts:
    """What a page of `ServiceMetrics` says of a model.

    Raises:
        UsageError: it is no such page, or the server has other models; or prometheus_client isn't installed.
        DataMissing: it says nothing of any model: the server may be loading it still.
    """
    samples = _samples(page)
    own = [(name, labels, value) for name, labels, value in samples if labels.get("model") == model]
    states = {labels["state"]: labels["version"] for name, labels, _ in own if name == _STATES}
    known = sorted({labels["model"] for name, labels, _ in samples if name == _STATES})
    if known and model not in known:
        raise UsageError(
            f"the server has no model {model!r}{nearest(model, known)}", where="model", fix=f"model={known[0]}"
        )
    if not own:
        raise DataMissing(f"it says nothing of a model {model} yet", where="metrics", fix="wait until it is loaded")
    return Counts(
        {labels["status"]: value for name, labels, value in own if name == f"{_REQUESTS}_total"},
        {float(labels["le"]): value for name, labels, value in own if name == f"{_REQUEST_SECONDS}_bucket"},
        next((value for name, _, value in own if name == f"{_REQUEST_SECONDS}_created"), 0.0),
        states.get(_AVAILABLE, ""),
        states.get(_FAILED, ""),
    )


def _samples(page: str) -> list[tuple[str, dict[str, str], float]]:
    """Raises UsageError."""
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ImportError:
        raise UsageError(
            "reading metrics needs prometheus_client", where="metrics", fix='pip install "tfscale[serve]"'
        ) from None
    try:
        families: Iterable[Any] = text_string_to_metric_families(page)
        found = [(one.name, dict(one.labels), float(one.value)) for family in families for one in family.samples]
    except ValueError:
        found = []
    if not any(name.startswith("tfscale_serve_") for name, *_ in found):
        raise UsageError(
            "there are no metrics of tfscale serve",
            where="metrics",
            fix="metrics=http://HOST:PORT/metrics with the port of serve.probes_port (8081)",
        )
    return found
