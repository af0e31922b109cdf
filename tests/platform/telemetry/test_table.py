"""The table of metrics keeps Prometheus' conventions."""

from __future__ import annotations

import pytest

from waypost.contracts.steps import PURPOSES
from waypost.episode import EndedBy
from waypost.serve.backends.failures import _REASONS
from waypost.telemetry.dashboards import panels
from waypost.telemetry.table import BY_NAME, LABELS, METRICS, Metric

each = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)


def test_names_differ():
    assert len(BY_NAME) == len(METRICS)


@each
def test_a_name_says_unit_and_kind(metric: Metric):
    assert metric.name.startswith("waypost_")
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.unit in metric.name.removesuffix("_total").split("_") or not metric.unit
    assert metric.unit in {"", "seconds", "usd", "ratio"}


@each
def test_a_metric_is_explained_and_its_labels_are_known(metric: Metric):
    assert metric.what.endswith(".")
    assert metric.group
    assert set(metric.labels) <= set(LABELS)


@each
def test_buckets_are_those_of_histograms_and_ascend(metric: Metric):
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert metric.width == (len(metric.buckets) + 2 if metric.buckets else 1)


def test_every_label_is_used():
    assert {label for metric in METRICS for label in metric.labels} == set(LABELS)


def test_closed_sets_have_what_the_code_says():
    assert set(LABELS["reason"].values or ()) == set(_REASONS.values())
    assert LABELS["purpose"].values == PURPOSES
    assert set(LABELS["ended_by"].values or ()) == set(EndedBy.__args__)


@each
def test_a_dashboard_shows_it(metric: Metric):
    shown = " ".join(query.expr for panel in panels() for query in panel.queries)
    assert metric.name in shown
