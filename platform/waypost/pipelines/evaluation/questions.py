"""What a routing-data folder says of its questions beyond `RoutingData`: answers and truths."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from waypost.contracts.choices import options_of
from waypost.contracts.questions import queries_path, read_questions
from waypost.contracts.tables import read_routing_table, split_path
from waypost.pipelines.data.llm_run import score_answer

_TRUTH = ("query", "metric", "ground_truth", "choices")


class Questions:
    """Recorded answers and truths of a folder's questions; the tables are read at the first use.

    Args:
        folder: Routing-data folder.
        splits: Splits to read; a split without a file is left out.
    """

    def __init__(self, folder: Path, splits: Sequence[str]) -> None:
        self._folder = folder
        self._splits = splits
        self._scores: dict[tuple[str, str], float] = {}

    @cached_property
    def _tables(self) -> list[pa.Table]:
        paths = (split_path(self._folder, split) for split in self._splits)
        return [read_routing_table(path) for path in paths if path.is_file()]

    @cached_property
    def _responses(self) -> dict[tuple[str, str], str]:
        wanted = ("query_id", "model_name", "response")
        return {
            (key, model): text
            for table in self._tables
            if "response" in table.column_names
            for key, model, text in zip(*(table[c].to_pylist() for c in wanted), strict=True)
            if text is not None
        }

    @cached_property
    def _truths(self) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        for table in self._tables:
            if not {"metric", "ground_truth"} <= set(table.column_names):
                continue
            known = [name for name in _TRUTH if name in table.column_names]
            for row in table.select(["query_id", *known]).to_pylist():
                if row["metric"] is not None and row["ground_truth"] is not None:
                    found.setdefault(row["query_id"], row)
        return found

    def response(self, query_id: str, model: str) -> str | None:
        """Return the recorded answer of an LLM; None where the folder holds none."""
        return self._responses.get((query_id, model))

    @cached_property
    def _max_tokens(self) -> dict[str, int]:
        paths = (queries_path(self._folder, split) for split in self._splits)
        return {
            one.query_id: one.max_tokens
            for path in paths
            if path.is_file()
            for one in read_questions(path)
        }

    def max_tokens(self, query_id: str) -> int | None:
        """Return the maximum tokens of an answer; None if the folder has no file of questions.

        Raises:
            ConfigError: The file of questions is invalid.
        """
        return self._max_tokens.get(query_id)

    def score(self, query_id: str, answer: str) -> float | None:
        """Return the score of an answer by the question's own metric, in [0, 1].

        Returns:
            None where the folder has no metric or no truth of the question.

        Raises:
            WaypostError: The metric is unknown, or the answer cannot be scored.
        """
        question = self._truths.get(query_id)
        if question is None:
            return None
        key = (query_id, answer)
        if key not in self._scores:
            self._scores[key] = score_answer(answer, _as_json(question))
        return self._scores[key]


def _as_json(question: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row's question in the form of the table of questions of a data run."""
    choices = options_of(question.get("choices"))
    options = [{"label": label, "text": text} for label, text in choices] or None
    return {
        "query": question["query"],
        "metric": question["metric"],
        "ground_truth": json.dumps(_truth(question["ground_truth"])),
        "choices": json.dumps(options),
    }


def _truth(text: str) -> str | list[str]:
    """Read the column ``ground_truth``: several accepted answers are a JSON list of texts."""
    try:
        found = json.loads(text)
    except ValueError:
        return text
    several = isinstance(found, list) and found and all(isinstance(one, str) for one in found)
    return found if several else text
