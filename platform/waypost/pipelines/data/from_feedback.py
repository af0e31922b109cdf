"""Routing data of the feedback that a server received."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from waypost.contracts.errors import SchemaError, StorageMissingError
from waypost.feedback import read_decisions, read_rated
from waypost.pipelines.data.logged_requests import parts_of, requests_about, with_log
from waypost.pipelines.data.rated import write_rated
from waypost.storage import Place, local_copy

SET_LOG = (
    "no decision log: tokens, dollars, seconds and predictions are those of rated requests alone; "
    "set decision_log in the Serve file, or give --decisions"
)
SET_TEXTS = "events about requests without a text: set log_queries: true in the Serve file"


def from_feedback(
    source: Path,
    target: Path,
    *,
    decisions: Place | None = None,
    test: float = 0.2,
    seed: int = 0,
    llms: Path | None = None,
) -> dict[str, Any]:
    """Make routing data of a ``feedback_dir``, and of the decision log where there is one.

    Args:
        source: The folder, or one that has it and the decision log in it.
        target: The routing data; must not exist.
        decisions: The decision log; None looks for it in ``source``.
        test: Share of the questions in the test split; 0 makes none.
        seed: Seed of the split.
        llms: An ``llms.json`` with facts of the LLMs.

    Returns:
        As `write_rated`, with ``replaced``: events that a later one replaced, ``logged``: requests
        of the log about rated questions, and ``missing``: what is missing and what to set.

    Raises:
        StorageError: the folder holds no feedback.
        SchemaError: it is empty, or has no texts; the log cannot be read.
        ConfigError: the target exists.
    """
    folder, log = parts_of(source)
    try:
        found = read_rated(folder)
    except StorageMissingError as error:
        why = (
            "" if log is None else " A decision log by itself says nothing of how good answers are"
        )
        raise StorageMissingError(f"{error}.{why or ' Set it in the Serve file'}") from None
    if not found.events:
        raise SchemaError(f"{folder}: holds no event yet; POST /v1/feedback adds some")
    where = log if decisions is None else decisions
    logged: dict[str, dict[str, Any]] = {}
    if where is not None:
        with local_copy(where) as local:
            logged = requests_about(read_decisions(local), found.requests)
    requests = {key: with_log(row, logged.get(key)) for key, row in found.requests.items()}
    others = [row for key, row in logged.items() if key not in requests]
    told = write_rated(
        target, found.events, requests, others=others, test=test, seed=seed, llms=llms
    )
    missing = [] if where is not None else [SET_LOG]
    if told["without_text"]:
        missing.append(f"{told['without_text']} {SET_TEXTS}")
    return {**told, "replaced": found.replaced, "logged": len(logged), "missing": missing}
