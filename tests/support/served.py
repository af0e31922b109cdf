"""Serve for a test, on a port nobody has: in this process, or by ``waypost serve``."""

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

STARTER = (sys.executable, "-P", "-m", "waypost.cli", "serve")

IN_TIME_S = 240.0
"""Longest wait for ``waypost serve`` to say or do something, on a busy machine."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def application(
    name: str, artifact: Path, pool: list[dict[str, Any]], **args: Any
) -> dict[str, Any]:
    """Return one application of a Serve file, served below ``/<name>``.

    Args:
        name: Of the application.
        artifact: The trained router.
        pool: Entries as `PoolEntry` reads them.
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
    """Serve the applications of a config; yields ``http://127.0.0.1:<port>``.

    A Ray with Serve that an earlier test has left, with the same mode, CPUs and keys, is taken
    again: its applications are replaced. It is left to the next one of the group (`ray_groups`).

    Args:
        config_data: Content of a Serve file; its ``http_options`` are those of the shared Serve.
        folder: Where the file is written.
        throughput: Serve's throughput mode.
        num_cpus: Logical CPUs that Ray is given.

    Raises:
        ConfigError: the config is wrong.
        ServeFailedError: an application does not start.
    """
    kind = ("serve", throughput, num_cpus, os.environ.get("API_KEYS"))
    port = one_ray.shared(kind, lambda: _serve(throughput, num_cpus))
    path = folder / "graph.yaml"
    data = {**config_data, "http_options": {"host": "127.0.0.1", "port": port}}
    path.write_text(yaml.safe_dump(data))
    try:
        config = validate_serve_config(path)
        launch.update(config.data)
        launch.wait_until_running(lambda _: None)
        launch.wait_until_ready(config)
        yield f"http://{config.host}:{config.port}"
    except BaseException:
        one_ray.end()  # what it is at is not known, and the next test may want it well
        raise


@contextmanager
def _serve(throughput: bool, num_cpus: int) -> Iterator[int]:
    """Start Ray and a Serve without applications, and stop them at the end; yields its port."""
    variables = launch.environment(throughput=throughput)
    os.environ.update(variables)  # before Ray is imported
    port = free_port()
    empty = {"http_options": {"host": "127.0.0.1", "port": port}, "applications": []}
    config = ServeConfig(Path(), empty, {})
    try:
        launch.start(config, num_cpus=num_cpus, include_dashboard=False, log_to_driver=False)
        yield port
    finally:
        import ray

        launch.stop()
        ray.shutdown()  # also one that did not come up
        for name in variables:
            os.environ.pop(name, None)


@dataclass(frozen=True)
class Command:
    """A ``waypost serve`` that runs in a process of its own.

    Attributes:
        url: ``http://127.0.0.1:<port>``.
        process: The command.
        output: File that holds what it says.
    """

    url: str
    process: subprocess.Popen[bytes]
    output: Path

    def said(self) -> str:
        """Return what it has said so far."""
        return self.output.read_text()

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds.

        Raises:
            AssertionError: the command ended before, or it takes longer than `IN_TIME_S`; the
                message is what the command said.
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
    """Run ``waypost serve`` on a config until the end of the block; it need not serve yet.

    Args:
        config_data: Content of a Serve file without ``http_options``: a free port is taken.
        folder: Where the file is written.
        options: Of the command.
        starter: Another command that serves a file.
    """
    port = free_port()
    path, output = folder / "graph.yaml", folder / "said.txt"
    host = {"http_options": {"host": "127.0.0.1", "port": port}}
    path.write_text(yaml.safe_dump({**host, **config_data}))
    # HAProxy listens on these as well; another one on this machine may have the usual ports
    own = {f"RAY_SERVE_HAPROXY_{name}_PORT": str(free_port()) for name in ("METRICS", "STATS")}
    with output.open("wb") as out:
        process = subprocess.Popen(
            [*starter, str(path), *options], stdout=out, stderr=out, env={**os.environ, **own}
        )
    try:
        yield Command(f"http://127.0.0.1:{port}", process, output)
    finally:
        process.send_signal(signal.SIGTERM)  # not SIGINT, which a script's & has ignored
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def session_folder() -> Path:
    """Return the folder of the running Ray, where every process of it writes its logs."""
    import ray

    return Path(ray._private.worker._global_node.get_session_dir_path())
