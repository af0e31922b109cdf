"""The gateway's clients for a router and LLMs that are Serve deployments.

Only plain data is sent. Ray's exceptions (a dead replica, a full queue) become Waypost errors here,
so that the callers of these clients do not depend on Ray.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import asdict
from typing import Any

from waypost import ray_compat
from waypost.contracts.errors import (
    EngineConnectionError,
    EngineError,
    EngineOverloadedError,
    EngineServerError,
    StorageError,
    engine_error,
)
from waypost.contracts.generation import Answer, Chunk, GenerateRequest, joined
from waypost.contracts.step_router import Action
from waypost.serve.backends.base import Load, Loading
from waypost.serve.backends.llm_replica import Message, Pace, within
from waypost.serve.backends.messages import (
    Reply,
    Routed,
    RouterUnavailableError,
    read_action,
    read_routed,
)
from waypost.serve.backends.router_replica import MAX_BATCH
from waypost.serve.plan import RouterPlan

logger = logging.getLogger(__name__)

STATUS_POLL_S = 2.0
"""Poll interval of the load state. A call that waits for a replica does not see a failed start."""

BUSY_S = 30.0
"""Longest wait for a running replica to report the state of its engine."""

DECISION_TIMEOUT_S = 30.0
"""Long enough to replace the only replica of a router."""

OWNER_S = 5.0
"""Longest wait for the owner of folders: what waits for it waits no longer, and is told so."""

ROUTER_TRIES = 3
CALLS = 2
"""Most concurrent calls of one gateway to the router deployment."""

SLACK_S = 1.0
"""The LLM node enforces the time-outs. The gateway waits this much longer before it gives up."""


class _Handle(ABC):
    """Client of a deployment, with its load state. Serve starts and stops the deployment."""

    def __init__(self) -> None:
        self.loading = Loading()
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to wait for the first replica."""
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while not self.loading.ready:
            await self._look()
            if not self.loading.ready:
                await asyncio.sleep(STATUS_POLL_S)

    @abstractmethod
    async def _look(self) -> None:
        """Update `loading` from the state of the replicas."""

    async def close(self) -> None:
        """Stop waiting."""
        if self._watching is not None:
            self._watching.cancel()


