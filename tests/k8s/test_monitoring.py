"""The monitoring overlay: ports that there are, dashboards, the events for TensorBoard."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from support.manifests import K8S, of_kind, rendered
from waypost.telemetry.dashboards import DASHBOARDS

OVERLAY = K8S / "overlays" / "monitoring"


@pytest.fixture(scope="module")
def fetching() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fetch_events", OVERLAY / "fetch_events.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_scraped_has_the_port(shared_data: Path) -> None:
    (service,) = of_kind(rendered("production"), "RayService")
    cluster = service["spec"]["rayClusterConfig"]
    pods = [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    for monitor in of_kind(rendered("monitoring"), "PodMonitor"):
        wanted = {
            name: value
            for name, value in monitor["spec"]["selector"]["matchLabels"].items()
            if not name.startswith("ray.io/")  # the operator sets those
        }
        chosen = [p for p in pods if wanted.items() <= p["metadata"]["labels"].items()]
        ports = {p["name"] for pod in chosen for p in pod["spec"]["containers"][0]["ports"]}
        assert {end["port"] for end in monitor["spec"]["podMetricsEndpoints"]} <= ports


def test_the_dashboards_are_in_a_config_map_that_grafana_finds() -> None:
    maps = {m["metadata"]["name"]: m for m in of_kind(rendered("monitoring"), "ConfigMap")}
    found = maps["waypost-dashboards"]
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    titles = {json.loads(text)["title"] for text in found["data"].values()}
    assert titles == {board.title for board in DASHBOARDS}


def test_events_are_copied_once_and_again_where_they_grew(fetching, tmp_path: Path) -> None:
    runs, events = tmp_path / "runs", tmp_path / "events"
    (runs / "mlp" / "trial").mkdir(parents=True)
    (runs / "mlp" / "trial" / "events.out.tfevents.1").write_bytes(b"one")
    (runs / "mlp" / "trial" / "checkpoint.bin").write_bytes(b"large")
    known: dict[str, int] = {}
    fetching.copy_events(runs.as_uri(), events, known)
    copied = [path for path in events.rglob("*") if path.is_file()]
    assert [path.relative_to(events).as_posix() for path in copied] == [
        "mlp/trial/events.out.tfevents.1"
    ]
    copied[0].write_bytes(b"")
    fetching.copy_events(runs.as_uri(), events, known)
    assert copied[0].read_bytes() == b"", "what did not change is not fetched again"
    (runs / "mlp" / "trial" / "events.out.tfevents.1").write_bytes(b"one and two")
    fetching.copy_events(runs.as_uri(), events, known)
    assert copied[0].read_bytes() == b"one and two"


def test_a_store_without_runs_is_no_error(fetching, tmp_path: Path) -> None:
    fetching.copy_events((tmp_path / "none").as_uri(), tmp_path / "events", {})
