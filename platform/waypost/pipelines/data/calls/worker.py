"""The worker that calls an LLM: an async callable in an actor of Ray Data.

The worker processes many batches at once, and one semaphore limits the calls over all of them, so a
slow answer delays nothing else. An answer is logged before any further step, so a killed process
loses only the calls in flight.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from waypost.contracts.errors import EngineError, WaypostError
from waypost.contracts.generation import GenerateRequest
from waypost.engines import make_engine
from waypost.engines.base import Engine, collect
from waypost.pipelines.data.calls.log import AppendLog, LogIndex
from waypost.pipelines.data.calls.rate_limits import Tally
from waypost.pipelines.data.calls.requests import PROMPT
from waypost.pipelines.data.config import LLMConfig

logger = logging.getLogger(__name__)

ANSWERS = "answers"
"""Kind of the log of answers: the response cache."""

LEFT = "left"
"""Error text of a call that was not made because of the budget."""

_TELL_S = 0.5
_SPREAD_S = 0.1
_LOOK_AGAIN_S = 0.25
CHARACTERS_A_TOKEN = 3.0
"""A low estimate, so that bookings for a prompt are too large rather than too small."""

ANSWER = ("error", "response", "input_tokens", "output_tokens", "cost_usd", "latency_s")
OUTCOME = pa.schema(
    [
        ("request", pa.int64()),
        ("item", pa.int64()),
        ("cached", pa.bool_()),
        ("error", pa.string()),
        ("response", pa.string()),
        ("input_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("cost_usd", pa.float64()),
        ("latency_s", pa.float32()),
    ]
)
"""Outcome of a request: its row number, its item, and the answer or the error."""


@dataclass(frozen=True)
class WorkerConfig:
    """Configuration of a worker; plain data, sent to other processes.

    Attributes:
        llm: Name of the LLM.
        llm_config: Its configuration and prices.
        concurrency: Maximum concurrent calls of one worker.
        log_folder: Folder of the log of answers.
        booked: Whether calls are booked at the rate limiter: there are rate limits or a budget.
    """

    llm: str
    llm_config: LLMConfig
    concurrency: int
    log_folder: str
    booked: bool


def request_of(row: Mapping[str, Any], timeout_s: float | None) -> GenerateRequest:
    """Return the request of a row of `requests.REQUESTS`, with its prompt."""
    raw = bool(row["raw"])
    return GenerateRequest(
        request_id=row["key"].hex(),
        messages=None if raw else [{"role": "user", "content": row["prompt"]}],
        prompt=row["prompt"] if raw else None,
        max_tokens=row["max_tokens"],
        temperature=row["temperature"],
        top_p=row["top_p"],
        seed=row["seed"],
        stop=tuple(row["stop"] or ()),
        timeout_s=timeout_s,
    )


class CallWorker:
    """A worker that answers rows of a table of requests (`requests.REQUESTS`) by row number.

    Args:
        config: Configuration of the worker.
        requests: Object reference of the table.
        prompts: Object reference of a table with the column `PROMPT`; ``item`` is its row number.
        limiter: Handle of the run's `RateLimiter`.
    """

    def __init__(self, config: WorkerConfig, requests: Any, prompts: Any, limiter: Any) -> None:
        import ray

        self._config = config
        self._requests: pa.Table = ray.get(requests)
        self._prompts: pa.ChunkedArray = ray.get(prompts)[PROMPT]
        self._limiter = limiter
        folder = Path(config.log_folder)
        self._cache = LogIndex(folder, ANSWERS)
        self._log = AppendLog(folder, ANSWERS)
        self._slots = asyncio.Semaphore(config.concurrency)
        self._starting = asyncio.Lock()
        self._engine: Engine | None = None
        self._cannot_start: str | None = None
        self._tally = Tally()
        self._reported_at = 0.0
        self._begun = 0

    async def __call__(self, batch: dict[str, Any]) -> pa.Table:
        """Return a row of `OUTCOME` for each row number from ``begin`` to before ``end``."""
        parts = zip(batch["begin"].tolist(), batch["end"].tolist(), strict=True)
        numbers = [number for begin, end in parts for number in range(begin, end)]
        requests = self._requests.take(numbers).to_pylist()
        for request in requests:
            request["prompt"] = self._prompts[request["item"]].as_py()
        outcomes = await asyncio.gather(*map(self._outcome, numbers, requests))
        self._report(0.0)
        return pa.Table.from_pylist(outcomes, schema=OUTCOME)

    async def _outcome(self, number: int, request: dict[str, Any]) -> dict[str, Any]:
        record = self._cache.get(request["key"])
        cached = record is not None
        if record is None:
            async with self._slots:
                await self._spread()
                record = await self._asked(request)
            # Let the call that waits for this slot start before this answer is processed.
            await asyncio.sleep(0)
            if record["error"] is None:
                self._log.append(request["key"], record)
        self._count(record, cached)
        answer = {name: record.get(name) for name in ANSWER}
        return {"request": number, "item": request["item"], "cached": cached, **answer}

    async def _spread(self) -> None:
        # Calls that start together also end together and then queue for processing, round after
        # round. So the first ones start one after another.
        number, most = self._begun, self._config.concurrency
        self._begun += 1
        if number < most:
            await asyncio.sleep(_SPREAD_S * number / most)

    async def _asked(self, request: dict[str, Any]) -> dict[str, Any]:
        if not await self._started():
            return {"error": self._cannot_start}
        if not self._config.booked:
            return await self._call(request)
        llm_config = self._config.llm_config
        prompt = len(request["prompt"]) / CHARACTERS_A_TOKEN
        tokens = prompt + request["max_tokens"]
        usd = llm_config.cost_usd(int(prompt), request["max_tokens"]) or 0.0
        while (wait := await self._limiter.admit.remote(self._config.llm, tokens, usd)) is None:
            if not await self._limiter.waiting.remote():
                return {"error": LEFT}
            await asyncio.sleep(_LOOK_AGAIN_S)
        await asyncio.sleep(wait)
        record = await self._call(request)
        used = (record.get("input_tokens") or 0) + (record.get("output_tokens") or 0)
        spent = record.get("cost_usd") or 0.0
        self._limiter.settle.remote(self._config.llm, tokens, usd, used, spent)
        return record

    async def _call(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._engine is not None
        asked = request_of(request, self._config.llm_config.timeout_s)
        began = time.perf_counter()
        try:
            answer = await collect(self._engine, asked)
        except EngineError as error:
            return {"error": f"{type(error).__name__}: {error}"}
        except Exception as error:
            logger.exception("%s: unexpected engine failure", self._config.llm)
            return {"error": f"{type(error).__name__}: {error}"}
        usage = answer.usage
        return {
            "error": None,
            # Arrow columns cannot hold lone surrogates
            "response": answer.text.encode("utf-8", "replace").decode(),
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cost_usd": self._config.llm_config.cost_usd(
                usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens
            ),
            "latency_s": round(time.perf_counter() - began, 4),
        }

    async def _started(self) -> bool:
        async with self._starting:
            if self._engine is None and self._cannot_start is None:
                llm_config = self._config.llm_config
                try:
                    engine = make_engine(llm_config.engine, llm_config.config, self._config.llm)
                    await engine.start()
                    self._engine = engine
                    # Freeze modules and weights: a collection over them would block all calls
                    # for 0.1 to 0.2 s.
                    gc.collect()
                    gc.freeze()
                except WaypostError as error:
                    self._cannot_start = f"{type(error).__name__}: {error}"
        return self._engine is not None

    def _count(self, record: dict[str, Any], cached: bool) -> None:
        tally, error = self._tally, record.get("error")
        tally.done += 1
        if cached:
            tally.cached += 1
        elif error == LEFT:
            tally.left += 1
        elif error is not None:
            tally.failed += 1
            tally.errors[error.partition(":")[0]] += 1
        else:
            tally.usd += record.get("cost_usd") or 0.0
        self._report(_TELL_S)

    def _report(self, after_s: float) -> None:
        now = time.monotonic()
        if self._tally.done and now - self._reported_at >= after_s:
            self._limiter.add_tally.remote(self._config.llm, self._tally)
            self._tally, self._reported_at = Tally(), now