class HandleRouter(_Handle):
    """Client of the router deployment.

    While `CALLS` calls are in flight, further queries are batched into the next call. Single
    requests do not wait, and under load the cost of a call is shared.
    """

    def __init__(self, handle: Any) -> None:
        super().__init__()
        self._decide = handle.options(method_name="decide")
        self._aside = handle.options(method_name="decide_aside")
        self._step = handle.options(method_name="step")
        self._waiting: list[tuple[dict[str, Any], str, asyncio.Future[Reply]]] = []
        self._calls: set[asyncio.Task[None]] = set()

    async def _look(self) -> None:
        with suppress(RouterUnavailableError):
            await _asked(self._decide, [])
            self.loading.loaded(True)

    async def adopt(self, plan: RouterPlan) -> None:
        """Do nothing: the deployment gets the same user_config."""

    async def decide(self, query: dict[str, Any], router: str) -> Routed:
        """Decide one query; see `RouterClient.decide`."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((query, router, future))
        self._work()
        return read_routed(await future)

    async def decide_aside(self, queries: list[tuple[dict[str, Any], str]]) -> list[Reply]:
        """Decide queries aside; see `RouterClient.decide_aside`."""
        replies: list[Reply] = await _asked(self._aside, queries)
        return replies

    async def step(
        self, state: dict[str, Any], router: str, version: str, *, capped: bool = False
    ) -> Action:
        """Take one step of an episode; see `RouterClient.step`."""
        # a step is a function of its state, so it can be retried
        reply: Reply = await _asked(self._step, state, router, version, capped)
        return read_action(reply)

    def _work(self) -> None:
        while self._waiting and len(self._calls) < CALLS:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            call = asyncio.create_task(self._ask(batch))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            call.add_done_callback(lambda _: self._work())

    async def _ask(self, batch: list[tuple[dict[str, Any], str, asyncio.Future[Reply]]]) -> None:
        batch = [item for item in batch if not item[2].done()]  # clients still there
        if not batch:
            return
        try:
            asked = [(query, router) for query, router, _ in batch]
            replies: list[Reply] = await _asked(self._decide, asked)
        except RouterUnavailableError as error:
            for _, _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, _, future), reply in zip(batch, replies, strict=True):
            if not future.done():
                future.set_result(reply)


async def _asked(method: Any, *arguments: Any) -> Any:
    """Call the router's node. A call changes nothing there, so it is retried if the replica dies.

    Raises:
        RouterUnavailableError: no replica answered.
    """
    problem = ""
    for _ in range(ROUTER_TRIES):
        call = method.remote(*arguments)
        try:
            async with asyncio.timeout(DECISION_TIMEOUT_S):
                return await call
        except TimeoutError:
            cancel(call)
            problem = f"no decision within {DECISION_TIMEOUT_S:g} s"
            break
        except asyncio.CancelledError:
            cancel(call)
            raise
        except Exception as error:  # noqa: BLE001 - a border: what Ray raises is data here
            failure = failure_of(error, "the router")
            problem = str(failure)
            if not isinstance(failure, EngineConnectionError):
                break
    raise RouterUnavailableError(f"the router cannot be reached: {problem}")


class HandleLLM(_Handle):
    """Client of the deployment of one LLM.

    Args:
        name: Name of the LLM, for messages.
        handle: Handle of its deployment.
        queue_timeout_s: Longest wait for a free replica.
    """

    def __init__(self, name: str, handle: Any, queue_timeout_s: float) -> None:
        super().__init__()
        self._name = name
        self._status = handle.options(method_name="refusal")
        # Whole answers are streamed, too. For a call that is not a stream, gRPC reports that a
        # replica took it only with its answer, so that the queue time-out could not be enforced.
        self._stream = handle.options(method_name="stream", stream=True)
        self._queue_timeout_s = queue_timeout_s
        self.load = Load()

    async def _look(self) -> None:
        from ray.serve.exceptions import DeploymentUnavailableError

        call = self._status.remote()
        runs = self._status.running_replicas_populated()
        try:
            async with asyncio.timeout(BUSY_S if runs else STATUS_POLL_S):
                problem = await call
        except TimeoutError:
            cancel(call)
            if runs:
                self.loading.loaded(True)  # it is too busy with requests to reply
        except DeploymentUnavailableError:  # its replicas failed, and Serve starts no further ones
            self.loading.loaded(False, "Ray Serve cannot start its replicas")
        except Exception as error:  # noqa: BLE001 - a border: what Ray raises is data here
            logger.warning("%s is not ready: %s", self._name, type(error).__name__)
        else:
            self.loading.loaded(problem is None, problem)

    async def drain(self) -> None:
        """Return at once: Serve lets the replicas finish."""

    async def stream(
        self, request: GenerateRequest, pace: Pace
    ) -> AsyncGenerator[list[Chunk], None]:
        """Answer one request; see `LLMClient.stream`."""
        async with aclosing(self._messages(request, pace, whole=False)) as lists:
            async for messages in lists:
                yield [Chunk.from_dict(message) for message in messages]

    async def answer(self, request: GenerateRequest, pace: Pace) -> tuple[Answer, float]:
        """Answer one request; see `LLMClient.answer`."""
        told: Message | None = None
        async with aclosing(self._messages(request, pace, whole=True)) as lists:
            async for messages in lists:  # to the end: leaving before cancels the call
                told = messages[0]
        if told is None:
            raise EngineServerError(f"{self._name}: its node ended without an answer")
        return joined([Chunk.from_dict(told["answer"])]), told["seconds"]

    async def _messages(
        self, request: GenerateRequest, pace: Pace, *, whole: bool
    ) -> AsyncGenerator[list[Message], None]:
        call = self._stream.remote(request.to_dict(), asdict(pace), whole)
        done = False
        self.load.in_flight += 1
        try:
            await self._assigned(call)
            lists = _items(call)
            if not whole:
                lists = within(lists, pace.first_s + SLACK_S, pace.between_s + SLACK_S)
            async with aclosing(lists):
                async for messages in lists:
                    yield _checked(messages)
            done = True
        except EngineError:
            raise
        except Exception as error:  # noqa: BLE001 - a border: what Ray raises is data here
            raise failure_of(error, self._name) from None
        finally:
            self.load.in_flight -= 1
            if not done:
                cancel(call)

    async def _assigned(self, call: Any) -> None:
        # Without this time-out a request to an LLM whose only replica restarts would wait for it
        # instead of going to the next LLM.
        self.load.in_flight -= 1
        self.load.queued += 1
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                await ray_compat.assigned(call)
        except TimeoutError:
            raise EngineOverloadedError(
                f"no replica was free within {self._queue_timeout_s:g} s"
            ) from None
        finally:
            self.load.queued -= 1
            self.load.in_flight += 1


class HandleOwner:
    """Client of the deployment that owns folders (`OwnerNode`).

    Args:
        handle: Handle of its deployment.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the owner. It is not called again after a failure: it may have acted.

        Raises:
            StorageError: the owner is down, or did not answer within `OWNER_S`.
            EngineServerError: it failed on this call.
        """
        call = self._handle.options(method_name=method).remote(*arguments)
        try:
            async with asyncio.timeout(OWNER_S):
                return await call
        except TimeoutError:
            cancel(call)
            raise StorageError(
                f"the owner of folders did not answer within {OWNER_S:g} s"
            ) from None
        except asyncio.CancelledError:
            cancel(call)
            raise
        except Exception as error:  # noqa: BLE001 - a border: what Ray raises is data here
            failure = failure_of(error, "the owner of folders")
            if isinstance(failure, EngineServerError):
                raise failure from None
            raise StorageError(str(failure)) from None


def cancel(call: Any) -> None:
    """Cancel the call on the replica, if it still runs."""
    # a call that never reached a replica raises its error here once more
    with suppress(Exception):
        call.cancel()


async def _items(call: Any) -> AsyncGenerator[list[Message], None]:
    async for messages in call:
        yield messages


def _checked(messages: list[Message]) -> list[Message]:
    """Return the messages of a list without an error.

    Raises:
        EngineError: a message holds this error. Chunks before it in the same list are dropped.
    """
    for message in messages:
        if "error" in message:
            raise engine_error(message["error"])
    return messages


def failure_of(error: Exception, name: str) -> EngineError:
    """Return what a failed call of a deployment means; a lost replica is a connection error."""
    from ray.exceptions import (
        NodeDiedError,
        ObjectLostError,
        RayActorError,
        TaskCancelledError,
        WorkerCrashedError,
    )
    from ray.serve.exceptions import (
        BackPressureError,
        DeploymentUnavailableError,
        ReplicaUnavailableError,
    )

    lost = (
        RayActorError,
        NodeDiedError,
        ObjectLostError,
        TaskCancelledError,
        WorkerCrashedError,
        DeploymentUnavailableError,
        ReplicaUnavailableError,
    )
    if isinstance(error, BackPressureError):
        wait = error.retry_after_s
        return EngineOverloadedError(f"{name}: its queue is full", retry_after_s=wait)
    if isinstance(error, lost):
        return EngineConnectionError(f"{name}: its replica was lost ({type(error).__name__})")
    return EngineServerError(f"{name}: its node failed ({type(error).__name__})")
