"""What /metrics shows: counters that the path adds to, and gauges read when somebody asks.

Nothing here is global: the daemon makes one ``Metrics`` and hands it down, so two of them can live in one
test process. Names follow Prometheus' conventions (base units, ``_total``).
"""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# name, help, label names, () -> {label values: number}
Gauge = tuple[str, str, tuple[str, ...], Callable[[], dict[tuple[str, ...], float]]]


class Metrics:
    """The daemon's counters; ``render`` gives the text format."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.accepted = Counter(
            "arkrelay_recipients_accepted_total", "Recipients accepted.", ["door"], registry=self.registry
        )
        self.refused = Counter(
            "arkrelay_messages_refused_total", "Submissions refused by policy.", ["code"], registry=self.registry
        )
        self.settled = Counter(
            "arkrelay_recipients_settled_total",
            "Attempts and decisions by their outcome.",
            ["status"],
            registry=self.registry,
        )
        self.auth_failures = Counter("arkrelay_auth_failures_total", "Failed AUTH.", registry=self.registry)
        self.api_requests = Counter(
            "arkrelay_api_requests_total",
            "Requests with a key, by operation and class of their status.",
            ["endpoint", "status"],
            registry=self.registry,
        )
        self.requests_unlogged = Counter(
            "arkrelay_requests_unlogged_total",
            "Requests that the request log lost because the database did not take them.",
            registry=self.registry,
        )
        self.webhook_posts = Counter(
            "arkrelay_webhook_posts_total",
            "Events posted to webhooks, tests and replays among them.",
            ["result"],
            registry=self.registry,
        )
        self.tracked = Counter(
            "arkrelay_tracked_total",
            "Pixels fetched (open) and links followed (click), by whom; lost: not recorded, there were too many.",
            ["what", "visitor"],
            registry=self.registry,
        )
        self.commit_seconds = Histogram(
            "arkrelay_commit_seconds",
            "Time from handing a message to the store to its commit.",
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2, 10),
            registry=self.registry,
        )
        self.reports = Counter(
            "arkrelay_reports_total", "Bounces and other reports that came back.", ["kind"], registry=self.registry
        )
        self._gauges: list[Gauge] = []
        self.registry.register(_Gauges(self._gauges))

    def gauge(
        self, name: str, text: str, labels: tuple[str, ...], read: Callable[[], dict[tuple[str, ...], float]]
    ) -> None:
        """Show what ``read`` returns whenever the page is asked for."""
        self._gauges.append((name, text, labels, read))

    def render(self) -> bytes:
        """Return the page in Prometheus' text format."""
        return generate_latest(self.registry)


class _Gauges(Collector):
    def __init__(self, gauges: list[Gauge]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        for name, text, labels, read in self._gauges:
            family = GaugeMetricFamily(name, text, labels=labels)
            for values, number in read().items():
                family.add_metric(values, number)
            yield family
