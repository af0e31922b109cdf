"""The run of one LLM: its missing cells, the order of its calls, and the scoring stage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from waypost.benchmarks.catalog import find_scorer
from waypost.config import settings
from waypost.contracts.errors import WaypostError
from waypost.pipelines.data.assemble import ERRORS, ROWS
from waypost.pipelines.data.calls.log import AppendLog, LogIndex
from waypost.pipelines.data.calls.rate_limits import Tally
from waypost.pipelines.data.calls.requests import (
    KEY_BYTES,
    Keys,
    RowNumbers,
    cell_id,
    first_of_each,
    key_array,
    longest_first,
    request_table,
)
from waypost.pipelines.data.calls.stream import Stream
from waypost.pipelines.data.calls.worker import CHARACTERS_A_TOKEN, LEFT, OUTCOME
from waypost.pipelines.data.config import DataConfig, LLMConfig
from waypost.pipelines.data.questions_table import row_key
from waypost.registry import searching
from waypost.scorers import score

SCORED = OUTCOME.append(pa.field("performance", pa.float32()))
"""An outcome with its score; null without an answer, or if scoring failed."""

_NEEDED = ("metric", "ground_truth", "choices", "query")
_DECIDING = ("query", "max_tokens", "query_id", "metric", "ground_truth", "choices")
_CHUNK = 1024


def start_scorers(count: int) -> None:
    """Start Ray processes for scoring ahead of time, and return at once.

    Their imports take a second of CPU each, which would otherwise delay the first calls.
    """
    import ray

    ready = ray.remote(_imports)
    for _ in range(count):
        ready.remote()


def _imports() -> None:
    import ray.data  # noqa: F401 - the stage's tasks need it


def score_outcomes(
    outcomes: pa.Table, *, questions: Any, plugin_paths: Sequence[Path] = ()
) -> pa.Table:
    """Score a table of outcomes.

    An answer that cannot be scored (invalid tests, no sandbox) keeps its text and gets an error
    that begins with ``not scored``. The next run scores it again without a call.

    Args:
        outcomes: Columns of `OUTCOME`.
        questions: Object reference of the questions; an outcome's ``item`` is their row.
        plugin_paths: Folders of custom tasks with their own metric; those of this process come
            first, because a job finds them in its working directory.
    """
    import ray

    known = ray.get(questions)
    paths = [*settings().plugin_paths, *plugin_paths]
    rows = outcomes.to_pylist()
    with searching(paths):
        for row in rows:
            row["performance"] = None
            if row["error"] is None:
                question = {name: known[name][row["item"]].as_py() for name in _NEEDED}
                try:
                    row["performance"] = score_answer(row["response"], question)
                except WaypostError as error:
                    row["error"] = f"not scored: {type(error).__name__}: {error}"
    return pa.Table.from_pylist(rows, schema=SCORED)


def score_answer(response: str, question: Mapping[str, Any]) -> float:
    """Return the score of an answer, in [0, 1].

    Args:
        response: The unchanged response of the LLM.
        question: ``metric`` and ``query``, and as JSON ``ground_truth`` and ``choices``.

    Raises:
        WaypostError: The metric is unknown, or the answer cannot be scored.
    """
    truth, choices = json.loads(question["ground_truth"]), json.loads(question["choices"])
    return score(find_scorer(question["metric"]), response, truth, choices, query=question["query"])


class LLMRun:
    """Work and progress of one LLM in a run.

    Args:
        llm: Name of the LLM.
        llm_config: Its configuration.
        folder: Folder of its logs.
        questions: Columns of `questions_table.QUESTIONS`.
        order: Row numbers of the questions, in the order of the calls.
        config: The run.
        scorer_version: Version of the scorers; rows of other versions are ignored.

    Attributes:
        row_keys: Key of each question's row, (n, 16).
        todo: Number of cells without a row.
        max_cost_usd: Upper bound of their cost in dollars; 0 if a price is unknown.
        tally: Counts of this run.
        reasons: Kind of error -> its first message.
    """

    def __init__(
        self,
        llm: str,
        llm_config: LLMConfig,
        folder: Path,
        questions: pa.Table,
        order: RowNumbers,
        config: DataConfig,
        scorer_version: str,
    ) -> None:
        self.llm, self.llm_config, self.folder = llm, llm_config, folder
        self.tally = Tally()
        self.reasons: dict[str, str] = {}
        self._sampling = {
            "temperature": config.temperature, "top_p": config.top_p, "seed": config.seed,
        }  # fmt: skip
        self._max_tokens: NDArray[np.int32] = questions["max_tokens"].to_numpy()
        self._cells, self.row_keys = self._keys(questions, scorer_version)
        with LogIndex(folder, ROWS) as written:
            lacking = ~written.has(self.row_keys)
        todo = longest_first(order[lacking[order]], self._max_tokens, llm_config.concurrency)
        # A cell shared by several questions is called once; the second round reads it from the log.
        first = first_of_each(self._cells[todo])
        self._rounds = [todo[first], todo[~first]]
        self.todo = len(todo)
        characters = pc.utf8_length(questions["query"]).to_numpy()[self._rounds[0]].sum()
        tokens = int(self._max_tokens[self._rounds[0]].sum(dtype=np.int64))
        self.max_cost_usd = llm_config.cost_usd(int(characters / CHARACTERS_A_TOKEN), tokens) or 0.0

    def _keys(self, questions: pa.Table, scorer_version: str) -> tuple[Keys, Keys]:
        cells, rows = (np.empty((len(questions), KEY_BYTES), np.uint8) for _ in range(2))
        at = 0
        for batch in questions.select(_DECIDING).to_batches(max_chunksize=_CHUNK):
            part: tuple[list[bytes], list[bytes]] = ([], [])
            for question in batch.to_pylist():
                request = {"prompt": question["query"], "max_tokens": question["max_tokens"]}
                cell = cell_id(self.llm, self.llm_config, {**request, **self._sampling})
                part[0].append(cell)
                part[1].append(row_key(cell, question, scorer_version))
            end = at + batch.num_rows
            cells[at:end], rows[at:end] = map(key_array, part)
            at = end
        return cells, rows

    def run(self, limiter: Any, booked: bool, cpus: float, questions: Any, scorers: int) -> None:
        """Make the missing rows.

        Args:
            limiter: Handle of the run's `RateLimiter`.
            booked: Whether each call is booked there.
            cpus: CPUs of an actor.
            questions: Object reference of the questions.
            scorers: Maximum concurrent scoring processes; each takes a second of CPU to start.
        """
        stream = Stream(self.llm, self.llm_config, self.folder, limiter, booked, cpus, scorers)
        stage = partial(score_outcomes, questions=questions, plugin_paths=settings().plugin_paths)
        rows, errors = AppendLog(self.folder, ROWS), AppendLog(self.folder, ERRORS)
        try:
            for items in self._rounds:
                requests = request_table(
                    self._cells[items], items, self._max_tokens[items], self._sampling
                )
                for table in stream.outcomes(requests, questions, stage):
                    self._keep(table, rows, errors)
        finally:
            rows.close()
            errors.close()
            limiter.end.remote(self.llm)

    def _keep(self, table: pa.Table, rows: AppendLog, errors: AppendLog) -> None:
        good: list[tuple[bytes, Mapping[str, Any]]] = []
        bad: list[tuple[bytes, Mapping[str, Any]]] = []
        tally = self.tally
        for row in table.to_pylist():
            del row["request"]
            key = self.row_keys[row.pop("item")].tobytes()
            cached, error = row.pop("cached"), row["error"]
            tally.done += 1
            tally.cached += cached
            if error == LEFT:
                tally.left += 1
            elif error is not None:
                tally.failed += 1
                kind = error.partition(":")[0]
                tally.errors[kind] += 1
                self.reasons.setdefault(kind, error.removeprefix(f"{kind}: "))
                bad.append((key, row))
            else:
                good.append((key, row))
            if not cached and row["cost_usd"] is not None:
                tally.usd += row["cost_usd"]
        rows.extend(good)
        errors.extend(bad)
