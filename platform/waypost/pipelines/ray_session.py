"""A Ray to work on: the one this process belongs to, the one named, or one of its own."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from waypost.config import environment_value, set_default_environment

_LEAST_CPUS = 4
"""Logical CPUs of a Ray of our own: a pipeline's stages each hold one, and most only wait."""


@contextmanager
def ray_session() -> Iterator[None]:
    """Use the Ray that is initialised, that of RAY_ADDRESS (a job has it), or start one.

    One that was started here listens on loopback, asks for a token of its own, and ends with the
    block; the others are left as they are.
    """
    address = environment_value("RAY_ADDRESS")
    if address is None and "ray" not in sys.modules:
        _set_up()  # Ray reads this when it is imported
    import ray

    if ray.is_initialized():
        yield
        return
    if address is not None:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    else:
        ray.init(
            num_cpus=max(_LEAST_CPUS, os.cpu_count() or 1),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    try:
        yield
    finally:
        ray.shutdown()


def _set_up() -> None:
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
