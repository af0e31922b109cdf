from __future__ import annotations

import traceback

import pytest

from waypost.contracts.errors import ConfigError, Fault
from waypost.serve import launch


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in (
        "RAY_AUTH_MODE",
        "RAY_AUTH_TOKEN",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED",
        "RAY_SERVE_ENABLE_HA_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)


def test_throughput_sets_serves_modes_before_ray_starts():
    plain, fast = launch.environment(throughput=False), launch.environment(throughput=True)
    assert "RAY_SERVE_THROUGHPUT_OPTIMIZED" not in plain
    assert fast["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"


def test_a_ray_of_our_own_takes_commands_only_with_a_token_of_this_run():
    first, second = (launch.environment(throughput=False) for _ in range(2))
    assert first["RAY_AUTH_MODE"] == "token"
    assert first["RAY_AUTH_TOKEN"] != second["RAY_AUTH_TOKEN"]


def test_what_the_user_set_stays(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_SERVE_THROUGHPUT_OPTIMIZED", "0")
    found = launch.environment(throughput=True)
    assert not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_SERVE_THROUGHPUT_OPTIMIZED"} & set(found)


def test_a_failure_is_told_without_its_traceback():
    try:
        try:
            raise KeyError("inner")
        except KeyError:
            raise ConfigError([Fault("a", "is wrong"), Fault("b", "too")]) from None
    except ConfigError:
        # as Serve puts it together
        message = f"Failed 3 times:\n  File x\nRuntimeError: {traceback.format_exc()}"
    assert launch.outcome(message) == "ConfigError: a: is wrong\nb: too"


def test_a_message_without_a_traceback_stays():
    assert launch.outcome("no node has 4 GPUs") == "no node has 4 GPUs"


def test_haproxy_has_to_be_asked_for_and_brings_throughput_mode():
    assert "RAY_SERVE_ENABLE_HA_PROXY" not in launch.environment(throughput=True)
    fast = launch.environment(throughput=False, haproxy=True)
    assert fast["RAY_SERVE_ENABLE_HA_PROXY"] == fast["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
