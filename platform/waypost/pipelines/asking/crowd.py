"""Many LLMs side by side, as many at once as there are CPUs for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

Poll = Callable[[], None]


class _Places:
    """CPUs to hand out; a wish for more than there are gets all of them."""

    def __init__(self, cpus: float) -> None:
        self._cpus, self._free = cpus, cpus
        self._changed = threading.Condition()

    def take(self, wanted: float) -> float:
        wanted = min(wanted, self._cpus)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= wanted)
            self._free -= wanted
        return wanted

    def give_back(self, taken: float) -> None:
        with self._changed:
            self._free += taken
            self._changed.notify_all()


def side_by_side(
    work: Mapping[str, Callable[[], None]],
    wanted: Mapping[str, float],
    cpus: float,
    poll: Poll | None = None,
    every_s: float = 0.5,
) -> dict[str, Exception]:
    """Run one thread an LLM.

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

    def run(llm: str) -> None:
        taken = places.take(wanted[llm])
        try:
            work[llm]()
        except Exception as error:  # noqa: BLE001 - told to the caller, who knows what to do
            failed[llm] = error
        finally:
            places.give_back(taken)

    # daemons: a user who presses Ctrl-C need not wait for what is in flight
    threads = [threading.Thread(target=run, args=(llm,), daemon=True) for llm in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(every_s)
            if poll is not None:
                poll()
    if poll is not None:
        poll()
    return failed
