"""What must never enter the repository: shadowing packages, machine paths, registries, pickles."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|root|home|Users|opt|mnt|tmp/[\w-]+)/")
# An image has paths of its own, such as the home folder of Ray's images.
OWN_PATHS = ("k8s/",)
# The brackets keep the patterns from finding themselves.
REGISTRY = re.compile(
    r"https?://[^ \"]+/(?:simple|packages)/|index-u[r]l|\"resolve[d]\": \"http|find-link[s]"
)
UNSAFE_LOAD = re.compile(
    r"\b(?:pickle|joblib|dill|cloudpickle)\.load|torch\.load\((?!.*weights_only=True)"
)
UNFINISHED = re.compile(r"\b(?:TOD[O]|FIXM[E])\b|raise NotImplemented[E]rror")
MAX_BYTES = 2_000_000
MAX_LINES = 400


@pytest.fixture(scope="module")
def files(root: Path) -> list[Path]:
    """Every file of the checkout that git would take."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, check=True, text=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("needs a git checkout: this tree is not one, or git is not installed")
    paths = [root / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def found(pattern: re.Pattern[str], files: list[Path], root: Path) -> list[str]:
    """Return file:line of every match in the text files given."""
    places = []
    for path in files:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        name = path.relative_to(root).as_posix()
        places += [f"{name}:{n}: {line}" for n, line in enumerate(lines, 1) if pattern.search(line)]
    return places


@pytest.mark.parametrize("source_root", ["platform", "routers", "rl"])
def test_a_source_root_is_no_package(root: Path, source_root: str) -> None:
    assert not (root / source_root / "__init__.py").exists()


def test_no_folder_of_tests_is_a_package(root: Path) -> None:
    assert list((root / "tests").rglob("__init__.py")) == []


def test_platform_is_the_standard_module_from_the_root(root: Path) -> None:
    script = "import platform; print(platform.system()); print(platform.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, check=True, text=True
    )
    system, file = done.stdout.split()
    assert system
    assert not Path(file).is_relative_to(root / "platform")


def test_no_file_holds_a_path_of_some_machine(root: Path, files: list[Path]) -> None:
    ours = [f for f in files if not f.relative_to(root).as_posix().startswith(OWN_PATHS)]
    assert found(MACHINE_PATH, ours, root) == []


def test_no_file_names_a_package_registry(root: Path, files: list[Path]) -> None:
    assert found(REGISTRY, files, root) == []


def test_nothing_is_unpickled(root: Path, files: list[Path]) -> None:
    python = [file for file in files if file.suffix == ".py"]
    assert found(UNSAFE_LOAD, python, root) == []


def test_no_code_is_left_for_later(root: Path, files: list[Path]) -> None:
    python = [file for file in files if file.suffix == ".py"]
    assert found(UNFINISHED, python, root) == []


def test_no_file_is_large(root: Path, files: list[Path]) -> None:
    assert [str(f.relative_to(root)) for f in files if f.stat().st_size > MAX_BYTES] == []


def test_no_module_is_long(files: list[Path]) -> None:
    python = [file for file in files if file.suffix == ".py"]
    counts = {str(file): len(file.read_text(encoding="utf-8").splitlines()) for file in python}
    assert {file: count for file, count in counts.items() if count > MAX_LINES} == {}


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (MACHINE_PATH, "cache = " + "/" + "root/.cache/x"),
        (MACHINE_PATH, "'" + "/" + "tmp/run-1/out'"),
        (REGISTRY, "--extra-index-" + "url somewhere"),
        (REGISTRY, "https://registry.example/" + "simple/ray/"),
        (UNSAFE_LOAD, "torch." + "load(path)"),
        (UNSAFE_LOAD, "pickle." + "loads(data)"),
        (UNFINISHED, "# TO" + "DO later"),
    ],
)
def test_a_planted_fault_is_found(pattern: re.Pattern[str], line: str) -> None:
    assert pattern.search(line)


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (MACHINE_PATH, "see ../shared/work/notes and a/tmp/b/"),
        (MACHINE_PATH, "#!/usr/bin/env bash"),
        (UNSAFE_LOAD, "torch." + "load(path, weights_only=True)"),
    ],
)
def test_a_harmless_line_passes(pattern: re.Pattern[str], line: str) -> None:
    assert not pattern.search(line)
