"""A real Prometheus beside a running graph of two gateways: sums, dashboards, alert rules, Ray."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests

from support import processes
from support.gateway import ALGEBRA, COOKING, chat, echo_pool, knn_artifact
from support.prometheus import Prometheus, prometheus
from support.served import application, by_proxy, served
from waypost.feedback.store import FLUSH_S
from waypost.serve import launch
from waypost.serve.config_file import validate_serve_config
from waypost.telemetry.alerts import alerts
from waypost.telemetry.dashboards import RATE, panels
from waypost.telemetry.files import files
from waypost.testing.steps import tiers_artifact

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

CHAT = "/v1/chat/completions"
ASKED = f'sum(waypost_requests_total{{job="%s",endpoint="{CHAT}",status="200"}})'
WINDOW = "2m"
IN_TIME_S = 60.0


def graph(folder: Path) -> dict[str, Any]:
    """Return a graph in which everything can happen that a dashboard shows."""
    routers = {
        "knn": str(knn_artifact(folder / "artifact")),
        "tiers": str(tiers_artifact(folder / "steps")),
    }
    dead = {"base_url": "http://127.0.0.1:9/v1", "model": "m", "max_retries": 0}
    pool = [{**one, "input_price": 1.0, "output_price": 2.0} for one in echo_pool()]
    pool[1] = {**pool[1], "engine": "openai", "config": dead}  # the best for ALGEBRA
    pool[0] |= {"placement": "deployment", "config": {"tokens": 4}}
    found = application(
        "watched", Path(), pool, gateway={"num_replicas": 2}, router={"placement": "inline"},
        default_router="knn", allow_plugin_code=True, sessions="on", shadow="knn",
        hedge={"quantile": 0.5, "most_share": 0.9}, metrics={"budget_usd_per_day": 20},
        feedback_dir=str(folder / "feedback"), decision_log=str(folder / "log"),
        routers=routers,
    )  # fmt: skip
    del found["args"]["artifact"]
    return {"applications": [found | {"route_prefix": "/"}]}


async def traffic(url: str) -> int:
    """Let happen what the panels need; return the number of chat requests that were answered."""
    cooking = chat(COOKING, max_tokens=8)
    bodies = [cooking] * 60
    bodies += [chat(ALGEBRA, max_tokens=8)] * 4  # failover
    bodies += [chat("xqzj vvkw")] * 4  # out of distribution
    bodies += [{**cooking, "stream": True}] * 4
    bodies += [{**cooking, "model": "tiers"}] * 4  # steps
    bodies += [{**cooking, "waypost": {"session_id": f"s{n}"}} for n in range(4)]
    async with aiohttp.ClientSession() as http:

        async def ask(body: dict[str, Any]) -> str:
            async with http.post(f"{url}{CHAT}", json=body) as reply:
                await reply.read()
                assert reply.status == 200, await reply.text()
                return reply.headers["x-waypost-request-id"]

        answered = [await ask(body) for body in bodies]
        await asyncio.sleep(2 * FLUSH_S)
        for request_id in answered[:4]:
            rating = {"request_id": request_id, "rating": 0.5}
            async with http.post(f"{url}/v1/feedback", json=rating) as reply:
                assert reply.status == 200, await reply.text()
    return len(answered)


def until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + IN_TIME_S
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.5)


def ray_pages() -> list[str]:
    """Return the addresses of the pages on which Ray's nodes tell their own metrics."""
    import ray

    return [f"{n['NodeManagerAddress']}:{n['MetricsExportPort']}" for n in ray.nodes()]


def ready(expr: str) -> str:
    return expr.replace(RATE, WINDOW).replace("$__range", WINDOW).replace("$job", "direct")


def test_prometheus_has_every_series_of_the_dashboards_and_the_sums_are_right(tmp_path):
    data = graph(tmp_path)
    with served(data, tmp_path) as url:
        config = validate_serve_config(tmp_path / "graph.yaml")
        jobs = {
            "direct": [url.removeprefix("http://")],
            "proxy": [by_proxy().removeprefix("http://")],
            "ray": ray_pages(),
        }
        with prometheus(tmp_path, jobs, files()["rules.yaml"]) as found:
            until(lambda: found.value("sum(up)") == len(jobs), "every page is scraped")
            assert len(processes.replicas("watched", "Gateway")) == 2
            count = asyncio.run(traffic(url)) + asyncio.run(traffic(by_proxy()))
            change = [{"name": "Gateway", "user_config": {"policy": {"lambda": 0.1}}}]
            config.data["applications"][0]["deployments"] = change
            launch.update(config.data)
            _check_sums(found, count)
            _check_dashboards(found)
            _check_rules(found)
            assert processes.kill("watched", "Gateway", 1)
            until(lambda: found.value('sum(waypost_gateways{job="direct"})') == 2, "it is replaced")
            _check_sums(found, count)
            assert requests.get(f"{url}/metrics", timeout=30).status_code == 200


def _check_sums(found: Prometheus, count: int) -> None:
    for job in ("direct", "proxy"):
        until(
            lambda job=job: found.value(ASKED % job) == count, f"{job}: {found.value(ASKED % job)}"
        )
        assert found.value(f'sum(waypost_gateways{{job="{job}"}})') == 2


def _check_dashboards(found: Prometheus) -> None:
    missing = [(panel.title, query.expr) for panel in panels() for query in panel.queries]

    def all_there() -> bool:
        missing[:] = [each for each in missing if not found.query(ready(each[1]))]
        return not missing

    end = time.monotonic() + IN_TIME_S
    while not all_there():
        assert time.monotonic() < end, f"no series: {missing}"
        time.sleep(1)


def _check_rules(found: Prometheus) -> None:
    rules = found.rules()
    assert [rule["health"] for rule in rules] == ["ok"] * len(rules)
    assert {alert.name for alert in alerts()} < {rule["name"] for rule in rules}
    recorded = found.query('waypost:share:ratio_rate1h{job="direct",router="knn"}')
    assert sum(float(one["value"][1]) for one in recorded) == pytest.approx(1.0)
