"""Synthetic routing data of any size, for speed measurements only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.records import LLMInfo
from waypost.contracts.routing_data import RoutingData

TOPICS = 60
_WORDS, _WORDS_A_TEXT = 100, 60
_SPREAD, _NOISE = 0.8, 0.3
_WAYS = 32
_TOKENS = 200.0


def made_up(n: int, llms: int, dimension: int, seed: int) -> RoutingData:
    """Return synthetic data with `TOPICS` topics, on which the LLMs' skills differ.

    Args:
        n: Number of questions.
        llms: Number of LLMs. Every LLM has a score, tokens and a cost on every question.
        dimension: Dimension of the embeddings, random unit vectors around their topic's centre.
        seed: Seed of all random numbers.
    """
    draw = np.random.default_rng(seed)
    topic = draw.integers(TOPICS, size=n)
    skill = draw.normal(0.4, 1.5, (TOPICS, llms)) + draw.normal(0, 0.5, llms)
    chance = 1 / (1 + np.exp(-skill[topic] - draw.normal(0, 1.5, (n, 1))))
    tokens = np.round(_TOKENS * np.exp(draw.normal(0, 0.5, (n, 1)) + draw.normal(0, 0.4, llms)))
    price = np.exp(draw.uniform(np.log(0.1), np.log(10.0), llms))
    return RoutingData(
        query_ids=tuple(map(str, range(n))),
        queries=_texts(topic, draw),
        task_names=tuple(f"topic-{t}" for t in topic),
        llms=tuple(
            LLMInfo(
                name=f"llm-{j:03d}",
                size=f"{10 * p:.1f}B",
                input_price=float(p) / 3,
                output_price=float(p),
            )
            for j, p in enumerate(price)
        ),
        quality=(draw.random((n, llms)) < chance).astype(np.float64),
        input_tokens=np.full((n, llms), 100.0),
        output_tokens=tokens,
        cost_usd=(100.0 * price / 3 + tokens * price) / 1e6,
        latency_s=np.full((n, llms), np.nan),
        embeddings=_vectors(topic, dimension, draw),
        encoder_id="made-up",
    )


def _texts(topic: NDArray[np.intp], draw: np.random.Generator) -> tuple[str, ...]:
    # half of a text's words are specific to its topic
    half = _WORDS_A_TEXT // 2
    own = topic[:, None] * _WORDS + draw.integers(_WORDS, size=(len(topic), half))
    common = TOPICS * _WORDS + draw.integers(_WORDS, size=(len(topic), half))
    words = np.concatenate([own, common], axis=1)
    return tuple(" ".join(f"w{word:x}" for word in row) + "?" for row in words.tolist())


def _vectors(
    topic: NDArray[np.intp], dimension: int, draw: np.random.Generator
) -> NDArray[np.float32]:
    # like sentence embeddings, the vectors lie close to a space of far fewer dimensions
    centres = draw.normal(size=(TOPICS, dimension)).astype(np.float32)
    ways = draw.normal(size=(_WAYS, dimension)).astype(np.float32) / np.float32(_WAYS**0.5)
    rows = draw.standard_normal((len(topic), dimension), dtype=np.float32)
    rows *= np.float32(_NOISE)
    rows += draw.standard_normal((len(topic), _WAYS), dtype=np.float32) @ ways
    rows += np.float32(_SPREAD) * centres[topic]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows
