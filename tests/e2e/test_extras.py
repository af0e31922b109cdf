"""Each extra resolves on the package registry, and the caps of router-r1 hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import uv

pytestmark = pytest.mark.e2e

EXTRAS = ("", "serve", "train", "data", "tune", "router-r1", "dev", "docs")
PYTHONS = ("3.11", "3.12")

# architecture.md: the last versions that work together; newer ones of each break another.
ROUTER_R1 = {
    "vllm": "0.6.3",
    "torch": "2.4.0",
    "trl": "0.11.4",
    "transformers": "4.45.2",
    "accelerate": "1.0.1",
    "datasets": "3.0.2",
    "peft": "0.13.2",
    "ray": "2.60.0",
}
ROUTER_R1_BELOW = {"numpy": 2, "pandas": 3, "pyarrow": 18, "setuptools": 75}

# What uv says where it does not get as far as an answer; anything else is a real failure.
UNREACHABLE = ("error sending request", "failed to lookup address", "network is unreachable",
               "operation timed out", "connection refused", "client error (connect)")  # fmt: skip


def resolve(root: Path, *arguments: str) -> dict[str, str]:
    """Return name -> version of a dry-run resolution; skip where the registry is out of reach."""
    command = [uv.find_uv_bin(), "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
    command += ["--python", sys.executable]  # without it uv would fetch a Python of that version
    done = subprocess.run(
        [*command, *arguments], cwd=root, capture_output=True, check=False, text=True
    )
    if done.returncode:
        message = done.stderr.lower()
        if any(sign in message for sign in UNREACHABLE):
            pytest.skip("the package registry cannot be reached from this machine")
        pytest.fail(done.stderr)
    pins = (line.partition(";")[0].strip() for line in done.stdout.splitlines() if "==" in line)
    return {name: version for name, _, version in (pin.partition("==") for pin in pins)}


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_resolves(root: Path, extra: str, python: str) -> None:
    chosen = ["--extra", extra] if extra else []
    resolved = resolve(root, "pyproject.toml", "--python-version", python, *chosen)
    assert {"numpy", "pyarrow", "pydantic"} <= resolved.keys()


@pytest.mark.parametrize("python", PYTHONS)
def test_the_caps_of_router_r1_hold(root: Path, python: str) -> None:
    resolved = resolve(root, "pyproject.toml", "--extra", "router-r1", "--python-version", python)
    assert {name: resolved.get(name) for name in ROUTER_R1} == ROUTER_R1
    majors = {name: int(resolved[name].partition(".")[0]) for name in ROUTER_R1_BELOW}
    assert {n: major for n, major in majors.items() if major >= ROUTER_R1_BELOW[n]} == {}


def test_the_base_resolves_to_no_heavy_library(root: Path) -> None:
    resolved = resolve(root, "pyproject.toml", "--python-version", "3.11")
    assert not {"torch", "ray", "transformers", "scikit-learn"} & resolved.keys()


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_has_no_conflict(root: Path, python: str) -> None:
    resolved = resolve(root, "requirements/main.txt", "--python-version", python)
    assert {"ray", "torch", "transformers"} <= resolved.keys()
