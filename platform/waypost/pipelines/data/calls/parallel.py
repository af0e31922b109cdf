"""Many LLMs side by side, as many at once as there are CPUs for."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Mapping

Poll = Callable[[], None]

_PATIENCE_S = 10.0
"""For threads to end after Ctrl-C: they cancel what is in flight, and Ray must be there for it."""


class _Stopped(BaseException):
    """Raised inside a thread that is to end; nothing that catches errors catches it."""


class _Places:
    """CPUs to hand out; a wish for more than there are gets all of them."""

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


def side_by_side(
    work: Mapping[str, Callable[[], None]],
    wanted: Mapping[str, float],
    cpus: float,
    poll: Poll | None = None,
    every_s: float = 0.5,
) -> dict[str, Exception]:
    """Run one thread an LLM.

    What interrupts this thread (Ctrl-C) interrupts them: each ends its work before this returns,
    unless it takes longer than a few seconds.

    Args:
        work: By LLM.
        wanted: CPUs that each takes; those that take none all run at once, the others when
            there is room, in the given order.
        cpus: There are.
        poll: Called every ``every_s`` seconds, and at the end.
        every_s: Seconds.

    Returns:
        What ended a thread, by LLM; the others are not disturbed by it.
    """
    places = _Places(cpus)
    failed: dict[str, Exception] = {}
    # a `join` that Ctrl-C interrupts takes the thread for ended (Python 3.11)
    ended = {llm: threading.Event() for llm in work}

    def run(llm: str) -> None:
        try:
            taken = places.take(wanted[llm])
            try:
                work[llm]()
            finally:
                places.give_back(taken)
        except Exception as error:  # noqa: BLE001 - told to the caller, who knows what to do
            failed[llm] = error
        except _Stopped:
            return
        finally:
            ended[llm].set()

    # daemons: one that does not end in time does not hold up the process
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
    """Have threads end where they are, and wait for them.

    Ray Data has no call that ends a stream from another thread. But whoever waits for its next
    block looks every few milliseconds, and an exception there ends it in order.
    """
    for thread in threads:
        number = ctypes.c_ulong(thread.ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(number, ctypes.py_object(_Stopped))
    until = time.monotonic() + _PATIENCE_S
    for ended in threads.values():
        ended.wait(max(0.0, until - time.monotonic()))
