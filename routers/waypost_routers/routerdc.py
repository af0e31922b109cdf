"""A fine-tuned query encoder and a vector for each LLM, by dual contrastive learning."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.parameters import Integer, OneOf, Real, Text
from waypost.contracts.records import Prediction, QueryBatch
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost.weights import MINILM
from waypost_routers._finetune.base import FineTunedRouter, Weights, load_base
from waypost_routers._finetune.dual import DualSettings, DualTraining, Questions
from waypost_routers._finetune.split_encoder import SplitEncoder
from waypost_routers._linear.lengths import fit_dollars, fit_tokens
from waypost_routers._neighbors.kmeans import fit_centroids, nearest_centroid
from waypost_routers._shared import draw

INITIAL_STD = 0.78
"""Of an LLM's vector before training, as published."""


class RouterDC(FineTunedRouter):
    """RouterDC (2409.19886): the cosine of a query's state and an LLM's vector is its score.

    When to take it:
        Where a GPU is at hand and there are thousands of questions. On a CPU a fit takes minutes
        and a decision a pass of the encoder.

    Args:
        model: Encoder of BERT's form that is fine-tuned: hub name or folder.
        max_queries: Questions learned from, a fifth of them held out; None is all.
        max_tokens: Tokens read of a query; the paper reads 512.
        trained_layers: Upper layers of the encoder that are fine-tuned.
        probe_steps: Steps of the LLM vectors alone, before the encoder is touched.
        steps: Steps of both together; 0 leaves the encoder as it was.
        batch_size: Questions in a step.
        learning_rate: Of the encoder (AdamW).
        vector_learning_rate: Of the vectors while alone, and ten times that of them afterwards.
        temperature: Of the cosines, in both losses.
        positives: Best LLMs of a question that it is pulled to.
        negatives: Worst LLMs that it is pushed from.
        cluster_weight: Weight of the loss between questions.
        clusters: Groups of alike texts.
        cluster_negatives: Questions of other groups that one is pushed from.
        seed: Of sampling, first vectors and batches.
        device: Where to run; ``auto`` is cuda where there is one.

    Learned by ``fit``, besides what every `FineTunedRouter` learns:
        vectors_: (n_llms, width) unit vectors of the LLMs.
    """

    name = "routerdc"
    needs_weights = "encoder"
    changeable_parameters = ("learning_rate", "vector_learning_rate", "cluster_weight")
    new_model_support = "refit"
    trial_parameters: ClassVar = {
        "max_queries": 200,
        "max_tokens": 48,
        "steps": 16,
        "batch_size": 16,
    }
    parameter_constraints: ClassVar = {
        "model": Text(),
        "max_queries": Integer(1, optional=True),
        "max_tokens": Integer(8, 8192),
        "trained_layers": Integer(1),
        "probe_steps": Integer(0),
        "steps": Integer(0),
        "batch_size": Integer(2),
        "learning_rate": Real(0, open_low=True),
        "vector_learning_rate": Real(0, open_low=True),
        "temperature": Real(0, open_low=True),
        "positives": Integer(1),
        "negatives": Integer(1),
        "cluster_weight": Real(0),
        "clusters": Integer(1),
        "cluster_negatives": Integer(1),
        "seed": Integer(0),
        "device": OneOf(("auto", "cpu", "cuda")),
    }

    vectors_: Floats

    def __init__(
        self,
        model: str = MINILM,
        max_queries: int | None = 2000,
        max_tokens: int = 128,
        trained_layers: int = 2,
        probe_steps: int = 600,
        steps: int = 120,
        batch_size: int = 32,
        learning_rate: float = 5e-5,
        vector_learning_rate: float = 0.01,
        temperature: float = 0.3,
        positives: int = 3,
        negatives: int = 3,
        cluster_weight: float = 1.0,
        clusters: int = 5,
        cluster_negatives: int = 3,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self.model = model
        self.max_queries = max_queries
        self.max_tokens = max_tokens
        self.trained_layers = trained_layers
        self.probe_steps = probe_steps
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.vector_learning_rate = vector_learning_rate
        self.temperature = temperature
        self.positives = positives
        self.negatives = negatives
        self.cluster_weight = cluster_weight
        self.clusters = clusters
        self.cluster_negatives = cluster_negatives
        self.seed = seed
        self.device = device

    def _tuner(self, data: RoutingData, held_out: RoutingData | None) -> DualTraining:
        base = load_base(self.model, "encoder", self.device)
        self.base_ = {"name": base.name, "digest": base.digest, "max_tokens": self.max_tokens}
        encoder = SplitEncoder(base, self.trained_layers, self.max_tokens)
        order = self._by_name()
        known = {name: getattr(self, name) for name in DualSettings.__dataclass_fields__}
        first = first_vectors([data.names[j] for j in order], encoder.width, self.seed)
        training = self._questions(encoder, data, order)
        held = None if held_out is None else self._questions(encoder, held_out, order)
        return DualTraining(encoder, first, DualSettings(**known), training, held)

    def _take(self, tuner: DualTraining) -> None:
        by_name, layers = tuner.model()
        vectors = np.empty_like(by_name)
        vectors[self._by_name()] = by_name
        self.vectors_ = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        self.weights_ = Weights(layers)

    def _by_name(self) -> NDArray[np.intp]:
        """Return the columns in the order of the names: that of the pool changes no rounding."""
        return np.argsort([llm.name for llm in self.llms_])

    def _questions(
        self, encoder: SplitEncoder, data: RoutingData, order: NDArray[np.intp]
    ) -> Questions:
        import torch

        hidden = encoder.read(data.queries)
        with torch.no_grad():
            states = encoder.pool(hidden).cpu().numpy()
        centroids = fit_centroids(states, self.clusters, self.seed)
        cluster = nearest_centroid(states, centroids)
        return Questions(hidden, data.quality[:, order], cluster)

    def _build(self) -> SplitEncoder:
        known = self.base_
        base = load_base(known["name"], "encoder", self.device, known["digest"])
        layers = {name.partition(".")[0] for name in self.weights_.arrays}
        return SplitEncoder(base, len(layers), known["max_tokens"], self.weights_.arrays)

    def _raw(self, batch: QueryBatch) -> Floats:
        if batch.embeddings is None:
            batch = self._with_states(batch)
        return np.asarray(batch.embeddings, np.float64) @ self.vectors_.T

    def _with_states(self, batch: QueryBatch) -> QueryBatch:
        encoder: SplitEncoder = self._model()
        return QueryBatch(batch.queries, encoder.encode([query.text for query in batch.queries]))

    def _learn_lengths(self, data: RoutingData) -> None:
        super()._learn_lengths(data)
        if not np.isnan([data.output_tokens, data.cost_usd]).all():
            states = self._with_states(data.batch()).embeddings
            assert states is not None
            known = data.with_embeddings(states, self.name)
            self.tokens_, self.dollars_ = fit_tokens(known), fit_dollars(known)

    def _predict(self, batch: QueryBatch) -> Prediction:
        return super()._predict(self._with_states(batch))


def first_vectors(names: list[str], width: int, seed: int) -> Floats:
    """Draw the LLMs' vectors, (n_llms, width), each by its own name."""
    seeds = [int.from_bytes(draw(seed, name)[0], "big") for name in names]
    return np.array([np.random.default_rng(s).normal(0, INITIAL_STD, width) for s in seeds])
