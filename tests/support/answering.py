"""Routing data with recorded answers that follow a planted rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from waypost.contracts.records import LLMInfo
from waypost.contracts.responses import Responses
from waypost.contracts.routing_data import RoutingData
from waypost.encoders import make_encoder
from waypost.testing.synthetic import ENCODER_ID, TOPICS

LLMS = (
    LLMInfo(name="cheap", input_price=0.1, output_price=0.1),
    LLMInfo(name="twin", input_price=0.1, output_price=0.1),
    LLMInfo(name="other", input_price=0.1, output_price=0.1),
    LLMInfo(name="strong", input_price=1.0, output_price=1.0),
)
LETTERS = "ABCD"


def answered(n: int = 240, seed: int = 0) -> RoutingData:
    """Return ``n`` questions with four options, the letters that four LLMs chose, and scores.

    cheap and twin always say the same, on the topic cooking right for 95 of 100, on algebra for
    50. other is right for 75, independently of them. strong is right for 80 and costs ten times as
    much.
    """
    draw = np.random.default_rng(seed)
    topics = [list(TOPICS)[i % 2] for i in range(n)]
    truth = draw.integers(0, 4, n)
    right = np.column_stack(
        [
            draw.random(n) < np.where(np.arange(n) % 2 == 0, 0.95, 0.5),
            draw.random(n) < 0.75,
            draw.random(n) < 0.8,
        ]
    )
    said = np.where(right, truth[:, None], (truth[:, None] + draw.integers(1, 4, (n, 3))) % 4)
    said = said[:, [0, 0, 1, 2]]
    texts = tuple(
        " ".join(draw.choice(TOPICS[topic], 8))
        + f" {seed}x{i}\n"
        + "\n".join(f"{letter}. {letter.lower()}{i}" for letter in LETTERS)
        for i, topic in enumerate(topics)
    )
    shape = said.shape
    tokens = np.full(shape, 20.0)
    prices = np.array([llm.input_price for llm in LLMS], np.float64)
    data = RoutingData(
        query_ids=tuple(f"{seed}-{i}" for i in range(n)),
        queries=texts,
        task_names=tuple(topics),
        llms=LLMS,
        quality=(said == truth[:, None]).astype(np.float64),
        input_tokens=tokens,
        output_tokens=tokens,
        cost_usd=40 * np.tile(prices, (n, 1)) / 1e6,
        latency_s=np.tile([0.1, 0.2, 0.3, 1.0], (n, 1)),
        responses=Responses(pa.array(list(LETTERS)), said.astype(np.int32), ("letter",) * n),
    )
    encoder = make_encoder(ENCODER_ID)
    return data.with_embeddings(encoder.encode(data.queries), ENCODER_ID)


def without_answers(data: RoutingData) -> RoutingData:
    """Return the data without the texts of the answers."""
    return replace(data, responses=None)
