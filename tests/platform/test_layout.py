"""The house: which folders there are, what each source root holds, one version everywhere."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import waypost

FOLDERS = {
    "platform", "routers", "rl", "serve_configs", "tune_configs", "k8s", "tests", "requirements",
    "docs", "findings", ".ci",
}  # fmt: skip
FILES = {
    "pyproject.toml", "README.md", "CONTRIBUTING.md", "DECISIONS.md", "CHANGELOG.md", "LICENSE",
    "Makefile", "mkdocs.yml", "runtime_env.yaml", ".gitignore", ".pre-commit-config.yaml",
}  # fmt: skip
PACKAGES = {"platform": "waypost", "routers": "waypost_routers", "rl": "waypost_rl"}
BESIDE = {"rl": {"runtime_env.yaml"}}
"""What lies beside a package: the environment of jobs that the package needs."""
TEST_FOLDERS = {"platform", "routers", "rl", "configs", "docs", "k8s", "e2e", "support"}


def entries(folder: Path) -> set[str]:
    """Names in a folder that git would take: no caches, nothing hidden."""
    names = {entry.name for entry in folder.iterdir()}
    return {name for name in names if not name.startswith((".", "__pycache__"))}


def test_the_top_level_is_what_the_architecture_lists(root: Path) -> None:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, check=True, text=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("needs a git checkout: this tree is not one, or git is not installed")
    top = {name.partition("/")[0] for name in listed.stdout.splitlines()}
    assert top == FOLDERS | FILES


@pytest.mark.parametrize(("source_root", "package"), PACKAGES.items())
def test_a_source_root_holds_one_typed_package(root: Path, source_root: str, package: str) -> None:
    assert entries(root / source_root) == {package} | BESIDE.get(source_root, set())
    assert (root / source_root / package / "py.typed").is_file()


@pytest.mark.parametrize(("source_root", "package"), PACKAGES.items())
def test_every_folder_of_a_package_is_a_package(root: Path, source_root: str, package: str) -> None:
    folders = {path.parent for path in (root / source_root / package).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def routers_imported(source: Path) -> list[str]:
    """Names of the routers that a file of waypost_routers imports; `_modules` are for all."""
    found = []
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = "waypost_routers" if node.level else ""
            whole = ".".join(part for part in (start, node.module) if part)
            names = [whole, *(f"{whole}.{alias.name}" for alias in node.names)]
        else:
            continue
        parts = [name.split(".") for name in names]
        found += [p[1] for p in parts if p[0] == "waypost_routers" and len(p) > 1]
    return [name for name in found if not name.startswith("_")]


def test_no_router_imports_another(root: Path) -> None:
    sources = (root / "routers" / "waypost_routers").rglob("*.py")
    found = {source.name: routers_imported(source) for source in sources}
    assert {name: routers for name, routers in found.items() if routers} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import waypost_routers.knnrouter",
        "from waypost_routers.knnrouter import KnnRouter",
        "from waypost_routers import knnrouter",
        "from .knnrouter import KnnRouter",
        "from . import knnrouter",
    ],
)
def test_an_import_of_another_router_is_found(tmp_path: Path, line: str) -> None:
    source = tmp_path / "some.py"
    source.write_text(line, encoding="utf-8")
    assert "knnrouter" in routers_imported(source)


def test_a_shared_module_is_no_router(tmp_path: Path) -> None:
    source = tmp_path / "some.py"
    source.write_text("from waypost_routers._neighbors.memory import Memory", encoding="utf-8")
    assert routers_imported(source) == []


def test_tests_lie_in_the_folder_of_their_area(root: Path) -> None:
    folders = {path.name for path in (root / "tests").iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} == TEST_FOLDERS


def test_test_modules_have_names_of_their_own(root: Path) -> None:
    names = [path.name for path in (root / "tests").rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_the_changelog_begins_with_the_version(root: Path) -> None:
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\d+\.\d+\.\d+)", text, flags=re.MULTILINE)
    assert newest
    assert newest[1] == waypost.__version__


def test_the_package_takes_its_version_from_the_source(root: Path) -> None:
    pyproject = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" in pyproject["project"]["dynamic"]
    source = root / pyproject["tool"]["hatch"]["version"]["path"]
    assert f'__version__ = "{waypost.__version__}"' in source.read_text(encoding="utf-8")
