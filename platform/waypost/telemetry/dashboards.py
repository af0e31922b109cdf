"""Grafana dashboards over the gateway's metrics, and Ray's own beside them.

A panel's queries have two variables of Grafana: ``$job``, and ``$__rate_interval``, the window that
fits the scrape interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from waypost.telemetry.table import BY_NAME

Style = Literal["timeseries", "stat"]

RATE = "$__rate_interval"
HEIGHT, WIDTH, IN_A_ROW = 7, 8, 3
_UNITS = {"seconds": "s", "usd": "currencyUSD", "ratio": "percentunit"}
_QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class Query:
    """A query, and the text of its legend."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """A panel.

    Attributes:
        title: Its title.
        queries: What it draws.
        unit: Grafana's name of the unit; "short" is a count.
        style: How it is drawn.
        needs: What has to happen before there is a series; "" is any request.
    """

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    style: Style = "timeseries"
    needs: str = ""


@dataclass(frozen=True)
class Dashboard:
    """A dashboard.

    Attributes:
        uid: Its id in Grafana, and the name of its file.
        title: Its title.
        rows: Title and panels of each row.
    """

    uid: str
    title: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]


def _rate(name: str, by: str, extra: str = "", of: str = "rate") -> str:
    return f'sum by ({by}) ({of}({name}{{job=~"$job"{extra}}}[{RATE}]))'


def _counted(name: str, by: str, title: str, needs: str = "") -> Panel:
    """Return a panel of a counter's pace by labels."""
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    unit = _UNITS.get(BY_NAME[name].unit, "short")
    return Panel(title, (Query(_rate(name, by), legend),), unit, needs=needs)


def _timed(name: str, title: str, by: str = "", needs: str = "") -> Panel:
    """Return a panel of a histogram's quantiles, or of its 0.95 quantile by a label."""
    unit = _UNITS.get(BY_NAME[name].unit, "short")
    if by:
        expr = f"histogram_quantile(0.95, {_rate(f'{name}_bucket', f'le, {by}')})"
        return Panel(title, (Query(expr, f"p95 {{{{{by}}}}}"),), unit, needs=needs)
    rate = _rate(f"{name}_bucket", "le")
    queries = (Query(f"histogram_quantile({q}, {rate})", f"p{100 * q:g}") for q in _QUANTILES)
    return Panel(title, tuple(queries), unit, needs=needs)


def _now(name: str, title: str, by: str = "", how: str = "sum", needs: str = "") -> Panel:
    """Return a panel of a gauge."""
    grouped = f"{how} by ({by})" if by else how
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", ")) if by else title
    unit = _UNITS.get(BY_NAME[name].unit, "short")
    query = Query(f'{grouped} ({name}{{job=~"$job"}})', legend)
    return Panel(title, (query,), unit, needs=needs)


def _share(name: str, by: str, whole: str, title: str, needs: str = "") -> Panel:
    within = by.split(", ")[0]
    expr = f"{_rate(name, by)} / on ({within}) group_left () {_rate(whole, within)}"
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    return Panel(title, (Query(expr, legend),), "percentunit", needs=needs)


def _ray(title: str, expr: str, legend: str, unit: str = "short") -> Panel:
    return Panel(title, (Query(expr, legend),), unit, needs="ray")


def _mean(name: str) -> str:
    return f"{_rate(f'{name}_sum', 'model')} / {_rate(f'{name}_count', 'model')}"


_COST, _DEAREST = "waypost_cost_usd_total", "waypost_dearest_cost_usd_total"

