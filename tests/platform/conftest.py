"""Fixtures that several test files of the platform share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from support import one_ray
from support.fake_upstream import FakeUpstream
from support.started_engines import started_engines
from waypost.engines.openai_http import OpenAIEngine


@pytest.fixture
async def upstream():
    async with FakeUpstream() as server:
        yield server


@pytest.fixture
async def engine(upstream):
    """Make started engines for the upstream; all are closed at the end."""
    async with started_engines(OpenAIEngine, upstream.url, "m") as make:
        yield make


@contextmanager
def _started_ray():
    import ray

    # Ray installs a wheel of py_modules with its dependencies, all of which are here
    pip = {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    try:
        with mock.patch.dict(os.environ, {"PATH": path, **pip}):
            ray.init(num_cpus=4, **options)
        yield ray
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def ray_here():
    """A Ray that the tests of several modules share; commands called in this process use it."""
    return one_ray.shared("ray", _started_ray)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, one for all tests: Playwright's sync API keeps the loop of its thread."""
    from support.chat_browser import opened_browser

    with opened_browser() as found:
        yield found
