from __future__ import annotations

import socket
import traceback
from types import SimpleNamespace

import pytest

from support.served import free_port
from waypost.contracts.errors import ConfigError, Fault
from waypost.serve import launch, stopping
from waypost.serve import port as ports


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in (
        "RAY_AUTH_MODE",
        "RAY_AUTH_TOKEN",
        "RAY_AUTH_TOKEN_PATH",
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


def test_a_port_that_is_taken_is_told_before_anything_starts():
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as Ray's proxies bind
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = SimpleNamespace(host="127.0.0.1", port=port, path="a.yaml")
        expected = rf"127\.0\.0\.1:{port}.*waypost serve --port.*a\.yaml"
        with pytest.raises(ports.PortTakenError, match=expected):
            ports.check_port(config)
    ports.check_port(config)


def test_a_taken_port_of_haproxy_is_told_before_anything_starts(monkeypatch):
    for variable in ports.HAPROXY_PORTS:
        monkeypatch.setenv(variable, str(free_port()))
    ports.check_haproxy_ports()
    for variable in ports.HAPROXY_PORTS:
        with socket.create_server(("127.0.0.1", 0)) as taken, monkeypatch.context() as patch:
            port = taken.getsockname()[1]
            patch.setenv(variable, str(port))
            expected = f"HAProxy cannot listen on port {port}: .*set {variable} to a free port"
            with pytest.raises(ports.PortTakenError, match=expected):
                ports.check_haproxy_ports()


def test_the_token_of_this_run_also_where_the_mode_is_already_token(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert len(launch.environment(throughput=False)["RAY_AUTH_TOKEN"]) == 64
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "a-file-of-the-user")
    assert "RAY_AUTH_TOKEN" not in launch.environment(throughput=False)


@pytest.mark.parametrize(
    ("statuses", "serves", "ended"),
    [
        ({}, False, True),  # the builder itself failed
        ({"cook": "HEALTHY"}, False, True),
        ({"Gateway": "HEALTHY", "cook": "UNHEALTHY"}, True, True),
        ({"Gateway": "UPDATING", "cook": "DEPLOY_FAILED"}, True, False),
        ({"Gateway": "HEALTHY", "cook": "DEPLOY_FAILED", "tiny": "UPDATING"}, True, False),
        ({"Gateway": "HEALTHY", "Router": "HEALTHY", "cook": "UNHEALTHY"}, True, True),
        ({"Gateway": "HEALTHY", "Router": "UNHEALTHY", "cook": "HEALTHY"}, False, True),
    ],
    ids=str,
)
def test_a_failed_application_serves_where_gateway_and_router_do(statuses, serves, ended):
    nodes = {name: SimpleNamespace(status=status) for name, status in statuses.items()}
    application = SimpleNamespace(deployments=nodes, status="DEPLOY_FAILED")
    assert launch._cannot_serve(application) is not serves
    assert launch._has_ended(application) is ended


def test_the_longest_stop_is_that_of_the_gateways_at_most_25_s():
    def config(*seconds: float) -> SimpleNamespace:
        times = [SimpleNamespace(graceful_shutdown_timeout_s=s) for s in seconds]
        return SimpleNamespace(args={i: SimpleNamespace(gateway=t) for i, t in enumerate(times)})

    assert stopping.longest_stop_s(config(2, 5)) == 5
    assert stopping.longest_stop_s(config(120)) == stopping.LONGEST_STOP_S
    assert stopping.longest_stop_s(config()) == 0


def test_what_a_long_start_waits_for_is_told_every_ten_seconds():
    told, now = [], [0.0]
    awaited = launch.Awaited(told.append, lambda: now[0])
    for at in (1.0, 9.9, 10.0, 12.0, 20.5):
        now[0] = at
        awaited.look(["app/cook"] if at < 20 else [])
    assert told == [
        "waiting for app/cook (10 s so far)",
        "waiting for Ray Serve (20 s so far)",
    ]
