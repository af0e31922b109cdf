"""What the gateway bench starts: graphs of Waypost and servers."""

from __future__ import annotations

import sys

import pytest
import yaml

from waypost.bench import _targets as targets
from waypost.bench._processes import Server, free_ports
from waypost.bench._targets import ARTIFACT
from waypost.bench.harness import BenchError
from waypost.contracts.errors import ConfigError
from waypost.serve.config_file import validate_serve_config
from waypost.serve.plan import make_plan
from waypost.serve.port import needs_serve


@pytest.fixture
def scene(root, tmp_path):
    return targets.Scene(4000, root / ARTIFACT, tmp_path)


@pytest.mark.parametrize("mode", targets.MODES)
@pytest.mark.parametrize("placement", targets.PLACEMENTS)
def test_graphs_are_valid_and_placed_as_they_say(scene, tmp_path, placement, mode):
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump(targets.graph(placement, 8123, scene, mode)))
    config = validate_serve_config(path)
    assert config.port == 8123
    assert (needs_serve(config) is None) == (mode == "direct")
    plan = make_plan(config.args["waypost"])
    assert [model.name for model in plan.models] == list(scene.llms)
    inline = placement == "inline"
    assert plan.router_inline == inline
    assert all((model.deployment is None) == inline for model in plan.models)
    assert all(
        model.config["base_url"].startswith("http://127.0.0.1:4000") for model in plan.models
    )


def test_targets_are_chosen_by_name_and_by_placement():
    assert targets.chosen(()) == targets.ALL
    assert targets.chosen(("litellm", "inline")) == (
        "inline/direct",
        "inline/serve",
        "inline/haproxy",
        "litellm",
    )
    assert targets.chosen(("old", "portkey")) == ("portkey", "old/serve", "old/haproxy")
    assert targets.chosen(("deployments/haproxy",)) == ("deployments/haproxy",)
    with pytest.raises(ConfigError, match="no target 'nginx'; there are inline, deployments, old"):
        targets.chosen(("nginx",))


def test_a_server_that_ends_at_its_start_is_told_with_its_last_lines(tmp_path):
    (port,) = free_ports(1)
    command = [sys.executable, "-c", "print('no such option'); raise SystemExit(2)"]
    with (
        Server("it", command, port, tmp_path / "log.txt") as server,
        pytest.raises(BenchError, match=r"it ended at its start:\n  no such option"),
    ):
        server.wait(["a"], 30)


def test_a_server_that_never_answers_is_stopped(tmp_path):
    (port,) = free_ports(1)
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with (
        Server("it", command, port, tmp_path / "log.txt") as server,
        pytest.raises(BenchError, match=r"did not answer within 0.5 s \(ConnectionRefusedError\)"),
    ):
        server.wait(["a"], 0.5)
    assert server._process.poll() is not None
