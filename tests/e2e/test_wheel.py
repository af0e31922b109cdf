"""The wheel holds the three packages and nothing else, and runs on the base dependencies."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import uv

import waypost

pytestmark = pytest.mark.e2e

PACKAGES = {"waypost": "platform", "waypost_routers": "routers", "waypost_rl": "rl"}


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-P", "-m", "build", "--wheel", "--no-isolation", "-o", str(folder)]
    subprocess.run([*command, str(root)], cwd=folder, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def members(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_file_of_the_three_packages(root: Path, wheel: Path) -> None:
    written = {
        path.relative_to(root / source_root).as_posix()
        for package, source_root in PACKAGES.items()
        for path in (root / source_root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    info = f"waypost-{waypost.__version__}.dist-info/"
    assert {name for name in members(wheel) if not name.startswith(info)} == written


def test_the_wheel_marks_each_package_as_typed(wheel: Path) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= members(wheel)


def test_the_wheel_holds_the_licence_and_the_command(wheel: Path) -> None:
    info = f"waypost-{waypost.__version__}.dist-info"
    assert {f"{info}/licenses/LICENSE", f"{info}/entry_points.txt"} <= members(wheel)


@pytest.fixture(scope="module")
def base_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the wheel and its base dependencies only."""
    folder = tmp_path_factory.mktemp("base") / "venv"
    uv_bin = uv.find_uv_bin()
    subprocess.run([uv_bin, "venv", "-q", "-p", sys.executable, str(folder)], check=True)
    python = folder / "bin" / "python"
    done = subprocess.run(
        [uv_bin, "pip", "install", "-q", "-p", str(python), str(wheel)],
        capture_output=True,
        check=False,
        text=True,
    )
    if done.returncode:
        if "error sending request" in done.stderr.lower():
            pytest.skip("the package registry cannot be reached from this machine")
        pytest.fail(done.stderr)
    return python


def run_in(cwd: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, check=False, text=True)


def test_every_public_name_resolves_on_the_base(base_python: Path, tmp_path: Path) -> None:
    script = "import waypost; print(*(getattr(waypost, name) for name in waypost.__all__))"
    done = run_in(tmp_path, base_python, "-c", script)
    assert done.returncode == 0, done.stderr


def test_the_routers_are_listed_on_the_base(base_python: Path, tmp_path: Path) -> None:
    done = run_in(tmp_path, base_python.with_name("waypost"), "list-routers", "--json")
    assert done.returncode == 0, done.stderr
    assert "smallest_llm" in done.stdout
