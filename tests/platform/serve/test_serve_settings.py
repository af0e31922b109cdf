"""The arguments of the graph and the plan that is made of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.gateway import arguments, echo_pool
from waypost.config import parse, settings
from waypost.contracts.errors import ArtifactFormatError, ConfigError, PoolMismatchError
from waypost.contracts.generation import deployment_name
from waypost.serve.app import node_options
from waypost.serve.config import ServeArgs
from waypost.serve.environments import interpreter
from waypost.serve.plan import Plan, make_plan
from waypost.serve.replicas import NodeArgs


def faults(data: dict) -> str:
    with pytest.raises(ConfigError) as caught:
        make_plan(parse(ServeArgs, data, "args"))
    return str(caught.value)


def entry(**fields) -> dict:
    return {"name": "cook", "engine": "echo"} | fields


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"pool": []}, "args: pool: "),
        ({"pool": [entry(engnie="x")]}, "args: pool.0.engnie: unknown key"),
        ({"pool": [entry(engine="gpt")]}, "args: pool.0.engine: no engine is named 'gpt'"),
        ({"pool": [entry(config={"delay": 1})]}, "args: pool.0.config: delay: unknown key"),
        ({"pool": [entry(input_price=-1)]}, "args: pool.0.input_price"),
        ({"pool": [entry(input_price=1)]}, "give both prices or none"),
        ({"pool": [entry(), entry()]}, "pool: cook stands there twice"),
        ({"pool": [entry(name="auto")]}, "is the name of a router"),
        ({"pool": [entry(name="knnrouter")]}, "is the name of a router"),
        ({"pool": [entry(name="Router")]}, "rename it"),
        ({"pool": [entry(name="a b"), entry(name="a/b")]}, "its deployment would be named a-b"),
        (
            {"pool": [entry(num_replicas=2, autoscaling={})]},
            "num_replicas or autoscaling, not both",
        ),
        (
            {"pool": [entry(max_ongoing_requests=4, autoscaling={"target_ongoing_requests": 5})]},
            "target_ongoing_requests is above max_ongoing_requests (4)",
        ),
        ({"pool": [entry(autoscaling={"min_replicas": 3})]}, "min_replicas is above max_replicas"),
        (
            {"pool": [entry(engine="transformers", placement="inline")]},
            "args: pool.0.placement: inline is for engines whose answers come from elsewhere; ",
        ),
        (
            {"pool": [entry(placement="inline", num_replicas=2, environment="x")]},
            "placement inline has no replica: remove environment, num_replicas",
        ),
        ({"gateway": {"max_ongoing_requests": 5}}, "set limits.max_in_flight"),
        ({"artifact": None}, "give one of: artifact"),
        ({"routers": {"r": "x"}}, "give one of: artifact"),
        ({"artifact": None, "routers": {"r": "x"}, "default_router": "s"}, "'s' is not under"),
        ({"policy": {"allowed_models": ["x"]}}, "policy.allowed_models: x is not in the pool"),
        ({"policy": {"lambda": -1}}, "args: policy.lambda"),
        ({"policy": {"exploration": 2}}, "args: policy.exploration"),
        ({"route_on": "last"}, "args: route_on"),
        ({"limits": {"max_bodybytes": 1}}, "args: limits.max_bodybytes: unknown key"),
        ({"router": {"threads": 99}}, "args: router.threads"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_named(artifact, changes, told):
    assert told in faults(arguments(artifact) | changes)


def test_every_fault_of_the_pool_is_told_at_once(artifact):
    pool = [entry(engine="gpt"), entry(name="b", config={"x": 1}, input_price=1)]
    told = faults(arguments(artifact, pool=pool))
    assert all(part in told for part in ("pool.0.engine", "pool.1.config: x", "give both prices"))


def test_a_model_that_no_router_knows_does_not_start(artifact):
    pool = [*echo_pool(), entry(name="stranger")]
    with pytest.raises(PoolMismatchError, match="no router was trained on stranger"):
        make_plan(ServeArgs.model_validate(arguments(artifact, pool=pool)))


def test_a_folder_that_is_no_artifact_does_not_start(tmp_path):
    with pytest.raises(ArtifactFormatError, match=r"no manifest\.json"):
        make_plan(ServeArgs.model_validate(arguments(tmp_path)))


def test_relative_paths_travel_as_absolute_ones(artifact, monkeypatch):
    monkeypatch.setenv("WAYPOST_ROOT", str(artifact.parent))
    settings.cache_clear()
    changed = arguments(Path(artifact.name), feedback_dir="rated")
    plan = make_plan(ServeArgs.model_validate(changed))
    assert plan.router.artifacts == {"knnrouter": str(artifact)}
    assert plan.feedback_dir == str(artifact.parent / "rated")


def test_prices_are_the_pools_else_the_artifacts(artifact):
    pool = echo_pool()
    pool[0] |= {"input_price": 7, "output_price": 9}
    plan = make_plan(ServeArgs.model_validate(arguments(artifact, pool=pool)))
    prices = {name: found.prices for name, found in plan.router.prices.items()}
    assert prices == {"cook": (7, 9), "prover": (1.0, 4.0), "tiny": (0.05, 0.1)}


@pytest.mark.parametrize(("pool", "served"), [("small", 2), ("full", 3)])
def test_entries_of_tier_full_are_served_under_waypost_pool_full(
    artifact, monkeypatch, pool, served
):
    monkeypatch.setenv("WAYPOST_POOL", pool)
    settings.cache_clear()
    entries = echo_pool()
    entries[2]["tier"] = "full"
    plan = make_plan(ServeArgs.model_validate(arguments(artifact, pool=entries)))
    assert len(plan.models) == served


def test_another_waypost_pool_is_named(artifact, monkeypatch):
    monkeypatch.setenv("WAYPOST_POOL", "huge")
    settings.cache_clear()
    assert "WAYPOST_POOL: is 'huge'; expected small or full" in faults(arguments(artifact))


def test_an_allowed_model_of_the_other_tier_alone_leaves_nothing(artifact):
    entries = echo_pool()
    entries[2]["tier"] = "full"
    changed = arguments(artifact, pool=entries, policy={"allowed_models": ["tiny"]})
    assert "none of them is served" in faults(changed)


def test_a_plan_survives_as_plain_data(artifact):
    plan = make_plan(ServeArgs.model_validate(arguments(artifact, policy={"lambda": 0.5})))
    assert parse(Plan, plan.model_dump(mode="json", by_alias=True)) == plan


def test_several_routers_go_by_their_names_the_default_first(artifact):
    changed = arguments(artifact) | {
        "artifact": None,
        "routers": {"one": str(artifact), "two": str(artifact)},
        "default_router": "two",
    }
    assert make_plan(ServeArgs.model_validate(changed)).router_names == ("two", "one")


def test_a_deployment_is_named_after_its_model():
    assert deployment_name("qwen2.5-coder-0.5b") == "qwen2.5-coder-0.5b"
    assert deployment_name("org/model: big #1") == "org-model-big-1"


def test_the_options_of_a_deployment_ask_for_a_tenth_of_a_cpu():
    options = node_options(NodeArgs())
    assert options["ray_actor_options"] == {"num_cpus": 0.1, "num_gpus": 0.0}
    assert options["num_replicas"] == 1


def test_autoscaling_replaces_the_number_of_replicas():
    options = node_options(NodeArgs.model_validate({"autoscaling": {"max_replicas": 4}}))
    assert "num_replicas" not in options
    assert options["autoscaling_config"]["max_replicas"] == 4


# other environments


def test_a_model_without_its_environment_is_left_out_and_the_rest_is_served(artifact, root_here):
    pool = [*echo_pool()[:2], entry(name="tiny", environment="other")]
    plan = make_plan(ServeArgs.model_validate(arguments(artifact, pool=pool)))
    assert plan.router.served == ("cook", "prover")
    tiny = plan.models[2]
    assert tiny.deployment is None
    assert "run `make env-other`" in tiny.unavailable


@pytest.fixture
def root_here(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("WAYPOST_ROOT", str(tmp_path))
    monkeypatch.delenv("WAYPOST_ENV_OTHER", raising=False)
    settings.cache_clear()
    return tmp_path


def python(path: Path, prints: str) -> Path:
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\necho '{prints}'\n")
    path.chmod(0o755)
    return path


def test_a_missing_environment_names_the_make_target(artifact, root_here):
    told = faults(arguments(artifact, pool=[entry(environment="other")]))
    assert "args: pool.0.environment: environment other: " in told
    assert f"{root_here / '.venv-other' / 'bin' / 'python'} does not exist" in told
    assert "run `make env-other`" in told


def test_an_environment_with_another_ray_or_python_is_refused(root_here):
    python(
        root_here / ".venv-other" / "bin" / "python",
        '{"python": [3, 9], "ray": "1.0", "waypost": null}',
    )
    with pytest.raises(ConfigError) as caught:
        interpreter("other", "pool")
    told = str(caught.value)
    assert all(part in told for part in ("python 3.9", "ray 1.0", "no waypost", "make env-other"))


def test_an_interpreter_that_does_not_run_is_named(root_here):
    python(root_here / ".venv-other" / "bin" / "python", "no JSON")
    with pytest.raises(ConfigError, match="does not run"):
        interpreter("other", "pool")


@pytest.mark.parametrize("by_folder", [False, True])
def test_this_interpreter_is_found_by_its_variable(root_here, monkeypatch, by_folder):
    given = Path(sys.executable).parent.parent if by_folder else Path(sys.executable)
    monkeypatch.setenv("WAYPOST_ENV_OTHER", str(given))
    settings.cache_clear()
    assert interpreter("other", "pool").samefile(sys.executable)
