"""Score each LLM by the cosine of a fine-tuned query embedding and the LLM's vector (RouterDC)."""

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
"""Standard deviation of the entries of an untrained LLM vector, as published."""


class RouterDC(FineTunedRouter):
    """A fine-tuned query encoder and one vector per LLM, trained by two contrastive losses.

    RouterDC (arXiv 2409.19886). One loss pulls a question's state to the vectors of its best LLMs,
    the other to the states of questions in the same cluster.

    When to take it:
        With a GPU and thousands of questions. On a CPU a fit takes minutes and a decision takes a
        forward pass of the encoder.

    Args:
        model: BERT-style encoder to fine-tune: hub name or folder.
        max_queries: Maximum number of training questions, a fifth of them held out; None is all.
        max_tokens: Maximum number of tokens read of a query; the paper reads 512.
        trained_layers: Number of upper layers of the encoder to fine-tune.
        probe_steps: Steps that train the LLM vectors alone, before the encoder.
        steps: Steps that train both; 0 leaves the encoder as it is.
        batch_size: Questions in a step.
        learning_rate: Learning rate of the encoder (AdamW).
        vector_learning_rate: Learning rate of the vectors in the probe steps; a tenth of it later.
        temperature: Temperature of the cosines in both losses.
        positives: Number of best LLMs that a question is pulled to.
        negatives: Number of worst LLMs that a question is pushed from.
        cluster_weight: Weight of the loss between questions.
        clusters: Number of clusters of the questions.
        cluster_negatives: Number of questions of other clusters that a question is pushed from.
        seed: Seed of sampling, initial vectors and batches.
        device: ``auto``, ``cpu`` or ``cuda``; ``auto`` is cuda if available.

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
        """Return the columns in name order, so that the pool's order does not change rounding."""
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
    """Draw the LLMs' initial vectors, (n_llms, width), each seeded by ``seed`` and its name."""
    seeds = [int.from_bytes(draw(seed, name)[0], "big") for name in names]
    return np.array([np.random.default_rng(s).normal(0, INITIAL_STD, width) for s in seeds])
