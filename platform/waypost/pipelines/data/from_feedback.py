"""Routing data of the feedback that a server received."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from waypost.contracts.errors import SchemaError
from waypost.feedback import read_rated
from waypost.pipelines.data.rated import write_rated


def from_feedback(
    source: Path,
    target: Path,
    *,
    test: float = 0.2,
    seed: int = 0,
    llms: Path | None = None,
) -> dict[str, Any]:
    """Make routing data of a ``feedback_dir``.

    Args:
        source: The folder.
        target: The routing data; must not exist.
        test: Share of the questions in the test split; 0 makes none.
        seed: Seed of the split.
        llms: An ``llms.json`` with facts of the LLMs.

    Returns:
        As `write_rated`, with ``replaced``: events that a later one replaced.

    Raises:
        StorageError: the folder holds no feedback.
        SchemaError: it is empty, or has no texts.
        ConfigError: the target exists.
    """
    found = read_rated(source)
    if not found.events:
        raise SchemaError(f"{source}: holds no event yet; POST /v1/feedback adds some")
    told = write_rated(target, found.events, found.requests, test=test, seed=seed, llms=llms)
    return {**told, "replaced": found.replaced}
