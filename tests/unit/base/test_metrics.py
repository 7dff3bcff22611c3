"""/metrics: counters that the path adds to, gauges read when somebody asks, and no globals."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from arkrelay.base.metrics import Metrics


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Read the page as Prometheus does."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def test_counters_show_what_was_counted() -> None:
    metrics = Metrics()
    metrics.accepted.labels("smtp").inc()
    metrics.accepted.labels("smtp").inc(2)
    metrics.accepted.labels("api").inc()
    metrics.refused.labels("452").inc()
    metrics.settled.labels("sent").inc(5)
    metrics.auth_failures.inc()
    found = samples(metrics)
    assert found["arkrelay_recipients_accepted_total", (("door", "smtp"),)] == 3
    assert found["arkrelay_recipients_accepted_total", (("door", "api"),)] == 1
    assert found["arkrelay_messages_refused_total", (("code", "452"),)] == 1
    assert found["arkrelay_recipients_settled_total", (("status", "sent"),)] == 5
    assert found["arkrelay_auth_failures_total", ()] == 1


def test_commit_times_fall_into_buckets() -> None:
    metrics = Metrics()
    for seconds in (0.0005, 0.004, 3, 60):
        metrics.commit_seconds.observe(seconds)
    found = samples(metrics)
    counts = {dict(labels)["le"]: value for (name, labels), value in found.items() if name.endswith("_bucket")}
    assert (counts["0.001"], counts["0.005"], counts["2.0"], counts["10.0"], counts["+Inf"]) == (1, 2, 2, 3, 4)
    assert found["arkrelay_commit_seconds_count", ()] == 4


def test_a_gauge_is_read_when_somebody_asks() -> None:
    metrics = Metrics()
    now: dict[tuple[str, ...], float] = {("example.com",): 1.0}
    metrics.gauge("arkrelay_waiting", "Waiting recipients.", ("destination",), lambda: now)
    assert samples(metrics)["arkrelay_waiting", (("destination", "example.com"),)] == 1
    now = {("example.com",): 7.0, ("example.org",): 2.0}
    found = samples(metrics)
    assert found["arkrelay_waiting", (("destination", "example.com"),)] == 7
    assert found["arkrelay_waiting", (("destination", "example.org"),)] == 2


def test_a_gauge_without_labels_is_one_number() -> None:
    metrics = Metrics()
    metrics.gauge("arkrelay_up", "Accepts and delivers: 1.", (), lambda: {(): 1.0})
    assert samples(metrics)["arkrelay_up", ()] == 1


@pytest.mark.parametrize("value", ['a"b', "a\\b", "a\nb", "bücher.example"])
def test_any_label_value_can_be_read_back(value: str) -> None:
    metrics = Metrics()
    metrics.gauge("arkrelay_x", "X.", ("name",), lambda: {(value,): 1.0})
    assert samples(metrics)["arkrelay_x", (("name", value),)] == 1


def test_each_metric_says_what_it_counts() -> None:
    metrics = Metrics()
    metrics.gauge("arkrelay_x", "X is this.", (), lambda: {(): 1.0})
    families = {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}
    assert families["arkrelay_x"].documentation == "X is this."
    assert families["arkrelay_x"].type == "gauge"
    assert families["arkrelay_recipients_accepted"].type == "counter"
    assert all(family.documentation.endswith(".") for family in families.values() if family.type != "unknown")


def test_two_of_them_live_in_one_process() -> None:
    one, other = Metrics(), Metrics()
    one.auth_failures.inc()
    assert samples(one)["arkrelay_auth_failures_total", ()] == 1
    assert samples(other)["arkrelay_auth_failures_total", ()] == 0
