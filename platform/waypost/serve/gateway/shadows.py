"""Shadow routers: they decide what another router has decided, for the decision log only."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from waypost.contracts.errors import WaypostError
from waypost.feedback import Outcome
from waypost.serve.backends.base import RouterClient
from waypost.serve.backends.dispatcher import PINNED
from waypost.serve.comparing import ShadowArgs
from waypost.serve.logs import where_raised

logger = logging.getLogger(__name__)

GATHER_S = 1.0
"""Seconds for which ended requests are gathered: decided together, each costs a fraction."""

BATCH = 256
"""Most requests of one call to the router."""

MOST_WAITING = 4096
MOST_SIZE = 64 * 1024 * 1024
"""Requests that wait for shadows, and the characters of their texts with those of earlier turns;
further ones are logged without them, and counted."""

CLOSE_S = 5.0
"""Longest wait for shadows when the gateway closes; what still waits is logged without them."""

Told = Callable[[str, str], None]
"""Called with the name of a shadow and ``decided``, ``failed`` or ``dropped``."""


class Shadows:
    """Asks shadow routers about ended requests, then hands these on to the log.

    Args:
        router: Client of the routers.
        log: Takes each outcome, once.
        told: Called for each decision of a shadow, and for each that is not made.

    Attributes:
        settings: Which routers, and how many requests; None asks none.
    """

    def __init__(self, router: RouterClient, log: Callable[[Outcome], None], told: Told) -> None:
        self.settings: ShadowArgs | None = None
        self._router, self._log, self._told = router, log, told
        self._waiting: list[_Waiting] = []
        self._size = 0  # of what waits
        self._working: asyncio.Task[None] | None = None

    def add(self, outcome: Outcome, query: Mapping[str, Any]) -> None:
        """Log an outcome: at once, or when the shadows have decided its query.

        Requests that name their LLM were not routed, and shadows do not decide them. The arm of an
        experiment that decided does not decide again beside itself.
        """
        settings = self.settings
        routed = outcome.decision.router != PINNED
        if settings is None or not routed or not settings.takes(outcome.request_id):
            self._log(outcome)
            return
        acted = None if outcome.arm is None else outcome.arm.router
        asked = [name for name in settings.routers if name != acted]
        one = _Waiting(outcome, query, asked, _size(query))
        full = len(self._waiting) >= MOST_WAITING or self._size + one.size > MOST_SIZE
        if not asked or full:
            self._drop(one)
            return
        self._waiting.append(one)
        self._size += one.size
        if self._working is None:
            self._working = asyncio.get_running_loop().create_task(self._work())

    async def settle(self) -> None:
        """Let the shadows decide what waits, for at most `CLOSE_S`; log all of it."""
        if (working := self._working) is not None:
            await asyncio.wait([working], timeout=CLOSE_S)
            working.cancel()
        for one in self._waiting:
            self._drop(one)
        self._waiting.clear()
        self._size = 0

    async def _work(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(GATHER_S)
                while batch := self._waiting[:BATCH]:
                    await self._decide(batch)
                    del self._waiting[: len(batch)]
                    self._size -= sum(one.size for one in batch)
        finally:
            self._working = None

    async def _decide(self, batch: list[_Waiting]) -> None:
        queries = [(dict(one.query), name) for one in batch for name in one.asked]
        try:
            replies = iter(await self._router.decide_aside(queries))
        # whatever happens to shadows, the rows of the requests are written
        except Exception as error:  # noqa: BLE001
            told = str(error) if isinstance(error, WaypostError) else where_raised(error)
            logger.warning("shadow routers do not decide: %s", told)
            for one in batch:
                self._drop(one, "failed")
            return
        for one in batch:
            made = {}
            for name in one.asked:
                decision = next(replies).get("decision")
                self._told(name, "failed" if decision is None else "decided")
                if decision is not None:
                    made[name] = decision
            one.outcome.shadows = made
            self._log(one.outcome)

    def _drop(self, one: _Waiting, why: str = "dropped") -> None:
        for name in one.asked:
            self._told(name, why)
        self._log(one.outcome)


class _Waiting(NamedTuple):
    outcome: Outcome
    query: Mapping[str, Any]
    asked: list[str]
    size: int


def _size(query: Mapping[str, Any]) -> int:
    earlier = query["session"]["earlier"] if "session" in query else ()
    return len(query["query"]) + sum(len(turn["query"]) for turn in earlier)
