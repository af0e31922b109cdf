"""The lock, the extras and the source say the same about which packages are needed."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from waypost.contracts.errors import MissingExtraError

# Lock -> the extras it locks, beside the base.
LOCKED_EXTRAS = {
    "main": ("gateway", "serve", "train", "data", "tune", "chat", "dev", "docs"),
    "router-r1": ("router-r1",),
    "vllm-cpu": (),
}
PACKAGES = ("platform/waypost", "routers/waypost_routers", "rl/waypost_rl")
# Brought along, in the one version that fits, by what is declared.
PARTS = {"pydantic-core": "pydantic"}
ACCELERATORS = re.compile(r"(nvidia-.*-cu\d+|cuda-|triton)")
LINE = re.compile(r"[a-z0-9.-]+==[0-9][a-z0-9.]*(; sys_platform == \"linux\")?")


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return loaded["project"]


@pytest.fixture(scope="module")
def extras(project: dict[str, Any]) -> dict[str, dict[str, Requirement]]:
    """Requirements of each extra by canonical name; "" is the base."""
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    return {
        extra: {canonicalize_name(r.name): r for r in map(Requirement, texts)}
        for extra, texts in groups.items()
    }


@pytest.fixture(scope="module", params=LOCKED_EXTRAS)
def name(request: pytest.FixtureRequest) -> str:
    """Name of each lock."""
    return str(request.param)


@pytest.fixture(scope="module")
def lock(root: Path, name: str) -> list[str]:
    lines = (root / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_the_lock_holds_exact_versions_and_nothing_else(lock: list[str]) -> None:
    assert [line for line in lock if not LINE.fullmatch(line)] == []


def test_the_lock_is_sorted_and_names_each_package_once(lock: list[str]) -> None:
    names = [canonicalize_name(line.partition("==")[0]) for line in lock]
    assert len(set(names)) == len(names)
    assert lock == sorted(lock)


def test_the_lock_leaves_accelerator_libraries_to_torch(lock: list[str]) -> None:
    assert [line for line in lock if ACCELERATORS.match(line)] == []


def test_the_lock_satisfies_the_base_and_the_locked_extras(
    name: str, lock: list[str], extras: dict[str, dict[str, Requirement]]
) -> None:
    locked = {
        canonicalize_name(line.partition("==")[0]): line.partition("==")[2].partition(";")[0]
        for line in lock
    }
    wanted = [r for extra in ("", *LOCKED_EXTRAS[name]) for r in extras[extra].values()]
    missing = [str(r) for r in wanted if locked.get(canonicalize_name(r.name)) is None]
    assert missing == []
    other = [str(r) for r in wanted if locked[canonicalize_name(r.name)] not in r.specifier]
    assert other == []


def test_ray_is_the_same_in_every_environment(
    lock: list[str], extras: dict[str, dict[str, Requirement]]
) -> None:
    assert f"ray{extras['router-r1']['ray'].specifier}" in lock


def test_the_base_is_light(extras: dict[str, dict[str, Requirement]]) -> None:
    assert not {"torch", "ray", "transformers", "scikit-learn", "pandas"} & set(extras[""])


def test_what_serves_on_ray_has_all_that_serves_without(
    extras: dict[str, dict[str, Requirement]],
) -> None:
    assert {str(r) for r in extras["gateway"].values()} <= {
        str(r) for r in extras["serve"].values()
    }


distributions = cache(packages_distributions)  # reads the list of files of every package


@cache
def nodes(source: Path) -> list[ast.AST]:
    """Return the nodes of a module that import or call."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    return [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom | ast.Call)]


def imported(source: Path) -> set[str]:
    """Top-level names that a module imports, at any depth of its code."""
    found: set[str] = set()
    for node in nodes(source):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_every_package_that_the_source_imports_is_declared(
    root: Path, extras: dict[str, dict[str, Requirement]]
) -> None:
    declared = {name for group in extras.values() for name in group}
    declared |= {part for part, whole in PARTS.items() if whole in declared}
    providers = distributions()
    ours = {Path(package).name for package in PACKAGES}
    undeclared = set()
    for package in PACKAGES:
        for source in (root / package).rglob("*.py"):
            for module in imported(source) - sys.stdlib_module_names - ours:
                names = {canonicalize_name(name) for name in providers.get(module, [module])}
                if not names & declared:
                    undeclared.add(f"{source.relative_to(root)}: {module}")
    assert sorted(undeclared) == []


def named_extras(root: Path) -> set[tuple[str, str]]:
    """(module, extra) of every MissingExtraError that the source builds from plain text."""
    found = set()
    for package in PACKAGES:
        for source in (root / package).rglob("*.py"):
            for node in nodes(source):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                    continue
                values = [a.value for a in node.args if isinstance(a, ast.Constant)]
                if node.func.id == MissingExtraError.__name__ and len(values) == 2:
                    found.add((str(values[0]), str(values[1])))
    return found


def test_a_missing_extra_names_the_extra_that_holds_the_package(
    root: Path, extras: dict[str, dict[str, Requirement]]
) -> None:
    providers = distributions()
    wrong = []
    for module, extra in named_extras(root):
        top = module.partition(".")[0]
        names = {canonicalize_name(name) for name in (*providers.get(top, []), top)}
        if not names & set(extras.get(extra, {})):
            wrong.append((module, extra))
    assert wrong == []


@pytest.mark.parametrize("extra", ["gateway", "serve", "train", "data", "tune", "router-r1"])
def test_the_command_of_a_missing_extra_is_one_that_pip_takes(
    extra: str, project: dict[str, Any]
) -> None:
    command = MissingExtraError("module", extra).command
    tool, action, requirement = command.replace('"', "").split()
    assert (tool, action) == ("pip", "install")
    assert Requirement(requirement).name == project["name"]
    assert Requirement(requirement).extras == {extra}


def test_without_a_usable_python_the_message_says_what_to_install(root: Path) -> None:
    done = subprocess.run(
        ["sh", "requirements/find_python.sh"],
        cwd=root,
        capture_output=True,
        check=False,
        text=True,
        env={**os.environ, "PYTHON": "no-such-python"},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "no-such-python" in done.stderr
    assert "needs Python 3.11 or 3.12" in done.stderr


def test_the_python_found_is_one_that_the_package_admits(root: Path) -> None:
    command = ["sh", "requirements/find_python.sh"]
    done = subprocess.run(command, cwd=root, capture_output=True, check=True, text=True)
    script = "import sys; print(*sys.version_info[:2])"
    version = subprocess.run([done.stdout.strip(), "-c", script], capture_output=True, text=True)
    assert version.stdout.split() in (["3", "11"], ["3", "12"])
