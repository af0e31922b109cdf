"""From a table of requests to a stream of outcomes, on Ray Data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from waypost.config import PATIENT_THREADS
from waypost.pipelines.data.calls.worker import Asker, Asking
from waypost.pipelines.data.config import Candidate

Stage = Callable[[pa.Table], pa.Table]
"""A stage behind the asker: from a table with the columns of `OUTCOME` to one of its own."""

_HANDS = 8
"""Blocks in an asker's hands. One is given on when all its calls have ended, so that each slow call
holds one back; and while the stages around move blocks, an asker must not run dry."""

_ROUNDS = 4
"""Most rounds of calls in flight that are a block: a block costs 30 ms of CPU whatever it holds."""


@dataclass(frozen=True)
class Stream:
    """How the outcomes of one LLM are made.

    Attributes:
        llm: Its name.
        candidate: How it is called.
        log_folder: Of its answers.
        ledger: Handle of the run's `Ledger` actor.
        booked: Whether each call is booked there.
        cpus: CPUs of an actor.
        stage_tasks: Most tasks of a further stage at once.
    """

    llm: str
    candidate: Candidate
    log_folder: Path
    ledger: Any
    booked: bool
    cpus: float
    stage_tasks: int = 1

    def outcomes(
        self, requests: pa.Table, prompts: Any, stage: Stage | None = None
    ) -> Iterator[pa.Table]:
        """Yield what comes of the requests, in no order, as it comes.

        Args:
            requests: Columns of `REQUESTS`.
            prompts: Object reference of the table that their ``item`` counts the rows of.
            stage: A further stage, run by tasks on any node.
        """
        import ray
        from ray.data import ActorPoolStrategy

        if requests.num_rows == 0:
            return
        actors = min(self.candidate.actors, requests.num_rows)
        concurrency = math.ceil(self.candidate.concurrency / actors)
        asking = Asking(self.llm, self.candidate, concurrency, str(self.log_folder), self.booked)
        block = min(_ROUNDS * concurrency, math.ceil(requests.num_rows / (actors * _HANDS)))
        n = requests.num_rows
        parts = [{"begin": at, "end": min(at + block, n)} for at in range(0, n, block)]
        # from_items makes its blocks here; from_arrow has a task look at each of them
        data = ray.data.from_items(parts, override_num_blocks=len(parts)).map_batches(
            Asker,
            fn_constructor_args=(asking, ray.put(requests), prompts, self.ledger),
            batch_size=None,
            compute=ActorPoolStrategy(
                size=actors,
                max_tasks_in_flight_per_actor=_HANDS + 1,
                max_concurrent_calls_per_actor=_HANDS,
            ),
            num_cpus=self.cpus,
            num_gpus=self.candidate.gpus,
            runtime_env={"env_vars": PATIENT_THREADS},
        )
        if stage is not None:
            data = data.map_batches(
                stage, batch_size=None, batch_format="pyarrow", concurrency=self.stage_tasks
            )
        yield from data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
