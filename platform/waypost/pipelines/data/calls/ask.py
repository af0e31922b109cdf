"""Ask one LLM a list of requests on Ray Data, within its rate limits and the run's budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from waypost.contracts.records import Watcher
from waypost.pipelines.data.calls.rate_limits import RateLimiter, RateLimits
from waypost.pipelines.data.calls.requests import PROMPT, REQUESTS
from waypost.pipelines.data.calls.stream import Stream
from waypost.pipelines.data.config import LLMConfig


def limiter_of(llms: Mapping[str, LLMConfig], budget_usd: float | None = None) -> Any:
    """Start the actor that holds the rate limits and the budget of a run; Ray must be running.

    Args:
        llms: The LLMs of the run, by name.
        budget_usd: Maximum dollars for the answers of the run; None is no limit.

    Returns:
        The handle of a `RateLimiter`.
    """
    import ray

    rates = {name: _limits(one) for name, one in llms.items()}
    return ray.remote(num_cpus=0)(RateLimiter).remote(rates, budget_usd)


def stream_of(
    llm: str,
    llm_config: LLMConfig,
    log_folder: Path,
    limiter: Any,
    cpus: float,
    *,
    budget: bool = False,
) -> Stream:
    """Return the source of an LLM's answers.

    Args:
        llm: Name of the LLM.
        llm_config: Its configuration.
        log_folder: Folder of the log of its answers.
        limiter: From `limiter_of`.
        cpus: CPUs of an actor.
        budget: Whether the run has a budget.
    """
    booked = budget or _limits(llm_config) != RateLimits()
    return Stream(llm, llm_config, log_folder, limiter, booked, cpus)


def _limits(llm_config: LLMConfig) -> RateLimits:
    return RateLimits(llm_config.requests_per_minute, llm_config.tokens_per_minute)


def ask(
    source: Stream, requests: Sequence[Mapping[str, Any]], progress: Watcher | None = None
) -> dict[bytes, Mapping[str, Any]]:
    """Ask for the answers and return them by key; Ray must be running.

    An answer is logged in the folder of the source at its arrival. A request with a logged answer
    is not asked again.

    Args:
        source: From `stream_of`.
        requests: ``key``, ``prompt`` and the other columns of `REQUESTS`, without ``item``;
            ``stop`` and ``raw`` may be absent. Keys are unique.
        progress: Called with the LLM's name, and its finished and total requests.

    Returns:
        Rows of `OUTCOME` by key; ``error`` says why there is no answer.
    """
    import ray

    numbers = {text: at for at, text in enumerate(dict.fromkeys(r["prompt"] for r in requests))}
    prompts = ray.put(pa.table({PROMPT: pa.array(list(numbers), pa.large_string())}))
    rows = [
        {name: one.get(name) for name in REQUESTS.names if name != "item"}
        | {"item": numbers[one["prompt"]]}
        for one in requests
    ]
    table = pa.Table.from_pylist(rows, schema=REQUESTS)
    records: dict[bytes, Mapping[str, Any]] = {}
    for outcomes in source.outcomes(table, prompts):
        for outcome in outcomes.to_pylist():
            records[requests[outcome["request"]]["key"]] = outcome
        if progress is not None:
            progress(source.llm, len(records), len(requests))
    return records
