"""One LLM's part of a data run: the cells it lacks, their scores, and the rows of its log."""

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
    Rows,
    cell_id,
    first_of_each,
    key_array,
    longest_first,
    request_table,
)
from waypost.pipelines.data.calls.stream import Stream
from waypost.pipelines.data.calls.worker import CHARACTERS_A_TOKEN, LEFT, OUTCOME
from waypost.pipelines.data.config import Candidate, DataConfig
from waypost.pipelines.data.questions_table import row_key
from waypost.registry import searching
from waypost.scorers import score

SCORED = OUTCOME.append(pa.field("performance", pa.float32()))
"""An outcome with its score; null where there is no answer, or none could be given."""

_NEEDED = ("metric", "ground_truth", "choices", "query")


def start_scorers(count: int) -> None:
    """Have processes of Ray ready to score: to import all that takes each a second of CPU.

    Without it they start when the first answers come, and take the CPU from who asks. Returns at
    once.
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

    An answer that cannot be scored (tests that are no Python, no sandbox) keeps its text and has
    an error that begins with ``not scored``; the next run tries again and calls nobody.

    Args:
        outcomes: Columns of `OUTCOME`.
        questions: Object reference of the questions; an outcome's ``item`` is their row.
        plugin_paths: Where custom tasks with a metric of their own are; those of this process
            come first, because a job finds them in its working directory.
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
                    row["performance"] = _score(row["response"], question)
                except WaypostError as error:
                    row["error"] = f"not scored: {type(error).__name__}: {error}"
    return pa.Table.from_pylist(rows, schema=SCORED)


def _score(response: str, question: dict[str, Any]) -> float:
    truth, choices = json.loads(question["ground_truth"]), json.loads(question["choices"])
    return score(find_scorer(question["metric"]), response, truth, choices, query=question["query"])


_CHUNK = 1024
_DECIDING = ("query", "max_tokens", "query_id", "metric", "ground_truth", "choices")


class Job:
    """What is to be done for one LLM, and what was done.

    Args:
        llm: Name.
        candidate: How it is called.
        folder: Of its logs.
        questions: Columns of `questions_table.QUESTIONS`.
        order: Rows of the questions, as they should be asked.
        config: The run.
        scorer_version: Of the scores; rows of another are not taken.

    Attributes:
        row_keys: Key of each question's row, (n, 16).
        todo: Cells without a row.
        wish_usd: Dollars that they cost at most; 0 where a price is unknown.
        tally: What this run did.
        reasons: By kind of error, the first one in its own words.
    """

    def __init__(
        self,
        llm: str,
        candidate: Candidate,
        folder: Path,
        questions: pa.Table,
        order: Rows,
        config: DataConfig,
        scorer_version: str,
    ) -> None:
        self.llm, self.candidate, self.folder = llm, candidate, folder
        self.tally = Tally()
        self.reasons: dict[str, str] = {}
        self._sampling = {
            "temperature": config.temperature, "top_p": config.top_p, "seed": config.seed,
        }  # fmt: skip
        self._max_tokens: NDArray[np.int32] = questions["max_tokens"].to_numpy()
        self._cells, self.row_keys = self._keys(questions, scorer_version)
        with LogIndex(folder, ROWS) as written:
            lacking = ~written.has(self.row_keys)
        todo = longest_first(order[lacking[order]], self._max_tokens, candidate.concurrency)
        # A cell that several questions share is asked once: the others follow when its answer is
        # in the cache.
        first = first_of_each(self._cells[todo])
        self._rounds = [todo[first], todo[~first]]
        self.todo = len(todo)
        characters = pc.utf8_length(questions["query"]).to_numpy()[self._rounds[0]].sum()
        tokens = int(self._max_tokens[self._rounds[0]].sum(dtype=np.int64))
        self.wish_usd = candidate.cost_usd(int(characters / CHARACTERS_A_TOKEN), tokens) or 0.0

    def _keys(self, questions: pa.Table, scorer_version: str) -> tuple[Keys, Keys]:
        cells, rows = (np.empty((len(questions), KEY_BYTES), np.uint8) for _ in range(2))
        at = 0
        for batch in questions.select(_DECIDING).to_batches(max_chunksize=_CHUNK):
            part: tuple[list[bytes], list[bytes]] = ([], [])
            for question in batch.to_pylist():
                request = {"prompt": question["query"], "max_tokens": question["max_tokens"]}
                cell = cell_id(self.llm, self.candidate, {**request, **self._sampling})
                part[0].append(cell)
                part[1].append(row_key(cell, question, scorer_version))
            end = at + batch.num_rows
            cells[at:end], rows[at:end] = map(key_array, part)
            at = end
        return cells, rows

    def run(self, ledger: Any, booked: bool, cpus: float, questions: Any, scorers: int) -> None:
        """Make every row that is missing.

        Args:
            ledger: Handle of the run's `Ledger`.
            booked: Whether each call is booked there.
            cpus: CPUs of an actor.
            questions: Object reference of the questions.
            scorers: Most processes that score at once; each costs a second of CPU to start.
        """
        stream = Stream(self.llm, self.candidate, self.folder, ledger, booked, cpus, scorers)
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
            ledger.end.remote(self.llm)

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
