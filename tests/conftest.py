"""What every test stands on: settings of its own, repeatable hypothesis runs, shared data."""

from __future__ import annotations

import gc
import os
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

from support import one_ray, ray_groups
from waypost.config import Settings, settings

# A script's `&` starts its command with Ctrl-C ignored, and what is ignored stays so in every
# program that is started from there. A handler that does nothing ignores it here as well, but not
# in those that the tests start and end by Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, lambda *_: None)

ROOT = Path(__file__).resolve().parent.parent
TIERS = ("ray", "engine", "rl", "browser", "gpu", "e2e")

# What a developer's shell may hold and a test must not see. WAYPOST_CACHE and WAYPOST_ENV_* stay:
# they say where this machine keeps weights and the other environments.
PRIVATE = ("WAYPOST_ROOT", "WAYPOST_PLUGINS", "WAYPOST_POOL", "WAYPOST_OFFLINE")
KEYS = ("API_KEYS", "OPENAI_API_KEY", "OPENAI_BASE_URL")

# Set before the first test module imports torch, tokenizers or ray; what is set already stays.
# The caches are named because tests of the default tier get a home folder of their own.
_cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
for _name, _value in {
    "WAYPOST_CACHE": str(Settings.from_env().cache),
    "HF_HOME": str(_cache_home / "huggingface"),
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "OMP_NUM_THREADS": "2",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # not 15: a test must not wait for whatever else runs
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}.items():
    os.environ.setdefault(_name, _value)

# The same examples on every run: a failure seen once is seen again. `HYPOTHESIS_PROFILE=search`
# looks for new ones.
hypothesis_settings.register_profile(
    "repeatable", derandomize=True, database=None, deadline=None, max_examples=60
)
hypothesis_settings.register_profile("search", deadline=None, max_examples=2000)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "repeatable")
hypothesis_settings.load_profile(PROFILE)
if PROFILE == "repeatable":
    # Hypothesis mixes in the constants of all our modules that are loaded: examples would depend on
    # which tests ran before in the same process, and to parse 450 modules takes seconds of CPU.
    providers._get_local_constants = Constants


# Each process of each tier would rewrite the asserts of all test files anew where
# PYTHONDONTWRITEBYTECODE is set, as in many containers: 6 s of CPU for the default tier. It holds
# again for what the tests themselves load, such as plug-ins that they change within a second.
_writes_no_bytecode = sys.dont_write_bytecode
sys.dont_write_bytecode = False

# Seldom, because a full collection goes over all that the tests import, of which nothing is ever
# free. What leaks is still found: pytest collects at the end, and warns of what it finds.
gc.set_threshold(20_000, 20, 20)


def pytest_collection_finish() -> None:
    """Leave what is loaded by now out of the garbage collections to come."""
    sys.dont_write_bytecode = _writes_no_bytecode
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """End the Ray that tests shared after the last of them."""
    yield
    if nextitem is None or ray_groups.group(item.nodeid) != ray_groups.group(nextitem.nodeid):
        one_ray.end()


def pytest_sessionfinish() -> None:
    """End what is left of it where the tests were broken off."""
    one_ray.end()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring tests that share a Ray together."""
    items.sort(key=lambda item: ray_groups.place(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object | None:
    """Keep tests that share a Ray in one process."""
    return ray_groups.scheduler(config, log) if config.getoption("dist") == "loadscope" else None


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with nothing in it."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def own_settings(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, empty_home: Path
) -> Iterator[None]:
    """Hide the developer's settings, keys and plug-ins; read the settings anew for each test."""
    for name in (*PRIVATE, *KEYS):
        monkeypatch.delenv(name, raising=False)
    if not any(request.node.get_closest_marker(tier) for tier in TIERS):
        monkeypatch.setenv("HOME", str(empty_home))
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The data beside the checkout (../shared/data), where the project keeps it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data, which only the project's own checkouts have beside them")
    return folder
