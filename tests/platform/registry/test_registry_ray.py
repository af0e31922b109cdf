"""A Ray worker finds the routers that the driver finds, whichever way the code got there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.distribution import acme_wheel, build_wheel
from waypost.cli.new_router import write_plugin

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

# A driver of its own: its functions travel by value.
DRIVER = """
import json, sys
import ray


def listed():
    import sys

    import waypost
    from waypost.registry import list_routers

    rows = [[entry.name, entry.source, entry.error is None] for entry in list_routers()]
    return {"file": waypost.__file__, "rows": rows}


found = {"driver": listed()}
for name, env in json.loads(sys.argv[1]).items():  # local wheels are for a whole job only
    ray.init(log_to_driver=False, runtime_env=env)
    found[name] = ray.get(ray.remote(listed).remote())
    ray.shutdown()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(
    root: Path, ray_here: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """What the driver lists, and a worker in each environment; `file` is its waypost."""
    folder = tmp_path_factory.mktemp("ray")
    (folder / "wheel").mkdir()
    wheels = [str(acme_wheel(folder)), str(build_wheel(root, folder / "wheel"))]
    write_plugin("by_length", "plain", folder / "plugins")
    roots = [folder / "copy" / name for name in ("platform", "routers", "rl")]
    for copy in roots:
        shutil.copytree(root / copy.name, copy, ignore=shutil.ignore_patterns("__pycache__"))
    plugins = {"WAYPOST_PLUGINS": str(folder / "plugins")}
    path = ":".join(str(copy) for copy in roots)
    environments = {
        "wheel": {"py_modules": wheels, "env_vars": plugins},
        "path": {"env_vars": {**plugins, "PYTHONPATH": path}},
    }
    env = {
        **os.environ,
        **plugins,
        "RAY_ADDRESS": ray_here.get_runtime_context().gcs_address,
    }
    command = [sys.executable, "-P", "-c", DRIVER, json.dumps(environments)]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return {"folder": str(folder), **json.loads(done.stdout.splitlines()[-1])}


def test_a_worker_with_pythonpath_lists_what_the_driver_lists(found) -> None:
    assert found["path"]["file"].startswith(f"{found['folder']}/copy/platform/")
    assert found["path"]["rows"] == found["driver"]["rows"]
    assert ["by_length", "folder", True] in found["path"]["rows"]
    assert ["knnrouter", "built-in", True] in found["path"]["rows"]


def test_a_worker_with_wheels_lists_them_and_the_routers_of_the_other_wheel(found) -> None:
    assert "py_modules" in found["wheel"]["file"]
    rows = found["wheel"]["rows"]
    other = [row for row in rows if row[1] == "entry point"]
    assert sorted(other) == [
        ["acme_gone", "entry point", True],
        ["acme_needy", "entry point", True],
        ["acme_plain", "entry point", True],
        ["acme_score", "entry point", True],
        ["knnrouter", "entry point", False],
    ]
    assert [row for row in rows if row not in other] == found["driver"]["rows"]
