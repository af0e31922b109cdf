"""What a file of the gateway in one process may hold; all that needs Ray is told at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from waypost.contracts.errors import ConfigError
from waypost.serve.local.config import read_local

LLM = {"name": "cook", "engine": "echo"}


def serve_file(**more) -> dict:
    args = {"artifact": "somewhere", "pool": [LLM], **more.pop("args", {})}
    app = {"import_path": "waypost.serve.app:build", "args": args, **more.pop("app", {})}
    return {"applications": [app], **more}


def faults(*source, **given) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        read_local(*source, **given)
    return {fault.where.removeprefix("Gateway: "): fault.problem for fault in caught.value.faults}


def test_a_serve_file_and_its_arguments_alone_are_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    http = {"host": "0.0.0.0", "port": 8123}
    path.write_text(yaml.safe_dump(serve_file(http_options=http, app={"route_prefix": "/way"})))
    whole = read_local(path)
    assert (whole.url, whole.path) == ("http://0.0.0.0:8123/way", path)
    assert whole.where == f"{path}: applications.0.args"
    alone = read_local({"artifact": "somewhere", "pool": [LLM]})
    assert alone.url == "http://127.0.0.1:8000"
    assert alone.args == whole.args
    assert read_local(path, port=9000).port == 9000


def test_llms_and_router_run_in_the_process() -> None:
    args = read_local(serve_file()).args
    assert {entry.placement for entry in args.pool} == {args.router.placement} == {"inline"}


def test_what_is_given_replaces_what_the_file_has() -> None:
    found = read_local(serve_file(args={"while_loading": "pass"}), {"routers": {"one": "there"}})
    assert (found.args.artifact, found.args.routers) == (None, {"one": "there"})
    assert found.args.while_loading == "pass"


def test_llms_of_the_other_tier_may_need_ray(monkeypatch) -> None:
    more = {"name": "big", "engine": "transformers", "config": {"model": "a/b"}, "tier": "full"}
    assert [
        entry.name for entry in read_local(serve_file(args={"pool": [LLM, more]})).args.pool
    ] == ["cook"]


def test_every_setting_that_needs_ray_is_a_fault_that_says_what_to_do() -> None:
    local = {"name": "small", "engine": "transformers", "config": {"model": "a/b"}}
    other = {"name": "other", "engine": "echo", "environment": "router-r1", "num_replicas": 2}
    args = {
        "pool": [local, other],
        "router": {"autoscaling": {"max_replicas": 2}},
        "gateway": {"ingress": "serve", "port": 9001},
        "feedback_dir": "feedback",
        "store_place": "head",
    }
    app = {
        "runtime_env": {},
        "deployments": [{"name": "Gateway", "num_replicas": 2}],
    }
    found = faults(serve_file(args=args, app=app, proxy_location="HeadOnly"))
    place = "applications.0"
    assert set(found) == {
        "proxy_location",
        f"{place}.runtime_env",
        f"{place}.deployments.0.num_replicas",
        f"{place}.args: pool.0.engine",
        f"{place}.args: pool.1.environment",
        f"{place}.args: pool.1.num_replicas",
        f"{place}.args: router.autoscaling",
        f"{place}.args: gateway.ingress",
        f"{place}.args: gateway.port",
        f"{place}.args: store_place",
    }
    assert "engine: openai" in found[f"{place}.args: pool.0.engine"]
    without_port = {key: problem for key, problem in found.items() if "gateway.port" not in key}
    assert all("without --local" in problem for problem in without_port.values())


def test_two_applications_are_too_many() -> None:
    data = serve_file()
    found = faults({**data, "applications": data["applications"] * 2})
    assert "found 2: write a file of each" in found["applications"]


@pytest.mark.parametrize(
    ("data", "place", "problem"),
    [
        (serve_file(prot=1), "prot", "unknown key"),
        (serve_file(app={"nam": "x"}), "applications.0.nam", "unknown key (did you mean 'name'?)"),
        (serve_file(app={"import_path": "a:b"}), "applications.0.import_path", "expected waypost."),
        (serve_file(app={"route_prefix": "way"}), "applications.0.route_prefix", "begins with /"),
        (serve_file(http_options={"port": "x"}), "http_options.port", "from 1 to 65535"),
        (serve_file(http_options={"host": 1}), "http_options.host", "such as 127.0.0.1"),
        (serve_file(http_options={"root_path": "/"}), "http_options.root_path", "needs Ray"),
        (serve_file(http_options=3), "http_options", "found a number"),
        ({"applications": []}, "applications", "expected a list of one"),
        ({"applications": [3]}, "applications.0", "found a number"),
        ({"pool": [LLM], "artifct": "x"}, "artifct", "did you mean 'artifact'?"),
        ({"artifact": "x", "pool": [{"name": "a", "engine": "opnai"}]}, "pool.0.engine", "openai"),
    ],
)
def test_a_wrong_key_is_told_with_its_place(data, place, problem) -> None:
    assert problem in faults(data)[place]
