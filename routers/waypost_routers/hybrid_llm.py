"""Predict whether a cheaper LLM's answer is as good as the best LLM's (Hybrid LLM)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import ConfigError, Fault, SchemaError
from waypost.contracts.parameters import Integer, OneOf, Real
from waypost.contracts.router import QueryBatch
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost_routers._learned import embeddings_of
from waypost_routers._linear.logistic import sigmoid
from waypost_routers._neural.epochs import HeldOutEpochRouter, HeldOutTraining
from waypost_routers._neural.networks import Networks, NetworksLearner, Training
from waypost_routers._neural.stopping import Watch
from waypost_routers._shared import distinct
from waypost_routers._wins import (
    Sweep,
    Wins,
    choose_pair,
    learn_wins,
    quality_from_wins,
    sweep_of,
)

PATIENCE = 10


class _ModelName:
    def allows(self, value: Any) -> bool:
        return value is None or (isinstance(value, str) and bool(value))

    def __str__(self) -> str:
        return "the name of a model or null"


class HybridLLM(HeldOutEpochRouter):
    """Networks that predict the probability that each LLM does as well as the large one.

    Hybrid LLM (arXiv 2404.14618) has two LLMs, a small S and a large L, and calls S if
    Pr[q_S >= q_L - t] is at least tau. Here every LLM is compared with L, and

        quality_j(x) = quality_L(x) + p_j(x) * won_j + (1 - p_j(x)) * lost_j

    where won_j and lost_j are the mean of q_j - q_L over the training questions that j won (or
    tied) and lost. So one fit serves every lambda and any number of LLMs. For two LLMs of fixed
    costs a lambda is a threshold on p. `threshold` finds the tau of a given share or quality.

    When to take it:
        When a cheap and an expensive LLM share the traffic, and the share of the expensive one is
        the quantity to set: see `threshold`.

    Args:
        label: ``deterministic``: whether q_j >= q_L, for one answer of each LLM.
            ``probabilistic``: the share of answer pairs with q_j >= q_L, for questions with
            several answers. ``transformed``: the share with q_j >= q_L - t_j, where t_j maximizes
            the labels' differences between questions.
        small: Name of S; None is the cheapest LLM in training other than L.
        large: Name of L; None is the LLM with the best mean training score, the cheapest of ties.
        hidden: Units of the hidden layer; 0 is logistic regression.
        learning_rate, weight_decay, dropout, epochs, members, seed: As mlprouter's.

    Learned by ``fit``:
        networks_: One output per LLM: p_j, and in the column of L its own score.
        wins_: Margin t and mean gaps won and lost of each LLM.
        small_, large_: Names of S and L.
        epochs_: Number of passes trained.
    """

    name = "hybrid_llm"
    link = "identity"
    changeable_parameters = ("learning_rate", "weight_decay", "dropout")
    state_parts: ClassVar = {**HeldOutEpochRouter.state_parts, "networks_": Networks, "wins_": Wins}
    parameter_constraints: ClassVar = {
        "label": OneOf(("deterministic", "probabilistic", "transformed")),
        "small": _ModelName(),
        "large": _ModelName(),
        "hidden": Integer(0, 4096),
        "learning_rate": Real(0, 1, open_low=True),
        "weight_decay": Real(0, 10),
        "dropout": Real(0, 0.9),
        "epochs": Integer(1),
        "members": Integer(1, 64),
        "seed": Integer(0),
    }

    networks_: Networks
    wins_: Wins
    small_: str
    large_: str
    epochs_: int

    def __init__(
        self,
        label: str = "transformed",
        small: str | None = None,
        large: str | None = None,
        hidden: int = 128,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.1,
        dropout: float = 0.2,
        epochs: int = 40,
        members: int = 3,
        seed: int = 0,
    ) -> None:
        self.label = label
        self.small = small
        self.large = large
        self.hidden = hidden
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.epochs = epochs
        self.members = members
        self.seed = seed

    # -- fit ----------------------------------------------------------------------------------

    def _training(self, data: RoutingData) -> HeldOutTraining:
        names = data.names
        self._check(names)
        characters = np.array([float(len(text)) for text in data.queries])
        usd = self.cost_model_.predict(characters).mean(axis=0)
        self.small_, self.large_ = choose_pair(
            names, self.mean_quality_, usd, self.small, self.large
        )
        return super()._training(data)

    def _check(self, names: tuple[str, ...]) -> None:
        asked = {"small": self.small, "large": self.large}
        found = [
            Fault(f"{self.name}: {key}", f"is {name!r}; the data has {', '.join(names)}")
            for key, name in asked.items()
            if name is not None and name not in names
        ]
        if self.small is not None and self.small == self.large:
            found.append(Fault(f"{self.name}: small", f"and large are both {self.small!r}"))
        if found:
            raise ConfigError(found)

    def _most_epochs(self, *, judged: bool) -> int:
        return self.epochs

    def _learner(self, data: RoutingData, *, judged: bool) -> _WinsLearner:
        known = distinct(data)
        large = int(np.flatnonzero([data.names[j] == self.large_ for j in known.columns])[0])
        labels, weights, wins = learn_wins(data.quality[:, known.columns], known, large, self.label)
        how = Training(
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            dropout=self.dropout,
            batch_size=256,
            epochs=self.epochs,
            seed=self.seed,
        )
        widths = [self.hidden] if self.hidden else []
        order = np.argsort(known.columns)
        learner = _WinsLearner(known.rows, labels, weights, widths, how, self.members, order)
        learner.wins = wins.in_order(order)
        return learner

    def _judge(self, learner: _WinsLearner, held_out: RoutingData) -> Watch:
        rows, large = embeddings_of(held_out), held_out.names.index(self.large_)
        return Watch(
            held_out.quality, PATIENCE, lambda one: _quality(one.model(), one.wins, rows, large)
        )

    def _take(self, learner: _WinsLearner, epochs: int) -> None:
        self.networks_, self.wins_, self.epochs_ = learner.model(), learner.wins, epochs

    # -- predict ------------------------------------------------------------------------------

    def _raw(self, batch: QueryBatch) -> Floats:
        large = [llm.name for llm in self.llms_].index(self.large_)
        return _quality(self.networks_, self.wins_, np.asarray(batch.embeddings), large)

    def win_probability(self, batch: QueryBatch) -> Floats:
        """Return the probability that S does as well as L (less t), shape (n_queries,).

        Raises:
            NotFittedError: before `fit`.
        """
        self._require_fitted()
        logits = self.networks_.logits(np.asarray(batch.embeddings)).mean(axis=0)
        return sigmoid(logits[:, self.model_names.index(self.small_)])

    def sweep(self, data: RoutingData) -> Sweep:
        """Measure share and quality of the pair at every threshold.

        Args:
            data: Questions not used in training, with embeddings; those without a score of S and L
                are left out.

        Raises:
            NotFittedError: before `fit`.
            SchemaError: S or L is not in the data, or no question measured both.
        """
        pair = data.select_llms([self.small_, self.large_])
        pair = pair.select(np.flatnonzero(~np.isnan(pair.quality).any(axis=1)))
        if len(pair) == 0:
            raise SchemaError(f"no question measured both {self.small_} and {self.large_}")
        return sweep_of(self.win_probability(pair.batch()), pair.quality)

    def threshold(
        self, data: RoutingData, *, small_share: float | None = None, quality: float | None = None
    ) -> float:
        """Return the lowest tau that meets one limit: S is called if `win_probability` >= tau.

        Args:
            data: As for `sweep`.
            small_share: Largest share of the questions that may go to S.
            quality: Lowest mean score of the pair.

        Returns:
            The tau; above 1 if no question may go to S.

        Raises:
            ConfigError: not exactly one of the two is given, or no tau reaches the quality.
            NotFittedError, SchemaError: as `sweep`.
        """
        if (small_share is None) == (quality is None):
            raise ConfigError([Fault(f"{self.name}: threshold", "takes small_share or quality")])
        curve = self.sweep(data)
        allowed = np.ones(len(curve.tau), bool)
        if small_share is not None:
            allowed &= curve.share <= small_share
        if quality is not None:
            allowed &= curve.quality >= quality
        if not allowed.any():
            best = f"{curve.quality.max():.3f} is the most that any threshold reaches"
            raise ConfigError([Fault(f"{self.name}: quality", f"is {quality}; {best}")])
        return float(curve.tau[allowed].min())


class _WinsLearner(NetworksLearner):
    wins: Wins


def _quality(networks: Networks, wins: Wins, rows: NDArray[Any], large: int) -> Floats:
    return quality_from_wins(sigmoid(networks.logits(rows).mean(axis=0)), wins, large)
