"""The page that Prometheus reads, read by Prometheus' own Python parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from waypost.telemetry.counters import Counters
from waypost.telemetry.page import render
from waypost.telemetry.table import METRICS


def parsed(counters: Counters):
    return {f.name: f for f in text_string_to_metric_families(render(counters.numbers()).decode())}


def test_every_metric_has_help_and_type():
    found = parsed(Counters())
    for metric in METRICS:
        family = found[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.what)


def test_buckets_are_cumulative():
    counters = Counters()
    for value in (0.3, 0.6, 0.6, 1.0, 1.0):
        counters.observe("waypost_rating_ratio", ("cook",), value)
    samples = parsed(counters)["waypost_rating_ratio"].samples
    told = {sample.labels.get("le", sample.name): sample.value for sample in samples}
    assert told == {
        "0.1": 0, "0.25": 0, "0.5": 1, "0.75": 3, "0.9": 3, "1.0": 5, "+Inf": 5,
        "waypost_rating_ratio_count": 5, "waypost_rating_ratio_sum": 3.5,
    }  # fmt: skip


def test_no_series_tells_when_a_counter_was_created():
    counters = Counters()
    counters.add("waypost_answers_total", ("cook",))
    counters.observe("waypost_rating_ratio", ("cook",), 1.0)
    assert b"_created" not in render(counters.numbers())


def test_names_of_llms_are_escaped():
    counters = Counters()
    counters.add("waypost_answers_total", ('a "b"\n\\',))
    (sample,) = parsed(counters)["waypost_answers"].samples
    assert sample.labels == {"model": 'a "b"\n\\'}
