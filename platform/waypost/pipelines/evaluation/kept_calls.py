"""Live calls of evaluations, kept in the folder of the report so that none is made twice.

``calls/<llm>`` holds the log of answers by cell id, a log of failed calls, and ``llm.json``: the
facts of the LLM that cell ids depend on, and its prices. With them a later run without the LLMs
finds the same calls.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from waypost.contracts.atomic import write_text
from waypost.contracts.errors import ConfigError, SchemaError, names
from waypost.contracts.pricing import PriceList
from waypost.contracts.steps import Call
from waypost.pipelines.data.calls.ask import ask, limiter_of, stream_of
from waypost.pipelines.data.calls.log import AppendLog, LogIndex, log_folder
from waypost.pipelines.data.calls.parallel import cpus_of_run, run_parallel
from waypost.pipelines.data.calls.requests import cell_id
from waypost.pipelines.data.calls.worker import ANSWERS, LEFT
from waypost.pipelines.data.config import LLMConfig
from waypost.pipelines.data.embeddings import Progress
from waypost.pipelines.data.responses import actor_cpus
from waypost.pipelines.evaluation.pool import CallablePool, Sampling
from waypost.ray_session import quiet_ray_data, ray_session
from waypost.storage import alone_in

logger = logging.getLogger(__name__)

FAILED = "failed"
"""Kind of the log of calls without an answer, with the reason of the last attempt."""

FACTS = "llm.json"

MAX_TOKENS = 512
"""Most tokens of an answer to a call without a limit."""

Requests = Mapping[str, Mapping[bytes, Mapping[str, Any]]]
"""Requests by LLM and cell id."""


class KeptCalls:
    """The kept calls of a report's folder, and the LLMs that further ones may be made to.

    Args:
        folder: Folder of the calls; it need not exist.
        pool: LLMs that may be called; None makes no call.
        progress: Called with (done, total) calls of a round.
    """

    def __init__(
        self, folder: Path, pool: CallablePool | None = None, progress: Progress | None = None
    ) -> None:
        self.pool = pool
        self._folder = folder.absolute()  # Ray's workers have another working directory
        self._progress = progress
        self._facts: dict[str, tuple[LLMConfig, Sampling]] = {}
        self._logs: dict[str, LogIndex] = {}
        self._failures: dict[str, LogIndex] = {}
        self._made: dict[bytes, Mapping[str, Any]] = {}
        self._open = ExitStack()
        self._limiter: Any = None

    def __enter__(self) -> KeptCalls:
        """Lock the folder where calls may be made.

        Raises:
            FolderInUseError: Another process makes calls in it.
        """
        if self.pool is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._open.enter_context(alone_in(self._folder))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        # The prices may be others than those of the run that made the calls.
        for name in () if self.pool is None else self.pool.llms:
            if self._where(name).is_dir():
                self._write_facts(name)
        with suppress(OSError):  # it holds calls, or was never made
            self._folder.rmdir()

    @property
    def empty(self) -> bool:
        """Whether no call was ever kept here."""
        return not any(self._folder.glob(f"*/{FACTS}"))

    def request(
        self, call: Call, *, answers: bool, max_tokens: int | None, repeat: int
    ) -> dict[str, Any] | None:
        """Return the request of a call, with its cell id under ``key``.

        Args:
            call: The call.
            answers: Whether it asks for an answer to the query. The pool's temperature and seed
                then apply, and ``max_tokens``, as the options of a client do where it is served.
            max_tokens: Most tokens of an answer to the query; None is `MAX_TOKENS`.
            repeat: Number of equal calls of the episode before it. A sampled call without a seed
                gets one of its own by it.

        Returns:
            None where neither the pool nor the kept calls have the LLM.
        """
        found = self._of(call.model)
        if found is None:
            return None
        llm_config, sampling = found
        seed = sampling.seed if call.seed is None or answers else call.seed
        temperature = sampling.temperature if answers else float(call.temperature)
        most = max_tokens if answers and call.max_tokens is None else call.max_tokens
        request = {
            "prompt": call.prompt,
            "max_tokens": MAX_TOKENS if most is None else most,
            "temperature": temperature,
            "top_p": sampling.top_p,
            "seed": seed + repeat if temperature > 0 and call.seed is None else seed,
            **({"stop": list(call.stop)} if call.stop else {}),
            **({"raw": True} if call.raw else {}),
        }
        return {"key": cell_id(call.model, llm_config, request), **request}

    def get(self, llm: str, key: bytes) -> Mapping[str, Any] | None:
        """Return the record of a call; None where it has to be made.

        A failed call of an earlier run has no record where it can be made again.
        """
        if key in self._made:
            return self._made[key]
        record = _index(self._logs, self._where(llm), ANSWERS, self._open).get(key)
        if record is not None:
            return {"error": None, **record}
        if self.pool is not None and llm in self.pool.llms:
            return None
        return _index(self._failures, self._where(llm), FAILED, self._open).get(key)

    def cost_usd(self, llm: str, record: Mapping[str, Any]) -> float | None:
        """Return the dollars of an answer at the prices of the pool; None where unknown."""
        found = self._of(llm)
        return found and found[0].cost_usd(record["input_tokens"], record["output_tokens"])

    def ask(self, requests: Requests) -> None:
        """Make calls, the LLMs in parallel; `get` then finds a record of each.

        Args:
            requests: As `request` returns them.

        Raises:
            SchemaError: The pool lacks an LLM.
            ClusterError: Ray does not start.
        """
        assert self.pool is not None  # without a pool the caller says what is missing
        if unknown := sorted(set(requests) - set(self.pool.llms)):
            raise SchemaError(
                f"{self.pool.where}: has no LLM {names(unknown)}, which the router calls; it has "
                f"{names(list(self.pool.llms))}"
            )
        if self._limiter is None:
            self._start(self.pool)
        llms = {name: self.pool.llms[name] for name in requests}
        for name in requests:
            self._write_facts(name)
        total = sum(map(len, requests.values()))
        told = _summed(self._progress, total)
        found: dict[str, dict[bytes, Mapping[str, Any]]] = {}
        cpus = cpus_of_run()
        failed = run_parallel(
            {
                name: partial(self._ask_one, name, one, requests[name], cpus, told, found)
                for name, one in llms.items()
            },
            {name: actor_cpus(one) * one.actors for name, one in llms.items()},
            cpus,
        )
        for name, error in failed.items():
            logger.error("%s: its calls ended early: %s", name, error)
        for name, wanted in requests.items():
            reason = {"error": _early(failed.get(name))}
            records = {key: found.get(name, {}).get(key, reason) for key in wanted}
            self._made.update(records)
            self._keep_failures(name, records)

    def _start(self, pool: CallablePool) -> None:
        self._open.enter_context(ray_session())
        quiet_ray_data()
        self._limiter = limiter_of(pool.llms, pool.budget_usd)

    def _ask_one(
        self,
        name: str,
        llm_config: LLMConfig,
        requests: Mapping[bytes, Mapping[str, Any]],
        cpus: float,
        told: Callable[[str, int, int], None],
        found: dict[str, dict[bytes, Mapping[str, Any]]],
    ) -> None:
        taken = min(actor_cpus(llm_config), cpus)
        budget = self.pool is not None and self.pool.budget_usd is not None
        where = self._where(name)
        source = stream_of(name, llm_config, where, self._limiter, taken, budget=budget)
        # Local LLMs read the common beginning of consecutive prompts once.
        rows = sorted(requests.values(), key=lambda one: str(one["prompt"]))
        found[name] = ask(source, rows, told)

    def _keep_failures(self, llm: str, records: Mapping[bytes, Mapping[str, Any]]) -> None:
        log = AppendLog(self._where(llm), FAILED)
        bad = [(key, {"error": r["error"]}) for key, r in records.items() if r["error"] is not None]
        log.extend(bad)
        log.close()

    def _where(self, llm: str) -> Path:
        return log_folder(self._folder, llm)

    def _of(self, llm: str) -> tuple[LLMConfig, Sampling] | None:
        if self.pool is not None and llm in self.pool.llms:
            return self.pool.llms[llm], self.pool.sampling
        if llm not in self._facts:
            path = self._where(llm) / FACTS
            if not path.is_file():
                return None
            self._facts[llm] = _read_facts(path)
        return self._facts[llm]

    def _write_facts(self, llm: str) -> None:
        found = self._of(llm)
        assert found is not None  # `ask` has checked that the pool holds it
        llm_config, sampling = found
        config = {key: llm_config.config[key] for key in _KEYS if key in llm_config.config}
        prices = llm_config.model_dump(include=set(PriceList.model_fields), exclude_none=True)
        facts = {"engine": llm_config.engine, "config": config, "revision": llm_config.revision}
        folder = self._where(llm)
        folder.mkdir(parents=True, exist_ok=True)
        data = {"llm": {**facts, **prices}, "sampling": asdict(sampling)}
        write_text(folder / FACTS, json.dumps(data, indent=2) + "\n")


_KEYS = ("model", "revision")
"""Settings of an engine that a cell id depends on; others may hold what no report should."""


def _read_facts(path: Path) -> tuple[LLMConfig, Sampling]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return LLMConfig(**data["llm"]), Sampling(**data["sampling"])
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        problem = f"not readable ({type(error).__name__}); remove its folder to make the calls anew"
        raise SchemaError(f"{path}: {problem}") from None


def _index(kept: dict[str, LogIndex], folder: Path, kind: str, stack: ExitStack) -> LogIndex:
    name = str(folder)
    if name not in kept:
        kept[name] = stack.enter_context(LogIndex(folder, kind))
    return kept[name]


def _summed(progress: Progress | None, total: int) -> Callable[[str, int, int], None]:
    """Return a watcher of several LLMs that tells the sum of their calls."""
    done: dict[str, int] = {}
    lock = threading.Lock()

    def told(llm: str, count: int, _: int) -> None:
        with lock:
            done[llm] = count
            if progress is not None:
                progress(sum(done.values()), total)

    return told


def _early(error: Exception | None) -> str:
    kind = "no outcome" if error is None else type(error).__name__
    return f"{kind}: the calls of this LLM ended early"


def is_left(record: Mapping[str, Any]) -> bool:
    """Return whether a call was not made because of the budget."""
    return bool(record["error"] == LEFT)
