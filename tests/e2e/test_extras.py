"""Each extra resolves on the package registry, and the caps of router-r1 hold."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest
import uv

pytestmark = pytest.mark.e2e

AT_ONCE = 6
"""Resolutions at the same time: most of each waits for the registry."""

EXTRAS = ("", "gateway", "serve", "train", "data", "tune", "router-r1", "dev", "docs")
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


Resolve = Callable[..., dict[str, str]]


def of_extra(extra: str, python: str) -> tuple[str, ...]:
    """Return the arguments of a resolution of an extra; an empty one is the base."""
    chosen = ("--extra", extra) if extra else ()
    return ("pyproject.toml", "--python-version", python, *chosen)


def of_lock(python: str) -> tuple[str, ...]:
    """Return the arguments of a resolution of the lock."""
    return ("requirements/main.txt", "--python-version", python)


@pytest.fixture(scope="module")
def resolve(root: Path) -> Iterator[Resolve]:
    """Begin all resolutions; gives a function that returns name -> version of one of them.

    It skips the test where the registry is out of reach.
    """
    command = [uv.find_uv_bin(), "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
    command += ["--python", sys.executable]  # without it uv would fetch a Python of that version

    def run(arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments], cwd=root, capture_output=True, check=False, text=True
        )

    wanted = [of_extra(*one) for one in product(EXTRAS, PYTHONS)] + [*map(of_lock, PYTHONS)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        begun = {arguments: pool.submit(run, arguments) for arguments in wanted}
        yield lambda arguments: resolved(begun[arguments].result())


def resolved(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Return the versions that a resolution found."""
    if done.returncode:
        message = done.stderr.lower()
        if any(sign in message for sign in UNREACHABLE):
            pytest.skip("the package registry cannot be reached from this machine")
        pytest.fail(done.stderr)
    pins = (line.partition(";")[0].strip() for line in done.stdout.splitlines() if "==" in line)
    return {name: version for name, _, version in (pin.partition("==") for pin in pins)}


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_resolves(resolve: Resolve, extra: str, python: str) -> None:
    assert {"numpy", "pyarrow", "pydantic"} <= resolve(of_extra(extra, python)).keys()


@pytest.mark.parametrize("python", PYTHONS)
def test_the_caps_of_router_r1_hold(resolve: Resolve, python: str) -> None:
    found = resolve(of_extra("router-r1", python))
    assert {name: found.get(name) for name in ROUTER_R1} == ROUTER_R1
    majors = {name: int(found[name].partition(".")[0]) for name in ROUTER_R1_BELOW}
    assert {n: major for n, major in majors.items() if major >= ROUTER_R1_BELOW[n]} == {}


@pytest.mark.parametrize("extra", ["", "gateway"])
def test_a_light_extra_resolves_to_no_heavy_library(resolve: Resolve, extra: str) -> None:
    found = resolve(of_extra(extra, "3.11"))
    assert not {"torch", "ray", "transformers", "scikit-learn"} & found.keys()


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_has_no_conflict(resolve: Resolve, python: str) -> None:
    assert {"ray", "torch", "transformers"} <= resolve(of_lock(python)).keys()
