"""`import waypost` is light, and every public name resolves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import waypost

HEAVY = (
    "numpy", "pandas", "sklearn", "torch", "ray", "transformers", "pyarrow", "safetensors",
)  # fmt: skip


def loaded_after(statement: str, cwd: Path) -> list[str]:
    """Return which heavy libraries a fresh interpreter holds after a statement."""
    script = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=cwd, capture_output=True, check=True, text=True
    )
    modules = json.loads(done.stdout.splitlines()[-1])
    return [name for name in HEAVY if name in modules]


def test_importing_waypost_loads_no_library(tmp_path: Path) -> None:
    assert loaded_after("import waypost", tmp_path) == []


def test_importing_the_router_and_rl_packages_loads_no_library(tmp_path: Path) -> None:
    assert loaded_after("import waypost_routers, waypost_rl", tmp_path) == []


def test_listing_the_routers_loads_none_of_their_libraries(tmp_path: Path) -> None:
    loaded = loaded_after("from waypost.registry import list_routers; list_routers()", tmp_path)
    assert set(loaded) <= {"numpy", "pyarrow"}  # contracts may use these two


def test_the_contracts_load_only_what_they_may(root: Path, tmp_path: Path) -> None:
    folder = root / "platform" / "waypost" / "contracts"
    modules = ", ".join(f"waypost.contracts.{path.stem}" for path in folder.glob("[a-z]*.py"))
    assert set(loaded_after(f"import {modules}", tmp_path)) <= {"numpy", "pyarrow"}


@pytest.mark.parametrize("name", waypost.__all__)
def test_a_public_name_resolves(name: str) -> None:
    assert getattr(waypost, name) is not None
    assert name in dir(waypost)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = waypost.nothing


def test_the_lazy_names_are_the_public_ones() -> None:
    assert set(waypost._HOMES) | {"__version__"} == set(waypost.__all__)


def test_private_names_of_ray_stand_in_one_file(root: Path) -> None:
    private = re.compile(
        r"(?:from|import) ray[\w.]*\._|from ray[\w.]* import .*\b_[a-z]|\bray(?:\.\w+)*\._[a-z]"
        r"|\bhandle\._|\bcall\._"
    )
    sources = [p for name in ("platform", "routers", "rl") for p in (root / name).rglob("*.py")]
    found = {p.name for p in sources if private.search(p.read_text(encoding="utf-8"))}
    assert found == {"ray_compat.py"}
