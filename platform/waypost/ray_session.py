"""Ray for a pipeline: the Ray of this process, that of RAY_ADDRESS, or a new one."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

from waypost import ray_compat
from waypost.config import environment_value, set_default_environment
from waypost.contracts.errors import ClusterError
from waypost.survivors import Watch

logger = logging.getLogger(__name__)

_LISTENER = "ray_listen_error_messages"
"""Ray's thread that prints messages of the raylet on standard output."""

_LEVEL_IS_SET = b"Set ray log level from environment variable"


class _Results:
    """Standard output without the messages of Ray's listener thread, which go to our log.

    Most messages report a dead worker, and actors with an event loop often die at their end.
    Programs may parse standard output, so it must have results only. If a death affects the work,
    the caller gets an exception.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if threading.current_thread().name != _LISTENER:
            return int(self._stream.write(text) or 0)
        if text.strip():
            logger.debug("message of Ray: %s", text.strip())
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def results_only() -> Iterator[None]:
    """Keep Ray's messages out of standard output during the block."""
    with contextlib.redirect_stdout(_Results(sys.stdout)):
        yield


@contextlib.contextmanager
def without_first_words() -> Iterator[None]:
    """Drop the line in which Ray's C++ code reports its log level from standard error.

    Ray writes the line to the file descriptor at any log level. All other text written to standard
    error during the block appears when the block ends.
    """
    try:
        kept = os.dup(2)
    except OSError:  # closed
        yield
        return
    with tempfile.TemporaryFile() as said:
        _flush()
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            _flush()
            os.dup2(kept, 2)
            os.close(kept)
            said.seek(0)
            os.write(2, b"".join(line for line in said if _LEVEL_IS_SET not in line))


def _flush() -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()


_TRIES = 2
_LOCAL = "local"
_UNHEARD: dict[str, Any] = {"quiet": True, "log_to_driver": False, "logging_level": logging.WARNING}
_CONNECT_S = 10.0
_LEAST_CPUS = 4
"""Minimum logical CPUs of a new Ray: each stage of a pipeline takes one, and most only wait."""


@contextmanager
def ray_session(
    *,
    dashboard: bool = False,
    threads: int | None = None,
    cpus: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[str | None]:
    """Use the initialised Ray, that of RAY_ADDRESS (set inside a job), or start a new one.

    A new Ray listens on loopback, requires its own token, and stops at the end of the block, also
    where this process is killed. An existing Ray keeps running. Yield the dashboard's address
    (host:port), or None without one.

    Args:
        dashboard: Whether a new Ray has a dashboard.
        threads: Number of linear-algebra threads in each worker of a new Ray, unless
            OMP_NUM_THREADS is set; None is Ray's default.
        cpus: Minimum logical CPUs of a new Ray.
        tell: Called with a line before a start of Ray or a connection, which take seconds.

    Raises:
        ClusterError: Ray does not start, or does not answer at the address.
    """
    address = environment_value("RAY_ADDRESS")
    if "ray" not in sys.modules:
        _set_up(own=address is None)  # Ray reads this when it is imported
    import ray

    with ExitStack() as stack:
        stack.enter_context(results_only())
        if ray.is_initialized():
            yield ray_compat.dashboard_url()
            return
        if address is not None:
            tell(f"connecting to Ray at {address}")
            _check_address(address)
            start_ray(address=address, **_UNHEARD)
        else:
            tell("starting Ray, which takes about 10 s")
            cpus = max(_LEAST_CPUS, cpus, os.cpu_count() or 1)
            # a worker of a killed run may take another process for its raylet, by a reused id
            stack.enter_context(Watch())
            own: dict[str, Any] = {"num_cpus": cpus, "runtime_env": _threads(threads)}
            start_ray(include_dashboard=dashboard, **own, **_UNHEARD)
        try:
            yield ray_compat.dashboard_url()
        finally:
            ray.shutdown()


def _check_address(address: str) -> None:
    """Check that something listens at HOST:PORT: Ray itself tries for many minutes.

    Raises:
        ClusterError: Nothing does.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        return  # auto, local, or an address with a scheme
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"RAY_ADDRESS {address}: no Ray answers there ({error}); set it to the address of a "
            "running Ray, or unset it"
        ) from error


def start_ray(*, quiet: bool = False, **options: Any) -> None:
    """Call ``ray.init``; a Ray that does not start on this machine is tried a second time.

    Args:
        quiet: Whether to drop Ray's first words; see `without_first_words`.
        options: Arguments of ``ray.init``.

    Raises:
        ClusterError: Ray does not start, or does not answer at the address.
    """
    import ray

    address = options.get("address", _LOCAL)
    tries = _TRIES if address == _LOCAL else 1
    for attempt in range(tries):
        try:
            with without_first_words() if quiet else nullcontext():
                ray.init(**options)
        # Ray raises a bare Exception if a node does not start in 30 s, as on a busy machine.
        except Exception as error:
            ray.shutdown()
            if attempt == tries - 1:
                raise ClusterError(_no_start(address, error)) from error
            logger.warning("Ray did not start in time; trying again")
        else:
            return


def _no_start(address: str, error: Exception) -> str:
    problem = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if address != _LOCAL:
        return (
            f"Ray at {address} does not answer: {problem} Check that it runs, that its version is "
            "that of this environment, and that RAY_AUTH_TOKEN is its token"
        )
    busy = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count() or 1} cores"
    return (
        f"Ray does not start on this machine: {problem} The machine may be busy ({busy}) or short "
        "of memory, or one of Ray's ports is taken; end other programs and try again. Ray's own "
        "logs are in session_latest/logs of its folder, /tmp/ray unless RAY_TMPDIR is set"
    )


def _threads(count: int | None) -> dict[str, dict[str, str]] | None:
    if count is None or environment_value("OMP_NUM_THREADS") is not None:
        return None
    return {"env_vars": {"OMP_NUM_THREADS": str(count)}}


def _set_up(own: bool) -> None:
    # A thread that still cleans up after Ctrl-C must not start another Ray when Ray has stopped.
    set_default_environment({"RAY_ENABLE_AUTO_CONNECT": "0"})
    if not own:
        return
    # Ray raises its errors as exceptions as well. Other output of its C++ code is about internals,
    # such as a warning for every actor that Ray Data creates.
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    set_default_environment({"RAY_AUTH_MODE": "token", **quiet})
    wanted = environment_value("RAY_AUTH_MODE") == "token"
    if wanted and environment_value("RAY_AUTH_TOKEN_PATH") is None:
        set_default_environment({"RAY_AUTH_TOKEN": secrets.token_hex(32)})


def quiet_ray_data() -> None:
    """Turn off Ray Data's output; the caller shows the progress."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_auto_log_stats = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
