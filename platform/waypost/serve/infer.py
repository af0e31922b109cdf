"""Decide and answer queries in this process, without a gateway (``waypost infer``)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waypost.config import parse, read_yaml
from waypost.contracts.errors import ArtifactFormatError, ConfigError, Fault, WaypostError
from waypost.contracts.generation import Answer, Chunk, GenerateRequest
from waypost.contracts.records import Decision, Query
from waypost.serve.backends.base import AbsentLLM, LLMClient, Loading
from waypost.serve.backends.dispatcher import Dispatcher, local_llm, local_router
from waypost.serve.backends.llm_replica import Pace
from waypost.serve.config import PoolEntry, ServeArgs, without_router
from waypost.serve.gateway.requests import Call
from waypost.serve.plan import Plan, Served, make_plan, served_entries

BUILDER = "waypost.serve.app:build"


@dataclass(frozen=True)
class Generation:
    """Options of generation; None leaves an option to the engine."""

    max_tokens: int | None = None
    temperature: float | None = None


def read_pool(path: Path, artifact: Path | None, *, allow_plugin_code: bool = False) -> Plan:
    """Read a pool for use in this process.

    Args:
        path: A Serve config, whose first Waypost application is read, or a YAML file with only the
            ``args`` of an application.
        artifact: The router; None takes the file's.
        allow_plugin_code: Allow plug-in code of the artifact to run, also where the file does not.

    Raises:
        ConfigError: with every fault; also where an LLM needs another environment.
        ArtifactError: see `make_plan`.
    """
    data, where = application_args(read_yaml(path), str(path))
    if artifact is not None:
        data = {**without_router(data), "artifact": str(artifact.absolute())}
    if allow_plugin_code:
        data = {**data, "allow_plugin_code": True}
    args = parse(ServeArgs, data, where)
    check_environments(served_entries(args), where)
    try:
        return make_plan(args, where)
    except ArtifactFormatError as error:
        if artifact is not None:
            raise
        key = "artifact" if "artifact" in data else "routers"
        problem = f"{where}: {key}: {error}; train it, or give another with --artifact"
        raise ArtifactFormatError(problem) from None


def application_args(data: Mapping[str, Any], where: str) -> tuple[dict[str, Any], str]:
    """Return the arguments of a file's first Waypost application, and their place for messages.

    Args:
        data: A Serve config, or only the ``args`` of an application.
        where: The file.

    Raises:
        ConfigError: No application is Waypost's.
    """
    applications = data.get("applications")
    if not isinstance(applications, list):
        return dict(data), where
    for index, found in enumerate(applications):
        if isinstance(found, dict) and found.get("import_path") == BUILDER:
            return found.get("args") or {}, f"{where}: applications.{index}.args"
    raise ConfigError([Fault(f"{where}: applications", f"none is built by {BUILDER}")])


def check_environments(entries: Sequence[PoolEntry], where: str) -> None:
    """See that this process can call the LLMs.

    Raises:
        ConfigError: An LLM needs another environment.
    """
    if other := [entry.name for entry in entries if entry.environment is not None]:
        problem = f"{', '.join(other)} needs another environment: serve it (waypost serve)"
        raise ConfigError([Fault(f"{where}: pool", problem)])


class _OnDemandLLM:
    """Client of an LLM in this process, which is loaded before its first request."""

    def __init__(self, client: LLMClient) -> None:
        self._client = client
        self.loading = Loading()
        self.load = client.load
        self._loading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Accept requests; `prepare` loads the LLM."""
        self.loading.loaded(True)

    async def prepare(self) -> None:
        """Load the LLM once; after a failed load it is not ready."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._client.start())
        await asyncio.shield(self._loading)
        self.loading.loaded(self._client.loading.ready)

    async def drain(self) -> None:
        """Return once no request is worked on."""
        await self._client.drain()

    async def close(self) -> None:
        """Close the LLM if it was loaded."""
        if self._loading is not None:
            await self._loading
            await self._client.close()

    async def stream(
        self, request: GenerateRequest, pace: Pace
    ) -> AsyncGenerator[list[Chunk], None]:
        """Answer one request; see `LLMClient.stream`."""
        await self.prepare()
        async with aclosing(self._client.stream(request, pace)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def answer(self, request: GenerateRequest, pace: Pace) -> tuple[Answer, float]:
        """Answer one request; see `LLMClient.answer`."""
        await self.prepare()
        return await self._client.answer(request, pace)


def _on_demand(model: Served) -> LLMClient:
    client = local_llm(model)
    return client if isinstance(client, AbsentLLM) else _OnDemandLLM(client)


async def _load_chosen(dispatcher: Dispatcher, call: Call, decision: Decision) -> None:
    """Load the LLM of a decision, or all of its ranking if they can be called in steps.

    The time-outs of a request begin afterwards. Failover loads a further LLM within them.
    """
    wanted = decision.ranking if dispatcher.takes_steps(call) else (decision.model,)
    for name in wanted:
        if isinstance(client := dispatcher.llms.get(name), _OnDemandLLM):
            await client.prepare()


async def answer_all(
    plan: Plan,
    queries: Sequence[Mapping[str, Any]],
    generation: Generation,
    *,
    model: str | None = None,
    concurrency: int = 4,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Decide and answer queries.

    Args:
        plan: From `read_pool`.
        queries: Queries, as `as_routed` returns them.
        generation: Options of every answer.
        model: The LLM to ask, instead of a decision.
        concurrency: Most queries in flight.
        progress: Called with (done, total) after each query.

    Returns:
        A row for each query, in order: ``query_id``, ``model``, ``answer``, ``usage``,
        ``cost_usd``, ``attempts`` and ``decision``; or ``error`` where it failed. A step router
        adds ``episode``; usage and dollars are then those of all its calls.

    Raises:
        WaypostError: the router cannot be loaded.
    """
    dispatcher = Dispatcher(plan, local_router(plan), _on_demand)
    await dispatcher.start()
    places = asyncio.Semaphore(concurrency)
    done = 0

    async def one(number: int, query: Mapping[str, Any]) -> dict[str, Any]:
        nonlocal done
        async with places:
            row = await _answer(dispatcher, _call(number, query, generation, plan, model))
        done += 1
        progress(done, len(queries))
        return {**_key(query), **row}

    try:
        return await asyncio.gather(*(one(i, query) for i, query in enumerate(queries)))
    finally:
        await dispatcher.close()


