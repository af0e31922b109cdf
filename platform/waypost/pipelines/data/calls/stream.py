"""Stream the outcomes of a table of requests, on Ray Data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from waypost.config import PATIENT_THREADS
from waypost.pipelines.data.calls.worker import CallWorker, WorkerConfig
from waypost.pipelines.data.config import LLMConfig

Stage = Callable[[pa.Table], pa.Table]
"""A stage after the worker: maps a table with the columns of `OUTCOME` to another table."""

_HANDS = 8
"""Concurrent blocks of a worker. A block is passed on when all its calls have ended, so a slow call
delays one block, and further blocks keep the worker busy while stages exchange blocks."""

_ROUNDS = 4
"""Maximum rounds of concurrent calls in a block; each block costs 30 ms of CPU."""


@dataclass(frozen=True)
class Stream:
    """Source of the outcomes of one LLM.

    Attributes:
        llm: Name of the LLM.
        llm_config: Its configuration.
        log_folder: Folder of the log of its answers.
        limiter: Handle of the run's `RateLimiter` actor.
        booked: Whether each call is booked there.
        cpus: CPUs of an actor.
        stage_tasks: Maximum concurrent tasks of a further stage.
    """

    llm: str
    llm_config: LLMConfig
    log_folder: Path
    limiter: Any
    booked: bool
    cpus: float
    stage_tasks: int = 1

    def outcomes(
        self, requests: pa.Table, prompts: Any, stage: Stage | None = None
    ) -> Iterator[pa.Table]:
        """Yield the outcomes of the requests as they arrive, in any order.

        Args:
            requests: Columns of `REQUESTS`.
            prompts: Object reference of the table whose rows their ``item`` numbers.
            stage: A further stage, run by tasks on any node.
        """
        import ray
        from ray.data import ActorPoolStrategy

        if requests.num_rows == 0:
            return
        actors = min(self.llm_config.actors, requests.num_rows)
        concurrency = math.ceil(self.llm_config.concurrency / actors)
        config = WorkerConfig(
            self.llm, self.llm_config, concurrency, str(self.log_folder), self.booked
        )
        block = min(_ROUNDS * concurrency, math.ceil(requests.num_rows / (actors * _HANDS)))
        n = requests.num_rows
        parts = [{"begin": at, "end": min(at + block, n)} for at in range(0, n, block)]
        # from_items makes its blocks in this process; from_arrow starts a task for each
        data = ray.data.from_items(parts, override_num_blocks=len(parts)).map_batches(
            CallWorker,
            fn_constructor_args=(config, ray.put(requests), prompts, self.limiter),
            batch_size=None,
            compute=ActorPoolStrategy(
                size=actors,
                max_tasks_in_flight_per_actor=_HANDS + 1,
                max_concurrent_calls_per_actor=_HANDS,
            ),
            num_cpus=self.cpus,
            num_gpus=self.llm_config.gpus,
            runtime_env={"env_vars": PATIENT_THREADS},
        )
        if stage is not None:
            data = data.map_batches(
                stage, batch_size=None, batch_format="pyarrow", concurrency=self.stage_tasks
            )
        yield from data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
