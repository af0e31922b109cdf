"""What the two shipped graphs promise beyond being valid."""

from __future__ import annotations

from pathlib import Path

import pytest

from waypost.config import settings
from waypost.contracts.tables import read_llms
from waypost.serve.app import node_options
from waypost.serve.config import ServeArgs
from waypost.serve.config_file import validate_serve_config
from waypost.serve.plan import make_plan, served_entries

NAMES = ["smollm2-135m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"]


def arguments(root: Path, name: str) -> ServeArgs:
    return validate_serve_config(root / "serve_configs" / name).args["waypost"]


@pytest.mark.parametrize(("pool", "count"), [("small", 2), ("full", 3)])
def test_the_main_graph_serves_two_models_and_the_third_under_pool_full(
    root, monkeypatch, pool, count
):
    monkeypatch.setenv("WAYPOST_POOL", pool)
    settings.cache_clear()
    entries = served_entries(arguments(root, "router.yaml"))
    assert [entry.name for entry in entries] == NAMES[:count]


def test_the_main_graph_fits_a_machine_of_two_cores(root):
    args = arguments(root, "router.yaml")
    nodes = [args.gateway, args.router, *args.pool]
    assert sum(node_options(node)["ray_actor_options"]["num_cpus"] for node in nodes) < 2


def test_the_main_graph_routes_with_the_shipped_artifact_at_its_prices(root, monkeypatch):
    monkeypatch.setenv("WAYPOST_ROOT", str(root))
    monkeypatch.setenv("WAYPOST_POOL", "full")
    settings.cache_clear()
    args = arguments(root, "router.yaml")
    assert make_plan(args).router_names == ("knnrouter",)
    listed = read_llms(root / "serve_configs" / "starter" / "data" / "llms.json")
    prices = {llm.name: (llm.input_price, llm.output_price) for llm in listed}
    assert prices == {entry.name: (entry.input_price, entry.output_price) for entry in args.pool}


def test_the_remote_pool_runs_in_the_gateway_and_names_services_not_keys(root):
    args = arguments(root, "openai_pool.yaml")
    assert args.router.placement == "inline"
    assert {entry.placement for entry in args.pool} == {"inline"}
    assert make_plan(args).router_names == ("difficulty",)  # which needs no training
    services = [entry.config["service"] for entry in args.pool if "service" in entry.config]
    assert services == ["openai", "deepseek"]


def test_the_vllm_pool_is_known_to_the_starter_router_and_runs_in_the_pinned_environment(root):
    args = arguments(root, "vllm_pool.yaml")
    main = arguments(root, "router.yaml")
    assert {(entry.engine, entry.environment) for entry in args.pool} == {("vllm", "router-r1")}
    assert [entry.name for entry in args.pool] == NAMES[:2]
    prices = {entry.name: (entry.input_price, entry.output_price) for entry in main.pool}
    assert all(prices[e.name] == (e.input_price, e.output_price) for e in args.pool)
    assert args.artifact == main.artifact
