"""The stage behind the askers: scores answers, as tasks on any node."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from waypost.config import settings
from waypost.contracts.errors import WaypostError
from waypost.pipelines.asking.asker import OUTCOME
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
    return score(question["metric"], response, truth, choices, query=question["query"])
