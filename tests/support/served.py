"""Serve for a test on a free port, in this process or with ``waypost serve``."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from support import one_ray
from waypost.serve import launch
from waypost.serve.config_file import ServeConfig, validate_serve_config
from waypost.serve.handover import VARIABLE, Doorkeeper, listen

STARTER = (sys.executable, "-P", "-m", "waypost.cli", "serve")

_proxy_ports: list[int] = []

IN_TIME_S = 240.0
"""Maximum seconds to wait for ``waypost serve``, on a busy machine."""


def free_port() -> int:
    """Return a free TCP port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def application(
    name: str, artifact: Path, pool: list[dict[str, Any]], **args: Any
) -> dict[str, Any]:
    """Return one application of a Serve file with the route prefix ``/<name>``.

    Args:
        name: Name of the application.
        artifact: Artifact of the router.
        pool: Entries in the format of `PoolEntry`.
        args: Further arguments of the graph.
    """
    return {
        "name": name,
        "route_prefix": f"/{name}",
        "import_path": "waypost.serve.app:build",
        "args": {"artifact": str(artifact), "pool": pool} | args,
    }


@contextmanager
def served(
    config_data: Mapping[str, Any], folder: Path, *, throughput: bool = False, num_cpus: int = 8
) -> Iterator[str]:
    """Serve the applications of a config; yield ``http://127.0.0.1:<port>``.

    A single application is served by its gateway's own HTTP server, as by ``waypost serve``;
    several by Serve's proxy. Reuse the Ray and Serve of an earlier test with the same mode, CPUs
    and keys, and replace its applications. Keep it running for the next test of the group
    (`ray_groups`).

    Args:
        config_data: Content of a Serve file; its ``http_options`` are replaced.
        folder: Folder where the file is written.
        throughput: Use Serve's throughput mode.
        num_cpus: Number of logical CPUs of Ray.

    Raises:
        ConfigError: The config is invalid.
        ServeFailedError: An application does not start.
    """
    kind = ("serve", throughput, num_cpus, os.environ.get("API_KEYS"))
    port, door = one_ray.shared(kind, lambda: _serve(throughput, num_cpus))
    path = folder / "graph.yaml"
    if len(config_data["applications"]) == 1:
        port = _offer(door, **config_data["applications"][0])
    data = {**config_data, "http_options": {"host": "127.0.0.1", "port": port}}
    path.write_text(yaml.safe_dump(data))
    try:
        config = validate_serve_config(path)
        launch.update(config.data)
        launch.wait_until_running(lambda _: None)
        launch.wait_until_ready(config)
        yield f"http://{config.host}:{config.port}"
    except BaseException:
        one_ray.end()  # its state is unknown, and the next test needs a healthy one
        raise


def by_proxy() -> str:
    """Return ``http://127.0.0.1:<port>`` of Serve's proxy beside the graph that `served` serves."""
    return f"http://127.0.0.1:{_proxy_ports[-1]}"


def _offer(door: Doorkeeper, name: str, route_prefix: str, **_: Any) -> int:
    """Hold another port for an application; return it. An earlier application keeps its own."""
    door.listener.close()
    door.listener = listen("127.0.0.1", 0)
    door.application, door.prefix = name, route_prefix.rstrip("/")
    return door.address[1]


@contextmanager
def _serve(throughput: bool, num_cpus: int) -> Iterator[tuple[int, Doorkeeper]]:
    """Run Ray and a Serve without applications; yield Serve's port and one for a gateway."""
    variables = launch.environment(throughput=throughput)
    os.environ.update(variables)  # before Ray is imported
    port = free_port()
    empty = {"http_options": {"host": "127.0.0.1", "port": port}, "applications": []}
    config = ServeConfig(Path(), empty, {})
    door = Doorkeeper(listen("127.0.0.1", 0), "", "")
    try:
        launch.start(
            config,
            num_cpus=num_cpus,
            door=door,
            proxy=True,
            include_dashboard=False,
            log_to_driver=False,
        )
        _proxy_ports.append(port)
        yield port, door
    finally:
        import ray

        launch.stop()
        door.close()
        ray.shutdown()  # also after a failed start
        for name in (*variables, VARIABLE):
            os.environ.pop(name, None)


@dataclass(frozen=True)
class Command:
    """A ``waypost serve`` that runs in its own process.

    Attributes:
        url: ``http://127.0.0.1:<port>``.
        process: Process of the command.
        output: File of its output.
    """

    url: str
    process: subprocess.Popen[bytes]
    output: Path

    def said(self) -> str:
        """Return its output so far."""
        return self.output.read_text()

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until ``holds`` returns True.

        Raises:
            AssertionError: The command ended first, or `IN_TIME_S` passed; the message is the
                command's output.
        """
        end = time.monotonic() + IN_TIME_S
        while not holds():
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(self.said())
            time.sleep(launch.POLL_S)


@contextmanager
def command(
    config_data: Mapping[str, Any], folder: Path, *options: str, starter: Sequence[str] = STARTER
) -> Iterator[Command]:
    """Run ``waypost serve`` on a config during the block, without waiting until it serves.

    Args:
        config_data: Content of a Serve file; by default it is served on a free port.
        folder: Folder where the file is written.
        options: Options of the command.
        starter: Command line that the file and the options are added to.
    """
    port = free_port()
    path, output = folder / "graph.yaml", folder / "said.txt"
    host = {"http_options": {"host": "127.0.0.1", "port": port}}
    path.write_text(yaml.safe_dump({**host, **config_data}))
    # HAProxy listens on these as well; another HAProxy on this machine may use the default ports
    own = {f"RAY_SERVE_HAPROXY_{name}_PORT": str(free_port()) for name in ("METRICS", "STATS")}
    with output.open("wb") as out:
        process = subprocess.Popen(
            [*starter, str(path), *options], stdout=out, stderr=out, env={**os.environ, **own}
        )
    try:
        yield Command(f"http://127.0.0.1:{port}", process, output)
    finally:
        process.send_signal(signal.SIGTERM)  # background jobs of a shell script ignore SIGINT
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def session_folder() -> Path:
    """Return the session folder of the running Ray, where all its processes write logs."""
    import ray

    return Path(ray._private.worker._global_node.get_session_dir_path())
