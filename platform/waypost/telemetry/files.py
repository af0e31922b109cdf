"""The files of ``waypost monitoring``: alert rules and dashboards."""

from __future__ import annotations

import json
from typing import Any

import yaml

from waypost.telemetry.alerts import rules
from waypost.telemetry.dashboards import DASHBOARDS, grafana

HEADER = "# Written by: waypost monitoring\n"


def files() -> dict[str, str]:
    """Return the text of each file by its path in the folder."""
    made = {
        f"dashboards/{board.uid}.json": json.dumps(grafana(board), indent=1) + "\n"
        for board in DASHBOARDS
    }
    found = rules()
    labels = {
        "app.kubernetes.io/name": "waypost",
        "app.kubernetes.io/part-of": "waypost",
        "app.kubernetes.io/component": "monitoring",
    }
    operator = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "waypost", "labels": labels},
        "spec": found,
    }
    return made | {"rules.yaml": _yaml(found), "prometheusrule.yaml": _yaml(operator)}


def _yaml(content: dict[str, Any]) -> str:
    return HEADER + yaml.safe_dump(content, sort_keys=False, width=100)
