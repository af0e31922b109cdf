"""What `waypost new-router` writes passes its own tests, as it is, where a user would run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    # pytest-asyncio warns where no loop scope is chosen; users without it see nothing
    quiet = {**env, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    words = [sys.executable, "-P", "-m", *command]
    return subprocess.run(words, cwd=folder, env=quiet, capture_output=True, text=True, check=False)


def test_both_kinds_pass_their_tests_side_by_side(tmp_path: Path) -> None:
    for name, kind in (("mine", "score"), ("by_length", "plain")):
        made = run(tmp_path, "waypost.cli", "new-router", name, "--kind", kind)
        assert made.returncode == 0, made.stderr
        assert f"next: pytest custom_routers/{name}" in made.stdout
    tested = run(tmp_path, "pytest", "-q", "custom_routers", "-W", "error")
    assert tested.returncode == 0, tested.stdout
    assert "failed" not in tested.stdout
    # the whole contract battery, and each file's own tests
    assert int(tested.stdout.split(" passed")[0].split()[-1]) >= 30


def test_a_changed_router_that_breaks_the_contract_fails_them(tmp_path: Path) -> None:
    run(tmp_path, "waypost.cli", "new-router", "mine")
    source = tmp_path / "custom_routers" / "mine" / "router.py"
    source.write_text(source.read_text().replace("quality.clip(0, 1)", "quality + 1"))
    tested = run(tmp_path, "pytest", "-q", "custom_routers/mine")
    assert tested.returncode == 1
    assert "check_prediction_has_the_agreed_form" in tested.stdout


def test_from_another_folder_and_from_inside_it(tmp_path: Path) -> None:
    run(tmp_path, "waypost.cli", "new-router", "by_length", "--kind", "plain", "--dir", "plugs")
    inside = run(tmp_path / "plugs" / "by_length", "pytest", "-q")
    assert inside.returncode == 0, inside.stdout
