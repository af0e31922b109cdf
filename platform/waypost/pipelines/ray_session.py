"""A Ray to work on: the one of this process, the one named, or one of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from waypost import ray_compat
from waypost.config import environment_value, set_default_environment
from waypost.contracts.errors import ClusterError

logger = logging.getLogger(__name__)

_LISTENER = "ray_listen_error_messages"
"""Ray's thread that prints on standard output what the raylet has to say."""

_LEVEL_IS_SET = b"Set ray log level from environment variable"


class _Results:
    """Standard output as it was, but for what Ray's listener prints: that goes to our log.

    Mostly it is that a worker died, and an actor with an event loop often does so as it ends. It
    must not stand among results, which a program may read. What such a death means for the work,
    whoever waits for the work is told by an exception.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if threading.current_thread().name != _LISTENER:
            return int(self._stream.write(text) or 0)
        if text.strip():
            logger.debug("Ray says: %s", text.strip())
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def results_only() -> Iterator[None]:
    """Keep what Ray prints out of standard output while the block runs."""
    with contextlib.redirect_stdout(_Results(sys.stdout)):
        yield


@contextlib.contextmanager
def without_first_words() -> Iterator[None]:
    """Leave out the line in which Ray's C++ part says that its log level was set.

    It is written to the descriptor, whatever the level. Anything else that is written to standard
    error meanwhile is there when the block ends.
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
_LEAST_CPUS = 4
"""Logical CPUs of a Ray of our own: a pipeline's stages each hold one, and most only wait."""


@contextmanager
def ray_session(*, dashboard: bool = False, threads: int | None = None) -> Iterator[str | None]:
    """Use the Ray that is initialised, that of RAY_ADDRESS (a job has it), or start one.

    One that was started here listens on loopback, asks for a token of its own, and ends with the
    block; the others are left as they are. The value is the dashboard's address (host:port), None
    where there is none.

    Args:
        dashboard: Whether one that is started here has a dashboard.
        threads: Of linear algebra in each worker of one that is started here, unless
            OMP_NUM_THREADS is set; None leaves it to Ray.

    Raises:
        ClusterError: Ray does not start, or nobody answers at the address.
    """
    address = environment_value("RAY_ADDRESS")
    if "ray" not in sys.modules:
        _set_up(own=address is None)  # Ray reads this when it is imported
    import ray

    with results_only():
        if ray.is_initialized():
            yield ray_compat.dashboard_url()
            return
        if address is not None:
            _begin(address=address)
        else:
            cpus = max(_LEAST_CPUS, os.cpu_count() or 1)
            _begin(num_cpus=cpus, include_dashboard=dashboard, runtime_env=_threads(threads))
        try:
            yield ray_compat.dashboard_url()
        finally:
            ray.shutdown()


def _begin(**options: Any) -> None:
    import ray

    tries = 1 if "address" in options else _TRIES
    for attempt in range(tries):
        try:
            with without_first_words():
                ray.init(log_to_driver=False, logging_level=logging.WARNING, **options)
        # A node that does not come up in 30 s, on a machine that is busy, is a bare Exception.
        except Exception as error:
            ray.shutdown()
            if attempt == tries - 1:
                where = options.get("address", "on this machine")
                problem = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise ClusterError(f"Ray {where} does not start or answer: {problem}") from error
            logger.warning("Ray did not start in time; once more")
        else:
            return


def _threads(count: int | None) -> dict[str, dict[str, str]] | None:
    if count is None or environment_value("OMP_NUM_THREADS") is not None:
        return None
    return {"env_vars": {"OMP_NUM_THREADS": str(count)}}


def _set_up(own: bool) -> None:
    # A thread that still clears up after Ctrl-C, when Ray is down, must not start another one.
    set_default_environment({"RAY_ENABLE_AUTO_CONNECT": "0"})
    if not own:
        return
    # Ray's own errors come as exceptions, too. What its C++ part prints besides is about its inner
    # life, such as a warning for every actor that Ray Data makes.
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    set_default_environment({"RAY_AUTH_MODE": "token", **quiet})
    wanted = environment_value("RAY_AUTH_MODE") == "token"
    if wanted and environment_value("RAY_AUTH_TOKEN_PATH") is None:
        set_default_environment({"RAY_AUTH_TOKEN": secrets.token_hex(32)})


def quiet_ray_data() -> None:
    """Have Ray Data print nothing: what it does is shown by whoever runs it."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_auto_log_stats = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
