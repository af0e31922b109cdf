"""The gateway's gauges: set when somebody reads them, and once a second for its neighbours."""

from __future__ import annotations

import asyncio

from waypost.serve.backends.dispatcher import Dispatcher
from waypost.serve.gateway.http import Gate
from waypost.telemetry.counters import Counters

STATES = ("ready", "loading", "failed", "resting")


class Gauges:
    """Sets the gauges of one gateway.

    Args:
        gate: Admission of its requests.
        budget_usd_per_day: See `MetricsArgs`.
    """

    def __init__(self, gate: Gate, budget_usd_per_day: float | None) -> None:
        self._gate = gate
        self._budget = budget_usd_per_day
        self._seen: set[str] = set()

    def set(self, counters: Counters, dispatcher: Dispatcher, lost: int) -> None:
        """Set all of them.

        Args:
            counters: What holds them.
            dispatcher: The dispatcher in force.
            lost: Number of records that could not be written.
        """
        counters.set("waypost_gateways", (), 1)
        counters.set("waypost_requests_in_flight", (), self._gate.in_flight)
        counters.set("waypost_requests_queued", (), self._gate.waiting)
        counters.set("waypost_event_loop_tasks", (), len(asyncio.all_tasks()))
        counters.set("waypost_lost_records_total", (), lost)
        if self._budget is not None:
            counters.set("waypost_budget_usd_per_day", (), self._budget)
        self._seen |= dispatcher.llms.keys()
        resting = dispatcher.circuit.resting()
        for name in self._seen:  # also those that left the pool: their gauges are 0 then
            llm = dispatcher.llms.get(name)
            state = None
            if llm is not None:
                state = "resting" if name in resting else llm.loading.state
                counters.set("waypost_llm_requests_in_flight", (name,), llm.load.in_flight)
                counters.set("waypost_llm_requests_queued", (name,), llm.load.queued)
            for each in STATES:
                counters.set("waypost_llm_gateways", (name, each), each == state)
