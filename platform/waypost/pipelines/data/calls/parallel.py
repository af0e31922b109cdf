"""Run LLMs in parallel, as many at once as there are CPUs for."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Mapping

from waypost.config import environment_value

Poll = Callable[[], None]

_PATIENCE_S = 10.0
"""Time for threads to cancel their calls after Ctrl-C, while Ray still runs."""


def owns_ray() -> bool:
    """Return whether the run starts its own Ray on this machine."""
    return environment_value("RAY_ADDRESS") is None


def cpus_of_run() -> float:
    """Return the number of CPUs that LLMs may take; Ray must be running."""
    import ray

    # Our own Ray has more logical CPUs than cores, so that its stages need not queue.
    return float(os.cpu_count() or 1) if owns_ray() else ray.cluster_resources().get("CPU", 1.0)


class _Stopped(BaseException):
    """Raised inside a thread to end it; a BaseException, so that no handler catches it."""


class _CpuSlots:
    """Pool of CPUs; a request for more than exist gets all of them."""

    def __init__(self, cpus: float) -> None:
        self._cpus, self._free = cpus, cpus
        self._closed = False
        self._changed = threading.Condition()

    def take(self, wanted: float) -> float:
        wanted = min(wanted, self._cpus)
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._free >= wanted)
            if self._closed:
                raise _Stopped
            self._free -= wanted
        return wanted

    def give_back(self, taken: float) -> None:
        with self._changed:
            self._free += taken
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def run_parallel(
    work: Mapping[str, Callable[[], None]],
    wanted: Mapping[str, float],
    cpus: float,
    poll: Poll | None = None,
    every_s: float = 0.5,
) -> dict[str, Exception]:
    """Run one thread for each LLM.

    An interrupt of this thread (Ctrl-C) interrupts the others too; they get some seconds to end.

    Args:
        work: Function of each LLM.
        wanted: CPUs of each LLM. Those with 0 start at once, the others in order as CPUs get free.
        cpus: Number of CPUs.
        poll: Called every ``every_s`` seconds, and at the end.
        every_s: Seconds between two polls.

    Returns:
        The exception of each failed thread, by LLM; other threads continue.
    """
    places = _CpuSlots(cpus)
    failed: dict[str, Exception] = {}
    # events: a `join` interrupted by Ctrl-C takes the thread for ended (Python 3.11)
    ended = {llm: threading.Event() for llm in work}

    def run(llm: str) -> None:
        try:
            taken = places.take(wanted[llm])
            try:
                work[llm]()
            finally:
                places.give_back(taken)
        except Exception as error:  # noqa: BLE001 - returned to the caller
            failed[llm] = error
        except _Stopped:
            return
        finally:
            ended[llm].set()

    # daemons, so a thread that does not end in time cannot block the process
    threads = {llm: threading.Thread(target=run, args=(llm,), daemon=True) for llm in work}
    try:
        for thread in threads.values():
            thread.start()
        for one in ended.values():
            while not one.wait(every_s):
                if poll is not None:
                    poll()
    except BaseException:
        places.close()
        _stop({threads[llm]: one for llm, one in ended.items() if not one.is_set()})
        raise
    if poll is not None:
        poll()
    return failed


def _stop(threads: Mapping[threading.Thread, threading.Event]) -> None:
    """Raise `_Stopped` in threads, and wait for them to end.

    Ray Data cannot end a stream from another thread. The thread waiting for its next block wakes
    every few milliseconds, and an exception there ends the stream cleanly.
    """
    for thread in threads:
        number = ctypes.c_ulong(thread.ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(number, ctypes.py_object(_Stopped))
    until = time.monotonic() + _PATIENCE_S
    for ended in threads.values():
        ended.wait(max(0.0, until - time.monotonic()))
