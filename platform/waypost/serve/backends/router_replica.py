"""Load routers and decide queries in batches, on the event loop or in threads.

Queries that arrive during a decision are batched: one embedding and one prediction for all of
them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from waypost.contracts.artifact import Manifest, Untrained
from waypost.contracts.encoder import Encoder
from waypost.contracts.errors import (
    PolicyError,
    PoolMismatchError,
    WaypostError,
)
from waypost.contracts.router import MetaRouter, TrainableRouter
from waypost.contracts.step_router import (
    EpisodeState,
    StepRouter,
    action_to_dict,
)
from waypost.loading import encoder_of, load_router, manifest_of
from waypost.serve.backends.messages import (
    Reply,
    RouterUnavailableError,
    StaleDecisionError,
    failure_reply,
)
from waypost.serve.backends.owner import Ask
from waypost.serve.backends.personal import PersonalStates
from waypost.serve.dials import AUTO
from waypost.serve.logs import where_raised
from waypost.serve.plan import RouterPlan
from waypost.sessions.retrieval import RETRIEVE, retrieve_all
from waypost.storage import local_copy

logger = logging.getLogger(__name__)

LOOP_BUDGET_S = 0.001
"""``threads: auto`` decides on the event loop where a typical decision is faster than this."""

LOOP_CHARACTERS = 4_000
"""Longer texts always go to a thread, because encoding time grows with length."""

LOOP_TURNS = 10
"""Sessions with more earlier turns always go to a thread."""

LOOP_QUERIES = 3
"""Larger batches always go to a thread."""

LOOP_BATCH = 16
"""Most queries that are decided together on the event loop. One of sixteen takes a third of the
time of one alone."""

MAX_BATCH = 64
ASIDE_BATCH = 64
"""Queries of shadow routers that are decided together. The event loop waits for Python's lock no
longer for more of them: it is handed over every 5 ms. A lower priority of the thread would make it
wait longer, for a holder that does not run."""

Asked = tuple[dict[str, Any], str]
"""A query and the name of its router."""

_PROBE = "Which of these gases do green plants take in during photosynthesis? " * 6


class Routers:
    """The loaded routers by name; synchronous and thread-safe.

    Args:
        plan: Artifacts to load, and the policy.
        earlier: Routers of an earlier plan; unchanged ones are reused.
        ask: Calls the owner of users' turns; None reads them from a folder of this machine.
    """

    def __init__(
        self, plan: RouterPlan, earlier: Routers | None = None, ask: Ask | None = None
    ) -> None:
        self._plan = plan
        self._ask = ask
        self._earlier = earlier
        self._routers: dict[str, TrainableRouter] = {}
        self._versions: dict[str, str] = {}
        self._encoders: dict[str, Encoder] = {}
        self._users = PersonalStates(None, {})

    def load(self) -> None:
        """Read the artifacts, build their encoders, and set policy and prices.

        Raises:
            ArtifactError, WeightsError: an artifact or its encoder cannot be loaded.
            PoolMismatchError: a router was trained on no LLM of the pool.
            ConfigError, StorageError: see `PersonalStates`.
        """
        earlier, self._earlier = self._earlier, None
        for name, folder in self._plan.artifacts.items():
            manifest = manifest_of(folder)
            router = None if earlier is None else earlier._loaded(name, manifest)
            if router is None:
                router = self._read(folder, manifest, earlier)
            elif router.encoder is not None:
                self._encoders.setdefault(router.encoder.id, router.encoder)
            if not set(router.model_names) & set(self._plan.served):
                raise PoolMismatchError(f"router {name} was trained on no LLM of the pool")
            self._routers[name] = router
            self._versions[name] = router.version
        known = None if earlier is None else earlier._users
        turns = self._ask or self._plan.user_states
        self._users = PersonalStates(turns, self._routers, known)
        for router in self._routers.values():
            self._set_policy(router)

    @property
    def steady(self) -> bool:
        """Whether the time of a decision can be measured: no router is a third-party rule."""
        return all(router.kind != "meta" for router in self._routers.values())

    def _loaded(self, name: str, manifest: Manifest) -> TrainableRouter | None:
        return self._routers.get(name) if self._versions.get(name) == manifest.version else None

    def _read(
        self, source: str | Untrained, manifest: Manifest, earlier: Routers | None
    ) -> TrainableRouter:
        if isinstance(source, Untrained):
            return load_router(source)
        with local_copy(source) as folder:  # a packed encoder is read there, too
            encoder = self._encoder(manifest, folder, earlier)
            plugins = self._plan.allow_plugin_code
            return load_router(folder, encoder=encoder, allow_plugin_code=plugins)

    def _encoder(self, manifest: Manifest, folder: Path, earlier: Routers | None) -> Encoder | None:
        # Routers with the same encoder share it and its cache: a query that several of them decide
        # is embedded once.
        info = manifest.encoder
        if info is None:
            return None
        if earlier is not None and info.id in earlier._encoders:
            self._encoders[info.id] = earlier._encoders[info.id]
        if info.id not in self._encoders:
            self._encoders[info.id] = encoder_of(manifest, folder, self._plan.encoder.model_dump())
        return self._encoders[info.id]

    def _set_policy(self, router: TrainableRouter) -> None:
        plan = self._plan
        known = tuple(name for name in plan.served if name in router.model_names)
        router.with_prices({name: plan.prices[name] for name in known if name in plan.prices})
        router.policy = plan.policy.settings(known)

    def meet(self, queries: Sequence[Asked]) -> list[Awaitable[None]]:
        """Return what to await before queries are decided; see `PersonalStates.meet`."""
        found: list[Awaitable[None]] = []
        if self._ask is None:
            return found
        for name, rows in _by_router(queries):
            router = self._named(name)
            asked = [queries[row][0] for row in rows]
            meeting = None if router is None else self._users.meet(router, asked)
            found += [] if meeting is None else [meeting]
        return found

    def decide(self, queries: Sequence[Asked]) -> list[Reply]:
        """Decide queries, each with the name of its router.

        Nothing is raised: a failure is the reply to its query, and affects no other.
        """
        replies: list[Reply | None] = [None] * len(queries)
        for name, rows in _by_router(queries):
            found = self._decide_with(name, [queries[row][0] for row in rows])
            for row, reply in zip(rows, found, strict=True):
                replies[row] = reply
        return [reply for reply in replies if reply is not None]

    def step(self, state: dict[str, Any], name: str, version: str, capped: bool) -> Reply:
        """Take one step of an episode that this version of the router began."""
        router = self._named(name)
        if not isinstance(router, StepRouter) or router.version != version:
            return failure_reply(StaleDecisionError(f"router {name} was replaced meanwhile"))
        try:
            known = EpisodeState.from_dict(state)
            action = router.fallback(known) if capped else router.step(known)
            return {"action": action_to_dict(action)}
        except PolicyError as error:
            return failure_reply(error)
        except WaypostError as error:  # not the request's fault: it was decided already
            return failure_reply(RouterUnavailableError(f"router {name} cannot go on: {error}"))

    def _named(self, name: str) -> MetaRouter | None:
        default = next(iter(self._routers), None)
        return self._routers.get(default if name == AUTO and default else name)

    def _decide_with(self, name: str, queries: list[dict[str, Any]]) -> list[Reply]:
        router = self._named(name)
        if router is None:  # the gateway has another config, as an experiment's router is new
            return [failure_reply(StaleDecisionError(f"no router {name} is loaded"))] * len(queries)
        try:
            if not any(RETRIEVE in query for query in queries):
                return self._users.decide(router, queries)
            encoder = router.encoder if isinstance(router, TrainableRouter) else None
            asked, found = retrieve_all(queries, encoder)
            pairs = zip(self._users.decide(router, asked), found, strict=True)
            return [r if one is None else {**r, "retrieved": one.to_dict()} for r, one in pairs]
        # An exception of a plug-in concerns its query only, and may hold its text.
        except Exception as error:  # noqa: BLE001
            if len(queries) > 1:
                return [self._decide_with(name, [query])[0] for query in queries]
            return [_failed(error, "deciding failed")]


def _by_router(queries: Sequence[Asked]) -> list[tuple[str, list[int]]]:
    """Return the names of the routers, each with the rows of its queries."""
    found: dict[str, list[int]] = {}
    for row, (_, name) in enumerate(queries):
        found.setdefault(name, []).append(row)
    return list(found.items())


def _failed(error: Exception, what: str) -> Reply:
    if isinstance(error, WaypostError):
        return failure_reply(error)
    logger.error("%s: %s", what, where_raised(error))
    failure = RouterUnavailableError(f"the router failed: {type(error).__name__}")
    return failure_reply(failure)


class Decider:
    """Decides for the event loop: directly where that is fast, else in threads, in batches."""

    def __init__(self, plan: RouterPlan, ask: Ask | None = None) -> None:
        self.routers = Routers(plan, ask=ask)
        self._ask = ask
        self._threads = plan.threads
        self._on_loop = plan.threads == 0
        self._pool: ThreadPoolExecutor | None = None
        self._aside = ThreadPoolExecutor(1, "shadow")
        self._waiting: list[tuple[dict[str, Any], str, asyncio.Future[Reply]]] = []
        self._together: list[tuple[dict[str, Any], str, asyncio.Future[Reply]]] = []
        self._gathered = 0  # of those decided together, in the turn of the loop before
        self._busy = 0
        self._most_busy = 1

    async def start(self) -> None:
        """Load the routers in a thread, and measure one where ``threads`` is ``auto``."""
        self._most_busy = max(self._threads, 1) if isinstance(self._threads, int) else 1
        self._pool = ThreadPoolExecutor(self._most_busy, "decide")
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._pool, self.routers.load)
        await self._choose_place()

    async def adopt(self, plan: RouterPlan) -> None:
        """Decide by another plan; the earlier routers decide until its routers are loaded.

        Raises:
            ArtifactError, WeightsError, PoolMismatchError: see `Routers.load`. The earlier plan
                stays in force.
        """
        routers = Routers(plan, self.routers, self._ask)
        # in a separate thread, because the others are deciding
        await asyncio.to_thread(routers.load)
        self.routers = routers
        await self._choose_place()

    async def _choose_place(self) -> None:
        if self._threads != "auto":
            return
        loop = asyncio.get_running_loop()
        seconds = await loop.run_in_executor(self._pool, self._measure)
        self._on_loop = seconds < LOOP_BUDGET_S and self.routers.steady
        where = "on the event loop" if self._on_loop else "in a thread"
        logger.info("a decision takes %.2f ms: deciding %s", 1e3 * seconds, where)

    def _measure(self) -> float:
        times = []
        for turn in range(7):
            # another text each time, because encoders cache texts
            query = {"query": f"{turn} {_PROBE}"}
            begin = time.thread_time()  # not the time of other processes on this core
            self.routers.decide([(query, AUTO)])
            times.append(time.thread_time() - begin)
        return min(times)

    async def decide(self, query: dict[str, Any], router: str) -> Reply:
        """Decide one query; failures are returned as data."""
        if meetings := self.routers.meet([(query, router)]):
            await asyncio.gather(*meetings)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        if self._on_loop and _is_small(query):
            if not self._together:
                self._gathered = 0
                loop.call_soon(self._decide_together)
            self._together.append((query, router, future))
            return await future
        self._waiting.append((query, router, future))
        self._work()
        return await future

    def _decide_together(self) -> None:
        """Decide once a turn of the loop has brought no further query, or a batch is full."""
        found = len(self._together)
        if self._gathered < found < LOOP_BATCH:
            self._gathered = found
            asyncio.get_running_loop().call_soon(self._decide_together)
            return
        batch, self._together = self._together[:LOOP_BATCH], self._together[LOOP_BATCH:]
        self._gathered = 0
        if self._together:  # other work of the loop comes first
            asyncio.get_running_loop().call_soon(self._decide_together)
        batch = [item for item in batch if not item[2].done()]  # clients still there
        if not batch:
            return
        replies = self.routers.decide([(query, router) for query, router, _ in batch])
        for (_, _, future), reply in zip(batch, replies, strict=True):
            future.set_result(reply)

    async def step(
        self, state: dict[str, Any], router: str, version: str, capped: bool = False
    ) -> Reply:
        """Take one step of an episode, in a thread; failures are returned as data."""
        work = partial(self.routers.step, state, router, version, capped)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        # An exception of a plug-in concerns this request only, and may hold its text.
        except Exception as error:  # noqa: BLE001
            return _failed(error, "a step failed")

    async def decide_all(self, queries: list[Asked]) -> list[Reply]:
        """Decide a batch of queries; larger batches never run on the event loop."""
        if len(queries) <= LOOP_QUERIES:
            return [await self.decide(query, router) for query, router in queries]
        if meetings := self.routers.meet(queries):
            await asyncio.gather(*meetings)
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Reply]] = [loop.create_future() for _ in queries]
        for (query, router), future in zip(queries, futures, strict=True):
            self._waiting.append((query, router, future))
        self._work()
        return await asyncio.gather(*futures)

    async def decide_aside(self, queries: list[Asked]) -> list[Reply]:
        """Decide queries of shadow routers in a thread of their own; failures are data.

        One batch is decided at a time, so that a slow router takes no thread from requests.
        """
        routers = self.routers
        replies: list[Reply] = []
        for first in range(0, len(queries), ASIDE_BATCH):
            part = queries[first : first + ASIDE_BATCH]
            work = partial(routers.decide, part)
            replies += await asyncio.get_running_loop().run_in_executor(self._aside, work)
        return replies

    def _work(self) -> None:
        while self._waiting and self._busy < self._most_busy:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            self._busy += 1
            loop = asyncio.get_running_loop()
            queries = [(query, router) for query, router, _ in batch]
            done = loop.run_in_executor(self._pool, self.routers.decide, queries)
            futures = [future for _, _, future in batch]
            done.add_done_callback(partial(self._deliver, futures))

    def _deliver(
        self, futures: list[asyncio.Future[Reply]], done: asyncio.Future[list[Reply]]
    ) -> None:
        self._busy -= 1
        self._work()
        if done.cancelled() or done.exception() is not None:
            failure = RouterUnavailableError("the router was closed, or a plug-in ended its thread")
            replies = [failure_reply(failure)] * len(futures)
        else:
            replies = done.result()
        for future, reply in zip(futures, replies, strict=True):
            if not future.done():
                future.set_result(reply)

    async def close(self) -> None:
        """End the threads."""
        self._aside.shutdown(wait=False, cancel_futures=True)
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


def _is_small(query: dict[str, Any]) -> bool:
    """Return whether a query, with the earlier turns that it has, may be decided on the loop."""
    earlier = [turn["query"] for turn in query["session"]["earlier"]] if "session" in query else []
    if RETRIEVE in query:
        earlier += query[RETRIEVE]["turns"]
    if len(earlier) > LOOP_TURNS:
        return False
    return len(query["query"]) + sum(map(len, earlier)) <= LOOP_CHARACTERS