def _key(query: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells a row's question: its ids and its text."""
    return {key: query[key] for key in ("query_id", "id", "query") if key in query}


def _call(
    number: int, query: Mapping[str, Any], generation: Generation, plan: Plan, model: str | None
) -> Call:
    parsed = Query.of(query)
    request = GenerateRequest(
        f"query-{number}",
        messages=query.get("messages") or [{"role": "user", "content": parsed.text}],
        max_tokens=generation.max_tokens,
        temperature=generation.temperature,
    )
    router = None if model else plan.router_names[0]
    session = {} if parsed.session is None else {"session": parsed.session.to_dict()}
    return Call(request.request_id, router, model, {**query, **session}, (request,))


async def _answer(dispatcher: Dispatcher, call: Call) -> dict[str, Any]:
    try:
        decided = await dispatcher.decide(call)
        call = decided.call(call)
        await _load_chosen(dispatcher, call, decided.decision)
        if dispatcher.takes_steps(call):
            ended = await dispatcher.episode(call, decided.decision)
            model, attempts, answer = ended.model, ended.attempts, ended.answer
            cost_usd, episode = ended.cost_usd, {"episode": ended.told()}
        else:
            found = await dispatcher.whole(call, decided.decision)
            model, attempts = found.model, found.attempts
            (answer,) = found.answers
            cost_usd, episode = dispatcher.cost_usd(model, answer.usage), {}
    except WaypostError as error:
        return {"error": str(error), "error_type": type(error).__name__}
    return {
        "model": model,
        "answer": answer.text,
        "finish_reason": answer.finish_reason,
        "usage": {
            "input_tokens": answer.usage.input_tokens,
            "output_tokens": answer.usage.output_tokens,
        },
        "cost_usd": cost_usd,
        "attempts": attempts,
        **episode,
        "decision": decided.decision.to_dict(),
        **({} if decided.retrieved is None else {"retrieved": decided.retrieved.told()}),
    }
