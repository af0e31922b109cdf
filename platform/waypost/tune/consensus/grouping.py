"""Groups of equal answers in recorded data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.encoder import Encoder
from waypost.contracts.errors import SchemaError
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost.scorers.forms import Similar, group_answers, stated_options
from waypost.tune.consensus.belief import OPEN_ANSWERS

SAME_MEANING = 0.9
"""Least cosine of the embeddings of two short texts that mean the same."""


def groups_of(data: RoutingData, router: str, similar: Similar | None = None) -> NDArray[np.int16]:
    """Return the group of each recorded answer, (n, m); -1 where it has no normal form.

    Args:
        data: Routing data with the texts of the answers.
        router: Name of the router that asks, for the message.
        similar: Compares texts by their meaning.

    Raises:
        SchemaError: the data has no answers.
    """
    if data.responses is None:
        raise SchemaError(
            f"fit: {router} compares answers, and the data has none (column response); "
            "`waypost data run` and `waypost data responses` record them"
        )
    found = np.full(data.quality.shape, -1, np.int16)
    for row, query in enumerate(data.queries):
        texts = [data.responses.text(row, column) for column in range(len(data.llms))]
        found[row] = group_answers(texts, query, data.responses.metrics[row], similar)
    return found


def possible_answers(queries: Sequence[str]) -> Floats:
    """Return the number of possible answers to each question: its options, else `OPEN_ANSWERS`."""
    counts = [len(stated_options(query)) for query in queries]
    return np.array([count if count > 1 else OPEN_ANSWERS for count in counts], np.float64)


def by_meaning(encoder: Encoder | None) -> Similar | None:
    """Return a comparison of texts by the cosine of their embeddings; None without an encoder."""
    if encoder is None:
        return None

    def similar(texts: Sequence[str], other: str) -> list[bool]:
        vectors = encoder.encode([*texts, other])
        return [bool(one) for one in vectors[:-1] @ vectors[-1] >= SAME_MEANING]

    return similar
