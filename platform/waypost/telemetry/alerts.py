"""Recording and alert rules of Prometheus over the gateway's metrics.

The error budget follows Google's SRE Workbook, chapter 5 (Beyer et al., 2018): an alert fires where
a long and a short window both burn the budget of 30 days too fast. Sums are by ``job``, so that one
Prometheus may watch several graphs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SLO = 0.99
"""Share of requests that must be answered without an error of the server, over 30 days."""

BURNS = (
    ("1h", "5m", 14.4, "page"),
    ("6h", "30m", 6.0, "page"),
    ("1d", "2h", 3.0, "ticket"),
    ("3d", "6h", 1.0, "ticket"),
)
"""Long window, short window, times the budget's even pace, and severity."""

API = 'endpoint=~"/v1/.+"'
LLM_FAULTS = 'reason=~"connection|server|timeout|deadline|auth|overloaded|loading"'
"""Failures of an LLM, not of a request."""


@dataclass(frozen=True)
class Alert:
    """An alert rule.

    Attributes:
        name: Its name.
        expr: It fires where this has a value.
        hold: For so long.
        severity: ``page`` or ``ticket``.
        summary: One line; ``{{ $labels.x }}`` is the value of a label.
        action: What to look at.
    """

    name: str
    expr: str
    hold: str
    severity: str
    summary: str
    action: str


def _windows() -> tuple[str, ...]:
    return tuple(dict.fromkeys(window for burn in BURNS for window in burn[:2]))


def error_ratio(window: str) -> str:
    """Return the share of requests in a window that failed: 5xx, or a stream that broke off."""
    total = f"sum by (job) (rate(waypost_requests_total{{{API}}}[{window}]))"
    failed = f'sum by (job) (rate(waypost_requests_total{{{API},status=~"5.."}}[{window}]))'
    broken = f"sum by (job) (rate(waypost_broken_streams_total[{window}]))"
    return f"(({failed} or 0 * {total}) + ({broken} or 0 * {total})) / {total}"


def share(window: str) -> str:
    """Return the share of a router's decisions that each LLM has in a window."""
    decided = f"rate(waypost_decisions_total[{window}])"
    return (
        f"sum by (job, router, model) ({decided}) "
        f"/ on (job, router) group_left () sum by (job, router) ({decided})"
    )


def records() -> dict[str, str]:
    """Return the recording rules: name -> expression."""
    errors = {f"waypost:errors:ratio_rate{each}": error_ratio(each) for each in _windows()}
    return errors | {f"waypost:share:ratio_rate{each}": share(each) for each in ("1h", "1d")}


def _burns() -> Iterator[Alert]:
    for long, short, factor, severity in BURNS:
        bound = f"{factor * (1 - SLO):.4g}"
        both = (f"waypost:errors:ratio_rate{window} > {bound}" for window in (long, short))
        yield Alert(
            f"WaypostErrorBudgetBurn{long}",
            " and ".join(both),
            "2m" if severity == "page" else "15m",
            severity,
            f"Requests fail {factor:g} times as often as {SLO:.2%} without an error allows",
            "Look at failovers by reason, and at the log of the gateway for internal errors.",
        )


