"""Made-up logs over recorded outcomes, where the true value of every policy is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import SchemaError
from waypost.contracts.records import Query, QueryBatch
from waypost.contracts.routing_data import RoutingData, read_routing_data
from waypost.contracts.types import Floats
from waypost.encoders import make_encoder
from waypost.metrics.off_policy import Logged
from waypost.registry import make_router

INTEREST = 0.3
"""Concentration of a user's interests: small means few subjects."""

TASTE = 0.15
"""Standard deviation of how generously users rate."""


@dataclass(frozen=True, eq=False)
class World:
    """Questions with the recorded score of each LLM, and two routers' predictions.

    Attributes:
        quality: (n, m), the scores.
        acting: (n, m), qualities that the acting router predicts.
        target: (n, m), those of the router to evaluate.
        subjects: (n,), number of each question's subject.
    """

    quality: Floats
    acting: Floats
    target: Floats
    subjects: NDArray[np.intp]

    @property
    def value(self) -> float:
        """The target's true value for users who ask about all subjects alike."""
        earned = self.quality[np.arange(len(self.quality)), self.target.argmax(axis=1)]
        count = self.subjects.max() + 1
        return float(np.mean([earned[self.subjects == one].mean() for one in range(count)]))

    @property
    def agreement(self) -> float:
        """Share of the questions on which both routers choose the same LLM."""
        return float((self.acting.argmax(axis=1) == self.target.argmax(axis=1)).mean())


@dataclass(frozen=True, eq=False)
class Log:
    """A made-up log.

    Attributes:
        logged: The rows; the reward is the rating.
        policy: (n, m), the choices of the target.
        features: (n, m, d), for the reward model.
    """

    logged: Logged
    policy: Floats
    features: Floats

    def by_row(self) -> Log:
        """Return the log with every row as a user of its own."""
        rows = np.arange(len(self.logged))
        return replace(self, logged=replace(self.logged, clusters=rows))


def recorded_world(folder: Path, acting: str, target: str, encoder: str) -> World:
    """Fit two routers on the training split; the questions are those of the test split.

    Raises:
        SchemaError: a score is missing, or a router predicts no scores.
    """
    train, test = (read_routing_data(folder, split) for split in ("train", "test"))
    if np.isnan(test.quality).any():
        raise SchemaError(f"{folder}: the test split lacks scores of some LLMs")
    vectors = make_encoder(encoder)
    data = train.with_embeddings(vectors.encode(train.queries), vectors.id)
    rows = vectors.encode(test.queries)
    tasks = sorted(set(test.task_names))
    subjects = np.array([tasks.index(task) for task in test.task_names], np.intp)
    quality = test.quality[:, [test.names.index(name) for name in train.names]]
    told = [_predicted(name, data, test, rows) for name in (acting, target)]
    return World(np.asarray(quality, np.float64), told[0], told[1], subjects)


def _predicted(name: str, data: RoutingData, test: RoutingData, rows: Any) -> Floats:
    router: Any = make_router(name)
    if not hasattr(router, "predict_quality"):
        raise SchemaError(f"{name}: predicts no scores")
    router.fit(data)
    batch = QueryBatch(tuple(Query(text) for text in test.queries), rows)
    return np.asarray(router.predict_quality(batch), np.float64)


def made_up_world(questions: int = 300, llms: int = 4, seed: int = 0) -> World:
    """Return a world of made-up questions; the target predicts better than the acting router."""
    draw = np.random.default_rng(seed)
    subjects = np.arange(questions) % 5
    skill = draw.normal(0.4, 0.8, (5, llms))
    chance = 1 / (1 + np.exp(-skill[subjects] - draw.normal(0, 0.7, (questions, 1))))
    quality = (draw.uniform(size=chance.shape) < chance).astype(np.float64)
    acting = chance + draw.normal(0, 0.25, chance.shape)
    return World(quality, acting, chance + draw.normal(0, 0.05, chance.shape), subjects)


def draw_log(
    world: World, *, rows: int, users: int, exploration: float, taste: float = TASTE, seed: int = 0
) -> Log:
    """Draw users with subjects of interest, who rate what the exploring acting router chose.

    Args:
        world: Questions and routers.
        rows: Number of decisions.
        users: Number of users.
        exploration: Share of the decisions drawn uniformly.
        taste: Standard deviation of how generously users rate.
        seed: Seed of all draws.
    """
    draw = np.random.default_rng(seed)
    m = world.quality.shape[1]
    count = int(world.subjects.max()) + 1
    asks = draw.dirichlet(np.full(count, INTEREST), users)
    user = draw.integers(0, users, rows)
    subject = (draw.uniform(size=(rows, 1)) > asks[user].cumsum(axis=1)).sum(axis=1)
    order = np.argsort(world.subjects, kind="stable")
    sizes = np.bincount(world.subjects, minlength=count)
    first = np.concatenate([[0], sizes.cumsum()])[subject.clip(max=count - 1)]
    question = order[first + draw.integers(0, sizes[subject.clip(max=count - 1)])]
    best = world.acting[question].argmax(axis=1)
    every = np.arange(rows)
    logging = np.full((rows, m), exploration / m)
    logging[every, best] += 1 - exploration
    chosen = np.where(draw.uniform(size=rows) < exploration, draw.integers(0, m, rows), best)
    generous = draw.normal(0, taste, users)
    ratings = world.quality[question, chosen] + generous[user]
    policy = np.zeros((rows, m))
    policy[every, world.target[question].argmax(axis=1)] = 1.0
    told = [world.acting[question], world.target[question]]
    means = [np.repeat(one.mean(axis=1, keepdims=True), m, axis=1) for one in told]
    _, clusters = np.unique(user, return_inverse=True)
    logged = Logged(chosen, logging, ratings[:, None], clusters)
    return Log(logged, policy, np.stack([*told, *means], axis=2))
