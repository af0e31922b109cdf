"""The house: which folders there are, what each source root holds, one version everywhere."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import waypost

FOLDERS = {
    "platform", "routers", "rl", "serve_configs", "tune_configs", "k8s", "tests", "requirements",
    ".ci",
}  # fmt: skip
FILES = {
    "pyproject.toml", "README.md", "CONTRIBUTING.md", "DECISIONS.md", "CHANGELOG.md", "LICENSE",
    "Makefile", ".gitignore", ".pre-commit-config.yaml",
}  # fmt: skip
PACKAGES = {"platform": "waypost", "routers": "waypost_routers", "rl": "waypost_rl"}
TEST_FOLDERS = {"platform", "routers", "rl", "configs", "k8s", "e2e"}


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
    assert entries(root / source_root) == {package}
    assert (root / source_root / package / "py.typed").is_file()


@pytest.mark.parametrize(("source_root", "package"), PACKAGES.items())
def test_every_folder_of_a_package_is_a_package(root: Path, source_root: str, package: str) -> None:
    folders = {path.parent for path in (root / source_root / package).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


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