def alerts() -> tuple[Alert, ...]:
    """Return the alert rules."""
    day = "sum by (job) (increase(waypost_cost_usd_total[1d]))"
    hour = "sum by (job) (increase(waypost_cost_usd_total[1h]))"
    budget = "max by (job) (waypost_budget_usd_per_day)"
    faults = f"sum by (job, model) (increase(waypost_failovers_total{{{LLM_FAULTS}}}[5m]))"
    answers = "sum by (job, model) (increase(waypost_answers_total[5m]))"
    ready = 'sum by (job, model) (max_over_time(waypost_llm_gateways{state="ready"}[5m]))'
    there = "sum by (job, model) (waypost_llm_gateways)"
    unlike = "sum by (job, router) (increase(waypost_out_of_distribution_decisions_total[1h]))"
    decided = "sum by (job, router) (increase(waypost_decisions_total[1h]))"
    rated, predicted = (
        f"sum by (job, model) (increase({name}_sum[1d])) "
        f"/ sum by (job, model) (increase({name}_count[1d]))"
        for name in ("waypost_rating_ratio", "waypost_rated_prediction_ratio")
    )
    ratings = "sum by (job, model) (increase(waypost_rating_ratio_count[1d]))"
    drift = "abs(waypost:share:ratio_rate1h - waypost:share:ratio_rate1d)"
    return (
        Alert(
            "WaypostNoGateway", "absent(waypost_gateways)", "2m", "page",
            "No gateway answers Prometheus",
            "Is the server up, and does Prometheus have a key for /metrics?",
        ),
        Alert(
            "WaypostLLMDown",
            f"(({ready} == 0) and ({there} > 0)) or (({faults} > 3) unless ({answers} > 0))",
            "1m", "page", "{{ $labels.model }} answers nothing",
            "Other LLMs of the ranking answer for it. See waypost_failovers_total by reason.",
        ),
        *_burns(),
        Alert(
            "WaypostBudgetSpent", f"{day} > {budget}", "5m", "page",
            "The last 24 hours cost more than metrics.budget_usd_per_day",
            "See dollars by LLM; raise policy.lambda, or take an LLM out by `retired`.",
        ),
        Alert(
            "WaypostBudgetBurn", f"24 * {hour} > 2 * {budget}", "15m", "ticket",
            "At the pace of the last hour a day costs twice the budget",
            "See dollars by LLM and the number of requests.",
        ),
        Alert(
            "WaypostGatewayQueue", "sum by (job) (waypost_requests_queued) > 0", "5m", "ticket",
            "Requests wait for a place in the gateway",
            "limits.max_in_flight is reached: add replicas of the gateway, or of a slow LLM.",
        ),
        Alert(
            "WaypostLLMQueue", "sum by (job, model) (waypost_llm_requests_queued) > 0", "10m",
            "ticket", "Requests wait for a free place of {{ $labels.model }}",
            "Add replicas, or raise max_ongoing_requests where its engine batches more.",
        ),
        Alert(
            "WaypostShareDrift", f"({drift} > 0.2) and on (job, router) ({decided} > 100)", "30m",
            "ticket", "{{ $labels.router }} chooses {{ $labels.model }} unlike over the last day",
            "A new artifact or policy, or other questions? See the out-of-distribution share.",
        ),
        Alert(
            "WaypostOutOfDistribution", f"({unlike} / {decided} > 0.3) and ({decided} > 100)",
            "30m", "ticket", "{{ $labels.router }} does not know three in ten questions",
            "Such questions go by training means. Make routing data from the log, and train again.",
        ),
        Alert(
            "WaypostPredictionsOff", f"(abs(({rated}) - ({predicted})) > 0.2) and ({ratings} > 50)",
            "30m", "ticket", "Users rate {{ $labels.model }} unlike the router predicts",
            "Train again from feedback (waypost data from-feedback).",
        ),
        Alert(
            "WaypostLostRecords", "sum by (job) (increase(waypost_lost_records_total[15m])) > 0",
            "0m", "ticket", "Records of requests were lost",
            "feedback_dir or decision_log cannot be written: see the gateway's log.",
        ),
    )  # fmt: skip


def rules() -> dict[str, Any]:
    """Return the content of a rules file of Prometheus."""
    recorded = [{"record": name, "expr": expr} for name, expr in records().items()]
    return {
        "groups": [
            {"name": "waypost-records", "rules": recorded},
            {"name": "waypost-alerts", "rules": [_rule(alert) for alert in alerts()]},
        ]
    }


def _rule(alert: Alert) -> Mapping[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expr,
        "for": alert.hold,
        "labels": {"severity": alert.severity},
        "annotations": {"summary": alert.summary, "description": alert.action},
    }
