"""A process that waits to become the next replica of the gateway, or Serve's next proxy.

Of the seconds in which Serve replaces a killed one, most are the start of a process and its
imports. Ray gives a new replica an unused worker process where one is idle, so each of them has Ray
start one for its successor. Workers import `IMPORTS` when they start.
"""

from __future__ import annotations

import asyncio
import logging

from waypost import ray_compat
from waypost.config import environment_value

logger = logging.getLogger(__name__)

VARIABLE = "RAY_preload_python_modules"
"""Ray's variable with the modules that its workers import when they start."""

IMPORTS = ("waypost.serve.app", *ray_compat.SERVE_MODULES)
"""Modules that take a replica of the gateway, or a proxy of Serve, the most time."""

LATER_S = 1.0
"""Time after which the process is started, so that it does not take cores from its predecessor,
which has just been started itself."""

KEEP_S = 30 * 24 * 3600
"""Time for which Ray keeps the idle process, in seconds."""


async def prepare_successor() -> None:
    """Have a process started on this machine, where workers import `IMPORTS`, after `LATER_S`.

    Nothing that serves needs it, so a failure is only logged.
    """
    if IMPORTS[0] not in (environment_value(VARIABLE) or ""):
        return
    await asyncio.sleep(LATER_S)
    try:
        await asyncio.to_thread(ray_compat.start_idle_worker, KEEP_S)
    except Exception as error:  # noqa: BLE001 - private to Ray, so of any type
        logger.warning("no process stands by for the next replica: %r", error)
