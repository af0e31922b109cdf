"""The stage of the pipeline that calls an LLM: an async callable that lives in Ray Data's actors.

Many batches are in its hands at once and one semaphore bounds the calls over all of them, so that
a slow answer holds up nothing but itself. An answer is in the log before anything else is done
with it but to begin the next call: who kills this process loses the calls in flight and no more.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
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
from waypost.pipelines.data.config import Candidate

logger = logging.getLogger(__name__)

ANSWERS = "answers"
"""Kind of the log of answers: the response cache."""

LEFT = "left"
"""In place of an error's text: the budget did not hold the call, which was not made."""

_TELL_S = 0.5
_SPREAD_S = 0.1
_LOOK_AGAIN_S = 0.25
CHARACTERS_A_TOKEN = 3.0
"""A low guess, so that what is booked for a prompt is rather too much than too little."""

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
"""What comes of a request: its row number, its item, and the answer, or why there is none."""


@dataclass(frozen=True)
class Asking:
    """What an asker needs to know; plain data, because it travels to other processes.

    Attributes:
        llm: Name.
        candidate: How it is called and what it costs.
        concurrency: Calls in flight of one asker.
        log_folder: Of the answers.
        booked: Whether each call is booked at the ledger: there are rates or a budget.
    """

    llm: str
    candidate: Candidate
    concurrency: int
    log_folder: str
    booked: bool


class Asker:
    """Answers rows of a table of requests (`requests.REQUESTS`), by their numbers.

    Args:
        asking: What to call, and how.
        requests: Object reference of the table.
        prompts: Of a table with the column `PROMPT`, whose rows are the items of the requests.
        ledger: Handle of the run's `Ledger`.
    """

    def __init__(self, asking: Asking, requests: Any, prompts: Any, ledger: Any) -> None:
        import ray

        self._asking = asking
        self._requests: pa.Table = ray.get(requests)
        self._prompts: pa.ChunkedArray = ray.get(prompts)[PROMPT]
        self._ledger = ledger
        folder = Path(asking.log_folder)
        self._cache = LogIndex(folder, ANSWERS)
        self._log = AppendLog(folder, ANSWERS)
        self._slots = asyncio.Semaphore(asking.concurrency)
        self._starting = asyncio.Lock()
        self._engine: Engine | None = None
        self._cannot_start: str | None = None
        self._tally = Tally()
        self._told_at = 0.0
        self._begun = 0

    async def __call__(self, batch: dict[str, Any]) -> pa.Table:
        """Return a row of `OUTCOME` for each row number from ``begin`` to before ``end``."""
        parts = zip(batch["begin"].tolist(), batch["end"].tolist(), strict=True)
        numbers = [number for begin, end in parts for number in range(begin, end)]
        requests = self._requests.take(numbers).to_pylist()
        for request in requests:
            request["prompt"] = self._prompts[request["item"]].as_py()
        outcomes = await asyncio.gather(*map(self._outcome, numbers, requests))
        self._tell(0.0)
        return pa.Table.from_pylist(outcomes, schema=OUTCOME)

    async def _outcome(self, number: int, request: dict[str, Any]) -> dict[str, Any]:
        record = self._cache.get(request["key"])
        cached = record is not None
        if record is None:
            async with self._slots:
                await self._spread()
                record = await self._asked(request)
            # Who waits for the slot begins its call first; this answer's own work is done while
            # that call is under way.
            await asyncio.sleep(0)
            if record["error"] is None:
                self._log.append(request["key"], record)
        self._count(record, cached)
        answer = {name: record.get(name) for name in ANSWER}
        return {"request": number, "item": request["item"], "cached": cached, **answer}

    async def _spread(self) -> None:
        # Calls that begin together end together, and then each waits for those before it to be
        # taken in, round after round. So the first ones begin one after another.
        number, most = self._begun, self._asking.concurrency
        self._begun += 1
        if number < most:
            await asyncio.sleep(_SPREAD_S * number / most)

    async def _asked(self, request: dict[str, Any]) -> dict[str, Any]:
        if not await self._started():
            return {"error": self._cannot_start}
        if not self._asking.booked:
            return await self._call(request)
        candidate = self._asking.candidate
        prompt = len(request["prompt"]) / CHARACTERS_A_TOKEN
        tokens = prompt + request["max_tokens"]
        usd = candidate.cost_usd(int(prompt), request["max_tokens"]) or 0.0
        while (wait := await self._ledger.admit.remote(self._asking.llm, tokens, usd)) is None:
            if not await self._ledger.waiting.remote():
                return {"error": LEFT}
            await asyncio.sleep(_LOOK_AGAIN_S)
        await asyncio.sleep(wait)
        record = await self._call(request)
        used = (record.get("input_tokens") or 0) + (record.get("output_tokens") or 0)
        spent = record.get("cost_usd") or 0.0
        self._ledger.settle.remote(self._asking.llm, tokens, usd, used, spent)
        return record

    async def _call(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._engine is not None
        asked = GenerateRequest(
            request_id=request["key"].hex(),
            messages=[{"role": "user", "content": request["prompt"]}],
            max_tokens=request["max_tokens"],
            temperature=request["temperature"],
            top_p=request["top_p"],
            seed=request["seed"],
            timeout_s=self._asking.candidate.timeout_s,
        )
        began = time.perf_counter()
        try:
            answer = await collect(self._engine, asked)
        except EngineError as error:
            return {"error": f"{type(error).__name__}: {error}"}
        except Exception as error:
            logger.exception("%s: the engine failed in a way it should not", self._asking.llm)
            return {"error": f"{type(error).__name__}: {error}"}
        usage = answer.usage
        return {
            "error": None,
            # lone surrogates are in no column of a table
            "response": answer.text.encode("utf-8", "replace").decode(),
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cost_usd": self._asking.candidate.cost_usd(usage.input_tokens, usage.output_tokens),
            "latency_s": round(time.perf_counter() - began, 4),
        }

    async def _started(self) -> bool:
        async with self._starting:
            if self._engine is None and self._cannot_start is None:
                candidate = self._asking.candidate
                try:
                    engine = make_engine(candidate.engine, candidate.config, self._asking.llm)
                    await engine.start()
                    self._engine = engine
                    # Modules and weights stay: a collection that goes through them again holds
                    # all calls up for 0.1 to 0.2 s.
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
        self._tell(_TELL_S)

    def _tell(self, after_s: float) -> None:
        now = time.monotonic()
        if self._tally.done and now - self._told_at >= after_s:
            self._ledger.tell.remote(self._asking.llm, self._tally)
            self._tally, self._told_at = Tally(), now
