"""A Serve file is checked whole and strictly."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from waypost.contracts.errors import ConfigError
from waypost.serve.config_file import validate_serve_config

GOOD = {
    "http_options": {"host": "127.0.0.1", "port": 8000},
    "applications": [
        {
            "name": "waypost",
            "route_prefix": "/",
            "import_path": "waypost.serve.app:build",
            "args": {"artifact": "a", "pool": [{"name": "m 1", "engine": "echo"}]},
            "deployments": [
                {"name": "Gateway", "user_config": {"policy": {"lambda": 0.5}}},
                {"name": "m-1", "num_replicas": 2},
                {"name": "Router", "user_config": {"policy": {"lambda": 0.5}}},
            ],
        }
    ],
}


def test_a_name_twice_is_told_beside_a_wrong_engine_and_a_wrong_key(tmp_path):
    pool = [
        {"name": "a", "engine": "opnai"},
        {"name": "a", "engine": "openai", "config": {"base_url": "x/v1", "model": "m"}},
    ]
    args = {"artifact": "x", "pool": pool, "limits": {"max_in_flight": "many"}}
    app = {"name": "app", "import_path": "waypost.serve.app:build", "args": args}
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump({"http_options": {"host": "127.0.0.1"}, "applications": [app]}))
    with pytest.raises(ConfigError) as caught:
        validate_serve_config(path)
    said = str(caught.value)
    for part in ("a stands there twice", "did you mean 'openai'?", "base_url", "found 'many'"):
        assert part in said


def changed(*path, to) -> dict:
    data = copy.deepcopy(GOOD)
    node = data
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = to
    return data


def told(data: dict, tmp_path: Path) -> str:
    path = tmp_path / "file.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError) as caught:
        validate_serve_config(path)
    return str(caught.value).replace(f"{path}: ", "")


APP = ("applications", 0)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (changed("proxylocation", to="HeadOnly"), "proxylocation: unknown key"),
        (changed("http_options", "prot", to=1), "http_options.prot: unknown key"),
        (changed("http_options", to={"port": 1}), "http_options.host: missing"),
        (changed("http_options", "port", to="x"), "http_options.port: "),
        (changed(*APP, "routeprefix", to="/"), "applications.0.routeprefix: unknown key"),
        (changed(*APP, "deployments", 0, "replicas", to=1), "deployments.0.replicas: unknown key"),
        (
            changed(*APP, "deployments", 0, "ray_actor_options", to={"cpus": 1}),
            "deployments.0.ray_actor_options.cpus: unknown key",
        ),
        (
            changed(*APP, "deployments", 0, "autoscaling_config", to={"max": 1}),
            "deployments.0.autoscaling_config.max: unknown key",
        ),
        (
            changed(
                *APP,
                "deployments",
                1,
                to={
                    "name": "m-1",
                    "max_ongoing_requests": 2,
                    "autoscaling_config": {"target_ongoing_requests": 3},
                },
            ),
            "target_ongoing_requests: is above max_ongoing_requests (2)",
        ),
        (
            changed(*APP, "deployments", 1, "name", to="m 1"),
            "deployments.1.name: no such deployment (did you mean 'm-1'?); there are",
        ),
        (changed(*APP, "deployments", 1, "user_config", to={}), "m-1 takes none"),
        (
            changed(*APP, "deployments", 0, "user_config", "polcy", to={}),
            "deployments.0.user_config: polcy: unknown key",
        ),
        (
            changed(*APP, "deployments", 2, "user_config", "policy", "lambda", to=1),
            "applications.0.deployments: Gateway, Router take the same user_config",
        ),
        (changed(*APP, "args", "polcy", to={}), "applications.0.args: polcy: unknown key"),
        (
            changed(*APP, "args", "pool", 0, "config", to={"x": 1}),
            "applications.0.args: pool.0.config: x: unknown key",
        ),
        (changed(*APP, "args", "store_place", to="head"), "set feedback_dir, too"),
        (changed(*APP, "args", "store_place", to="heads"), "heads: did you mean head?"),
        (
            changed(*APP, "args", "feedback_dir", to="s3://bucket/f"),
            "applications.0.args: feedback_dir: expected a folder on a disk of the machine",
        ),
        (
            changed(*APP, "args", "route_clean", to=[{"start": "<a>"}]),
            "applications.0.args: route_clean.0.end: missing",
        ),
        (
            changed(*APP, "args", "route_clean", to=["claude"]),
            "applications.0.args: route_clean.0: no marks are known by that name; known: claude-",
        ),
        (changed(*APP, "args", to=None), "applications.0.args: pool: missing"),
        (changed("applications", to=None), "applications: "),
        (changed("applications", to=[3]), "applications.0: "),
    ],
)
def test_a_fault_is_named_by_its_key(data, fault, tmp_path):
    assert fault in told(data, tmp_path)


def test_all_faults_of_all_levels_are_told_at_once(tmp_path):
    data = changed("typo", to=1)
    data["http_options"] = {"hots": "x"}
    data["applications"][0]["args"]["pool"][0] |= {"config": {"y": 1}, "tire": "full"}
    found = told(data, tmp_path)
    for part in (
        "typo",
        "http_options.hots",
        "http_options.host",
        "pool.0.config: y",
        "pool.0.tire",
    ):
        assert part in found


def test_a_good_file_gives_its_arguments(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    config = validate_serve_config(path)
    assert (config.host, config.port) == ("127.0.0.1", 8000)
    assert config.args["waypost"].pool[0].name == "m 1"


def test_a_port_may_replace_that_of_the_file(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    config = validate_serve_config(path, 8123)
    assert config.port == config.data["http_options"]["port"] == 8123


def test_an_import_path_of_ours_that_is_not_the_builder_is_a_fault(tmp_path):
    found = told(changed(*APP, "import_path", to="waypost.serve.app:buld"), tmp_path)
    assert found == (
        "applications.0.import_path: expected waypost.serve.app:build "
        "(found waypost.serve.app:buld)"
    )


def test_an_application_of_someone_else_is_left_to_them(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text(
        yaml.safe_dump(changed(*APP, to={"import_path": "other:app", "args": {"x": 1}}))
    )
    assert validate_serve_config(path).args == {}