DASHBOARDS: tuple[Dashboard, ...] = (
    Dashboard(
        "waypost-serving",
        "Waypost: requests and LLMs",
        (
            (
                "Requests",
                (
                    _counted("waypost_requests_total", "endpoint, status", "Requests a second"),
                    _timed("waypost_request_duration_seconds", "Time of an answer", "endpoint"),
                    _timed(
                        "waypost_time_to_first_token_seconds",
                        "Time to first token",
                        "model",
                        "stream",
                    ),
                    _timed(
                        "waypost_time_per_output_token_seconds",
                        "Time per output token",
                        "model",
                        "stream",
                    ),
                    Panel(
                        "In flight, and waiting",
                        (
                            Query('sum(waypost_requests_in_flight{job=~"$job"})', "in flight"),
                            Query('sum(waypost_requests_queued{job=~"$job"})', "waiting"),
                        ),
                    ),
                    _counted("waypost_broken_streams_total", "model", "Streams that broke off"),
                ),
            ),
            (
                "LLMs",
                (
                    Panel(
                        "Generated tokens a second",
                        (
                            Query(
                                _rate("waypost_tokens_total", "model", ',direction="output"'),
                                "{{model}}",
                            ),
                        ),
                    ),
                    Panel(
                        "Prompt tokens a second",
                        (
                            Query(
                                _rate("waypost_tokens_total", "model", ',direction="input"'),
                                "{{model}}",
                            ),
                        ),
                    ),
                    _counted("waypost_answers_total", "model", "Answers a second"),
                    _counted(
                        "waypost_failovers_total", "model, reason", "Failovers a second", "failover"
                    ),
                    _now("waypost_llm_requests_in_flight", "In flight", "model"),
                    _now("waypost_llm_requests_queued", "Waiting for a free place", "model"),
                    _now("waypost_llm_gateways", "Gateways that can use an LLM", "model, state"),
                    _counted("waypost_hedges_total", "model, winner", "Hedges a second", "hedge"),
                ),
            ),
            (
                "Gateway",
                (
                    _now("waypost_gateways", "Gateways"),
                    _now("waypost_event_loop_tasks", "Tasks of event loops"),
                    _counted("waypost_lost_records_total", "job", "Lost records a second"),
                    _counted(
                        "waypost_user_configs_total",
                        "outcome",
                        "Changes of user_config",
                        "user_config",
                    ),
                ),
            ),
            (
                "Ray",
                (
                    _ray(
                        "Healthy replicas",
                        "sum by (deployment) (ray_serve_deployment_replica_healthy)",
                        "{{deployment}}",
                    ),
                    _ray(
                        "Requests at replicas",
                        "sum by (deployment) (ray_serve_replica_processing_queries)",
                        "{{deployment}}",
                    ),
                    _ray(
                        "CPU of nodes",
                        "ray_node_cpu_utilization / 100",
                        "{{instance}}",
                        "percentunit",
                    ),
                    _ray("Memory of nodes", "ray_node_mem_used", "{{instance}}", "bytes"),
                ),
            ),
        ),
    ),
    Dashboard(
        "waypost-routing",
        "Waypost: routing and money",
        (
            (
                "Router",
                (
                    _share(
                        "waypost_decisions_total",
                        "router, model",
                        "waypost_decisions_total",
                        "Share of each LLM",
                    ),
                    _timed("waypost_decision_seconds", "Time of a decision"),
                    _share(
                        "waypost_out_of_distribution_decisions_total",
                        "router",
                        "waypost_decisions_total",
                        "Share of questions unlike the training data",
                        "out of distribution",
                    ),
                    Panel(
                        "Predicted and rated score",
                        (
                            Query(_mean("waypost_rated_prediction_ratio"), "{{model}} predicted"),
                            Query(_mean("waypost_rating_ratio"), "{{model}} rated"),
                        ),
                        "percentunit",
                        needs="rating",
                    ),
                    _counted(
                        "waypost_session_turns_total",
                        "state",
                        "Turns of sessions a second",
                        "session",
                    ),
                    _counted(
                        "waypost_episodes_total",
                        "router, ended_by",
                        "Answers in steps a second",
                        "steps",
                    ),
                    _counted(
                        "waypost_episode_calls_total",
                        "model, purpose",
                        "Calls of answers in steps",
                        "steps",
                    ),
                    _counted(
                        "waypost_shadow_decisions_total",
                        "router, outcome",
                        "Shadow decisions a second",
                        "shadow",
                    ),
                ),
            ),
            (
                "Money",
                (
                    _counted(_COST, "model", "Dollars a second, by LLM"),
                    Panel(
                        "Dollars in this window",
                        (Query(f'sum(increase({_COST}{{job=~"$job"}}[$__range]))', "spent"),),
                        "currencyUSD",
                        "stat",
                    ),
                    Panel(
                        "Saved beside always the dearest LLM",
                        (
                            Query(
                                f'1 - sum(increase({_COST}{{job=~"$job"}}[$__range])) '
                                f'/ sum(increase({_DEAREST}{{job=~"$job"}}[$__range]))',
                                "saved",
                            ),
                        ),
                        "percentunit",
                        "stat",
                    ),
                    _counted(
                        "waypost_unpriced_answers_total", "model", "Answers without a known price"
                    ),
                    _now(
                        "waypost_budget_usd_per_day", "Budget of a day", how="max", needs="budget"
                    ),
                ),
            ),
        ),
    ),
)


def panels() -> Iterable[Panel]:
    """Return all panels."""
    return (panel for board in DASHBOARDS for _, row in board.rows for panel in row)


def grafana(board: Dashboard) -> dict[str, Any]:
    """Return a dashboard in Grafana's JSON (schema version 39)."""
    drawn: list[dict[str, Any]] = []
    y = 0
    for title, row in board.rows:
        drawn.append({"type": "row", "title": title, "collapsed": False, "id": len(drawn) + 1,
                      "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}, "panels": []})  # fmt: skip
        y += 1
        for i, panel in enumerate(row):
            place = {"x": WIDTH * (i % IN_A_ROW), "y": y + HEIGHT * (i // IN_A_ROW)}
            drawn.append(_drawn(panel, len(drawn) + 1, place | {"w": WIDTH, "h": HEIGHT}))
        y += HEIGHT * -(-len(row) // IN_A_ROW)
    return {
        "uid": board.uid,
        "title": board.title,
        "tags": ["waypost"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": drawn,
    }


def _variables() -> Sequence[dict[str, Any]]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    query = "label_values(waypost_gateways, job)"
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"},
        {"name": "job", "type": "query", "label": "Job", "datasource": source, "query": query,
         "refresh": 2, "includeAll": True, "multi": True, "allValue": ".*",
         "current": {"text": "All", "value": "$__all"}},
    ]  # fmt: skip


def _drawn(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    targets = [
        {
            "refId": chr(ord("A") + i),
            "expr": query.expr,
            "legendFormat": query.legend,
            "datasource": source,
        }
        for i, query in enumerate(panel.queries)
    ]
    return {
        "type": panel.style,
        "title": panel.title,
        "id": number,
        "gridPos": place,
        "datasource": source,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    }
