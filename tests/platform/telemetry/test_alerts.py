"""The alert rules, checked and tried on made-up series by Prometheus' own promtool."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.prometheus import promtool
from waypost.telemetry.alerts import alerts, records, rules
from waypost.telemetry.dashboards import DASHBOARDS, grafana, panels
from waypost.telemetry.files import files
from waypost.telemetry.table import BY_NAME

SUFFIXES = re.compile(r"_(bucket|sum|count)$")
CHAT = 'job="w",endpoint="/v1/chat/completions"'


@pytest.fixture(scope="module")
def rules_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(files()["rules.yaml"])
    return path


def run(*command: str | Path) -> str:
    done = subprocess.run([promtool(), *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_rules(rules_file):
    found = rules()["groups"]
    count = sum(len(group["rules"]) for group in found)
    assert f"{count} rules found" in run("check", "rules", rules_file)


@pytest.mark.parametrize("expr", [*records().values(), *(alert.expr for alert in alerts())])
def test_rules_ask_for_metrics_that_there_are(expr):
    names = {SUFFIXES.sub("", name) for name in re.findall(r"\bwaypost_\w+", expr)}
    assert names or "waypost:" in expr
    assert names <= set(BY_NAME)
    assert set(re.findall(r"\bwaypost:[\w:]+", expr)) <= set(records())


# name of the alert -> series that let it fire, others that do not, and at what time it is looked.
# Series are those of promtool: start+step x count, one value a minute.
LLM_STATE = 'waypost_llm_gateways{job="w",model="cook",state="ready"}'
TRIED: dict[str, tuple[dict[str, str], dict[str, str], str]] = {
    "WaypostNoGateway": ({"other": "1x10"}, {'waypost_gateways{job="w"}': "1x10"}, "5m"),
    "WaypostLLMDown": (
        {
            LLM_STATE: "1x5 0x15",
            'waypost_llm_gateways{job="w",model="cook",state="failed"}': "0x5 1x15",
        },
        # a circuit that rests and is tried again is not down as long as answers come
        {
            LLM_STATE: "1 0 1 0 1 0 1 0 1 0 1 0 1 0 1 0 1 0 1 0",
            'waypost_failovers_total{job="w",model="cook",reason="connection"}': "0+2x20",
            'waypost_answers_total{job="w",model="cook"}': "0+20x20",
        },
        "15m",
    ),
    "WaypostErrorBudgetBurn1h": (
        {f'waypost_requests_total{{{CHAT},status="200"}}': "0+80x120",
         f'waypost_requests_total{{{CHAT},status="500"}}': "0+20x120"},
        # a burst that is over: the long window burns, the short one does not
        {f'waypost_requests_total{{{CHAT},status="200"}}': "0+80x120",
         f'waypost_requests_total{{{CHAT},status="500"}}': "0+100x30 3000+0x90"},
        "80m",
    ),
    "WaypostErrorBudgetBurn6h": (
        {f'waypost_requests_total{{{CHAT},status="200"}}': "0+90x420",
         'waypost_broken_streams_total{job="w",model="cook"}': "0+10x420"},
        {f'waypost_requests_total{{{CHAT},status="200"}}': "0+99x420",
         f'waypost_requests_total{{{CHAT},status="502"}}': "0+1x420"},
        "400m",
    ),
    "WaypostErrorBudgetBurn1d": (
        {f'waypost_requests_total{{{CHAT},status="200"}}': "0+95x1600",
         f'waypost_requests_total{{{CHAT},status="502"}}': "0+5x1600"},
        {f'waypost_requests_total{{{CHAT},status="200"}}': "0+95x1600",
         f'waypost_requests_total{{{CHAT},status="429"}}': "0+5x1600"},
        "1500m",
    ),
    "WaypostErrorBudgetBurn3d": (
        {f'waypost_requests_total{{{CHAT},status="200"}}': "0+98x4500",
         f'waypost_requests_total{{{CHAT},status="502"}}': "0+2x4500"},
        {f'waypost_requests_total{{{CHAT},status="200"}}': "0+998x4500",
         f'waypost_requests_total{{{CHAT},status="502"}}': "0+2x4500"},
        "4400m",
    ),
    "WaypostBudgetSpent": (
        {'waypost_cost_usd_total{job="w",model="cook"}': "0+0.02x1500",
         'waypost_budget_usd_per_day{job="w"}': "20x1500"},
        {'waypost_cost_usd_total{job="w",model="cook"}': "0+0.01x1500",
         'waypost_budget_usd_per_day{job="w"}': "20x1500"},
        "1490m",
    ),
    "WaypostBudgetBurn": (
        {'waypost_cost_usd_total{job="w",model="cook"}': "0+0.05x120",
         'waypost_budget_usd_per_day{job="w"}': "20x120"},
        {'waypost_cost_usd_total{job="w",model="cook"}': "0+0.05x120"},  # no budget is set
        "100m",
    ),
    "WaypostGatewayQueue": (
        {'waypost_requests_queued{job="w"}': "3x20"},
        {'waypost_requests_queued{job="w"}': "3 0 3 0 3 0 3 0 3 0 3 0 3 0 3 0"},
        "12m",
    ),
    "WaypostLLMQueue": (
        {'waypost_llm_requests_queued{job="w",model="cook"}': "3x30"},
        {'waypost_llm_requests_queued{job="w",model="cook"}': "3x5 0x25"},
        "20m",
    ),
    "WaypostShareDrift": (
        {'waypost_decisions_total{job="w",router="knn",model="cook"}': "0+10x1440 14400+0x100",
         'waypost_decisions_total{job="w",router="knn",model="tiny"}': "0x1440 0+10x100"},
        {'waypost_decisions_total{job="w",router="knn",model="cook"}': "0+10x1540",
         'waypost_decisions_total{job="w",router="knn",model="tiny"}': "0+10x1540"},
        "1535m",
    ),
    "WaypostOutOfDistribution": (
        {'waypost_decisions_total{job="w",router="knn",model="cook"}': "0+10x120",
         'waypost_out_of_distribution_decisions_total{job="w",router="knn"}': "0+5x120"},
        {'waypost_decisions_total{job="w",router="knn",model="cook"}': "0+10x120",
         'waypost_out_of_distribution_decisions_total{job="w",router="knn"}': "0+1x120"},
        "110m",
    ),
    "WaypostPredictionsOff": (
        {'waypost_rating_ratio_sum{job="w",model="cook"}': "0+0.3x200",
         'waypost_rating_ratio_count{job="w",model="cook"}': "0+1x200",
         'waypost_rated_prediction_ratio_sum{job="w",model="cook"}': "0+0.9x200",
         'waypost_rated_prediction_ratio_count{job="w",model="cook"}': "0+1x200"},
        {'waypost_rating_ratio_sum{job="w",model="cook"}': "0+0.8x200",
         'waypost_rating_ratio_count{job="w",model="cook"}': "0+1x200",
         'waypost_rated_prediction_ratio_sum{job="w",model="cook"}': "0+0.9x200",
         'waypost_rated_prediction_ratio_count{job="w",model="cook"}': "0+1x200"},
        "190m",
    ),
    "WaypostLostRecords": (
        {'waypost_lost_records_total{job="w"}': "0x5 3x15"},
        {'waypost_lost_records_total{job="w"}': "3x20"},
        "10m",
    ),
}  # fmt: skip


def test_every_alert_is_tried():
    assert set(TRIED) == {alert.name for alert in alerts()}


def only(name: str) -> dict[str, Any]:
    """Return the rules that one alert needs: promtool evaluates all rules of a file."""
    recorded, alarming = rules()["groups"]
    (alert,) = (rule for rule in alarming["rules"] if rule["alert"] == name)
    needed = [
        rule for rule in recorded["rules"] if re.search(rf"{rule['record']}(?!\w)", alert["expr"])
    ]
    return {"groups": [{"name": name, "rules": [*needed, alert]}]}


def trial(name: str, series: dict[str, str], at: str, severity: str, *, fires: bool) -> Any:
    which = f'alertname="{name}",severity="{severity}",alertstate="firing"'
    looked = {
        "expr": f"count(ALERTS{{{which}}}) > bool 0",
        "eval_time": at,
        "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
    }
    return {
        "interval": "1m",
        "name": f"{name} {'fires' if fires else 'is quiet'}",
        "input_series": [{"series": s, "values": v} for s, v in series.items()],
        "promql_expr_test": [looked],
    }


def test_every_alert_fires_and_holds_its_peace(tmp_path):
    for alert in alerts():
        loud, quiet, at = TRIED[alert.name]
        (tmp_path / f"{alert.name}.rules").write_text(yaml.safe_dump(only(alert.name)))
        content = {
            "rule_files": [f"{alert.name}.rules"],
            "evaluation_interval": "10m" if int(at[:-1]) > 300 else "1m",
            "tests": [
                trial(alert.name, loud, at, alert.severity, fires=True),
                trial(alert.name, quiet, at, alert.severity, fires=False),
            ],
        }
        (tmp_path / f"{alert.name}.yaml").write_text(yaml.safe_dump(content))
    run("test", "rules", *sorted(tmp_path.glob("*.yaml")))


def test_the_files_in_the_overlay_are_those_of_the_command(root):
    overlay = root / "k8s" / "overlays" / "monitoring"
    for name, text in files().items():
        if name != "rules.yaml":
            assert (overlay / name).read_text() == text, f"run: waypost monitoring --out {overlay}"


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda board: board.uid)
def test_a_dashboard_is_json_with_its_panels_apart(board):
    made = json.loads(json.dumps(grafana(board)))
    drawn = [panel for panel in made["panels"] if panel["type"] != "row"]
    assert [panel["title"] for panel in drawn] == [p.title for _, row in board.rows for p in row]
    ids = [panel["id"] for panel in made["panels"]]
    assert ids == sorted(set(ids))
    cells = [
        (x, y)
        for panel in made["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)), "no two overlap"
    assert all(0 <= x < 24 for x, _ in cells)


def test_titles_of_panels_differ():
    titles = [panel.title for panel in panels()]
    assert len(titles) == len(set(titles))
