"""Synthetic routing data with a planted rule: two topics, each with one specialist LLM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from waypost.contracts.records import LLMInfo
from waypost.contracts.routing_data import RoutingData
from waypost.encoders import make_encoder

ENCODER_ID = "hashing+d64+t512"
"""Id of an encoder without weights that places texts of one topic near each other."""

TOPICS = {
    "cooking": ("simmer", "garlic", "butter", "oven", "dough", "spice", "roast", "kettle", "onion"),
    "algebra": ("matrix", "kernel", "prime", "ring", "vector", "scalar", "lemma", "field", "basis"),
}

LLMS = (
    LLMInfo(name="cook", size="7B", input_price=0.5, output_price=1.5),
    LLMInfo(name="prover", size="8x7B", input_price=1.0, output_price=4.0),
    LLMInfo(name="tiny", size="500M", input_price=0.05, output_price=0.1),
)
SPECIALIST = {"cooking": "cook", "algebra": "prover"}
_SCORES = {"cooking": (1.0, 0.2, 0.3), "algebra": (0.1, 1.0, 0.3)}


def planted(n: int = 200, seed: int = 0) -> RoutingData:
    """Return ``n`` questions that alternate between the topics, with a score of each LLM.

    Args:
        n: Number of questions.
        seed: Seed of words and scores; another seed gives other questions of the same topics.

    Returns:
        Data with embeddings, tokens and costs. The topic's specialist scores 1, the others 0 to
        0.4, so the best single LLM averages about 0.6.
    """
    data = _planted(n, seed)
    arrays = {name: array.copy() for name, array in vars(data).items() if hasattr(array, "copy")}
    return replace(data, **arrays)


@cache  # the checks of all routers use the same few data sets
def _planted(n: int, seed: int) -> RoutingData:
    draw = np.random.default_rng(seed)
    topics = [list(TOPICS)[i % 2] for i in range(n)]
    texts = tuple(
        " ".join(draw.choice(TOPICS[topic], 8)) + f" {seed}x{i}" for i, topic in enumerate(topics)
    )
    shape = (n, len(LLMS))
    noise = draw.uniform(-0.1, 0.1, shape)
    quality = np.array([_SCORES[topic] for topic in topics]).reshape(shape)
    tokens = np.array([[40.0, 60.0, 20.0]]).repeat(n, axis=0).reshape(shape)
    data = RoutingData(
        query_ids=tuple(f"{seed}-{i}" for i in range(n)),
        queries=texts,
        task_names=tuple(topics),
        llms=LLMS,
        quality=np.clip(quality + np.where(quality < 1, noise, 0), 0, 1),
        input_tokens=np.full(shape, 20.0),
        output_tokens=tokens,
        cost_usd=tokens * np.array([1.5, 4.0, 0.1]) / 1e6,
        latency_s=np.full(shape, np.nan),
    )
    return embedded(data)


def embedded(data: RoutingData) -> RoutingData:
    """Return the data with embeddings of `ENCODER_ID`."""
    return data.with_embeddings(make_encoder(ENCODER_ID).encode(data.queries), ENCODER_ID)


def shuffled(data: RoutingData, seed: int = 0) -> RoutingData:
    """Return the data with its scores shuffled over the questions, so that nothing is learnable."""
    order = np.random.default_rng(seed).permutation(len(data))
    return replace(data, quality=data.quality[order])


def repeated(data: RoutingData, rows: Sequence[int]) -> RoutingData:
    """Return the data of some rows, possibly repeated, with new query ids."""
    index = np.asarray(rows)
    matrices = ("quality", "input_tokens", "output_tokens", "cost_usd", "latency_s")
    columns: dict[str, Any] = {name: getattr(data, name)[index] for name in matrices}
    return replace(
        data,
        query_ids=tuple(map(str, range(len(index)))),
        queries=tuple(data.queries[i] for i in index),
        task_names=tuple(data.task_names[i] for i in index),
        embeddings=None if data.embeddings is None else data.embeddings[index],
        **columns,
    )


def doubled(data: RoutingData) -> RoutingData:
    """Return the data with every row twice."""
    return repeated(data, [*range(len(data)), *range(len(data))])
