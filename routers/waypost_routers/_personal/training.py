"""Training of a personal router in torch: some of a user's events are visible, others predicted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import MissingExtraError
from waypost.contracts.families import family_of
from waypost.contracts.feedback import UserEvents
from waypost.contracts.types import Floats, Floats32
from waypost_routers._linear.logistic import fit_logistic
from waypost_routers._personal.model import (
    Encoder,
    Ops,
    PersonalModel,
    Turns,
    Values,
    logits,
    shared,
)

FEWEST_USERS = 4
"""With fewer users nothing is held out, and a fixed number of steps is made."""

HELD_OUT = 0.2
"""Share of the users held out to choose the number of steps."""

CHECK_EVERY = 25
"""Steps between two evaluations on held-out users."""

DRAWS = 2
"""Draws of visible events in an evaluation, of each number in `VISIBLE`."""

VISIBLE = (0, 1, 2, 3, 5, 10, 20)
"""Numbers of visible events: in training drawn with equal probability."""

DEFAULT_STEPS = 100

SIZES = (0.4, 0.2, 0.5)
"""Initial sizes of the vectors of outcomes, of LLMs and of families."""

ENCODER_RATE = 0.3
"""Learning rate of the encoder's matrices, as a share of that of the vectors."""

GLOBAL_PRECISION = 3.0
"""Precision, in events, of the prior that the global score is the same for all answers."""

WAYS = 8
"""Directions of the embeddings, those of most variance, that questions are told apart by."""

Shapes = Mapping[str, tuple[tuple[int, ...], float]]
"""Parameters of an encoder: shape, and standard deviation of the initial values. A standard
deviation of 0 begins with zeros; a negative one with ones times its absolute value."""


@dataclass(frozen=True)
class PersonalTraining:
    """Settings of the training.

    Attributes:
        width: Length of states and vectors.
        learning_rate: Initial learning rate of AdamW; falls to 0 as a cosine over ``steps``.
        weight_decay: Decoupled weight decay.
        half: Events at which a user's own score and the global one weigh the same.
        steps: Maximum number of steps.
        seed: Seed of weights and draws.
    """

    width: int
    learning_rate: float
    weight_decay: float
    half: float
    steps: int
    seed: int


@dataclass(frozen=True, eq=False)
class Seen:
    """Training events and what is known of the questions; LLMs are columns.

    Attributes:
        events: The events.
        rows: float32 (n, d), embeddings of the questions.
        outcomes: (n, n_llms, n_outcomes), predicted for questions that were not trained on.
        names: Names of the LLMs.
    """

    events: UserEvents
    rows: Floats32
    outcomes: Floats
    names: tuple[str, ...]


def fit_personal(
    seen: Seen,
    encoder: Encoder,
    shapes: Callable[[int], Shapes],
    how: PersonalTraining,
) -> tuple[PersonalModel, int]:
    """Train on the users' events; return the model and the number of steps.

    A part of the users is held out to choose the number of steps; then all users are trained on.

    Args:
        seen: Events of at least one user.
        encoder: Makes states of visible turns.
        shapes: Parameters of the encoder, by width.
        how: The settings.

    Raises:
        MissingExtraError: torch is not installed.
    """
    try:
        import torch
    except ImportError:
        raise MissingExtraError("torch", "train") from None
    users = np.unique(seen.events.user)
    with torch.random.fork_rng(devices=[]):
        steps = min(how.steps, DEFAULT_STEPS)
        if len(users) >= FEWEST_USERS:
            drawn = np.random.default_rng(how.seed).permutation(users)
            held = drawn[: max(round(HELD_OUT * len(users)), 1)]
            judged = _Learner(seen, users[~np.isin(users, held)], encoder, shapes, how)
            steps = judged.best_steps(held)
        last = _Learner(seen, users, encoder, shapes, how)
        for _ in range(steps):
            last.step()
    return last.model(), steps


class _Learner:
    """A personal model in training on some of the users."""

    def __init__(
        self,
        seen: Seen,
        users: NDArray[np.intp],
        encoder: Encoder,
        shapes: Callable[[int], Shapes],
        how: PersonalTraining,
    ) -> None:
        import torch

        self.how, self._encoder, self._seen = how, encoder, seen
        self._shapes = shapes(how.width)
        self._ops = Ops(torch.sigmoid, torch.tanh)
        self._draw = np.random.default_rng(how.seed)
        torch.manual_seed(how.seed)
        self._users = users
        self._by_name = np.argsort(np.array(seen.names))
        # the LLMs are sorted by name, so that their order changes nothing
        outcomes = seen.outcomes[:, self._by_name]
        flat = outcomes.reshape(-1, outcomes.shape[-1])
        self._centre, spread = flat.mean(axis=0), flat.std(axis=0)
        self._spread = np.where(spread > 1e-6, spread, 1.0)
        families = [family_of(seen.names[j]) for j in self._by_name]
        of = sorted(set(families))
        self._family = torch.as_tensor([of.index(one) for one in families])
        self._ways = _directions(seen.rows[np.unique(seen.events.query)])
        self._values = self._begin(len(of))
        self._event = self._events((outcomes - self._centre) / self._spread)
        mine = [part for key, part in self._values.items() if key in self._shapes]
        rest = [part for key, part in self._values.items() if key not in self._shapes]
        groups: list[dict[str, Any]] = [
            {"params": rest},
            {"params": mine, "lr": ENCODER_RATE * how.learning_rate},
        ]
        self._optimizer = torch.optim.AdamW(
            groups,
            lr=how.learning_rate,
            weight_decay=how.weight_decay,
        )
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, how.steps)

    def _begin(self, families: int) -> dict[str, Any]:
        import torch

        m, k = self._seen.outcomes.shape[1:]
        h = self.how.width
        wanted: dict[str, tuple[tuple[int, ...], float]] = {
            "outcome": ((k, h), h**-0.5),
            "own": ((m, h), h**-0.5),
            "family": ((families, h), h**-0.5),
            "asked": ((self._ways.shape[1], h), h**-0.5),
            "match": ((m, h), 0.0),
            "size": ((3,), 0.0),
            "rating": ((2,), 0.0),
            **self._shapes,
        }
        values = {}
        for name, (shape, scale) in wanted.items():
            start = torch.full(shape, -scale) if scale < 0 else torch.randn(shape) * scale
            values[name] = start.requires_grad_()
        with torch.no_grad():
            values["rating"][0] = 1.0
            values["size"][:] = torch.log(torch.tensor(SIZES))
        return values

    def _events(self, scaled: Floats) -> dict[str, Any]:
        """Return what is fixed of each event: its question, outcomes and the pool's mean."""
        import torch

        events, place = self._seen.events, np.argsort(self._by_name)
        llm, rated = place[events.llm], events.other < 0
        other = place[np.maximum(events.other, 0)]
        q = events.query
        m = scaled.shape[1]
        chosen = np.eye(m)[llm] - np.where(rated[:, None], 1.0 / m, np.eye(m)[other])
        gained = np.einsum("em,emk->ek", chosen, scaled[q])
        of = np.isin(events.user, self._users)
        features = np.concatenate([gained, chosen], axis=1)
        width = features.shape[1]
        self._global = fit_logistic(
            features[of], events.value[of], np.zeros(width), np.full(width, GLOBAL_PRECISION)
        )
        found = {
            "known": features @ self._global,
            "chosen": chosen,
            "gained": gained,
            "rows": self._seen.rows[q] @ self._ways,
            "value": events.value,
            "rated": rated.astype(float),
        }
        return {key: torch.as_tensor(np.asarray(v, np.float32)) for key, v in found.items()}

    def _parts(self) -> tuple[Any, Any]:
        """Return the vectors of outcomes and of LLMs; each kind has a learned size."""
        p = self._values
        size = p["size"].exp()
        return size[0] * p["outcome"], size[1] * p["own"] + size[2] * p["family"][self._family]

    def _differences(self) -> Any:
        outcome, llm = self._parts()
        p, e = self._values, self._event
        asked = e["rows"] @ p["asked"]
        return e["gained"] @ outcome + e["chosen"] @ llm + asked * (e["chosen"] @ p["match"])

    def _loss(self, differences: Any, visible: NDArray[np.intp], targets: NDArray[np.intp]) -> Any:
        """Return the mean loss of targets given visible events; -1 pads both (n_users, n)."""
        import torch

        seen, asked = (self._turns(differences, part) for part in (visible, targets))
        state = self._encoder(self._values, seen, self._ops)
        share = shared(seen.there.sum(-1), self.how.half)
        found = logits(self._values, share[..., None] * state, asked)
        each = torch.nn.functional.binary_cross_entropy_with_logits(
            found, asked.value, reduction="none"
        )
        return (each * asked.there).sum() / asked.there.sum().clamp(min=1)

    def _turns(self, differences: Any, places: NDArray[np.intp]) -> Turns:
        import torch

        at = torch.as_tensor(np.maximum(places, 0))
        e = self._event
        there = torch.as_tensor((places >= 0).astype(np.float32))
        return Turns(differences[at], e["known"][at], e["value"][at], e["rated"][at], there)

    def step(self) -> None:
        """Make one step on all users, with visible and target events drawn anew."""
        import torch

        loss = self._loss(self._differences(), *self._parted(self._users, self._draw, None))
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(list(self._values.values()), 1.0)
        self._optimizer.step()
        self._schedule.step()

    def _parted(
        self, users: NDArray[np.intp], draw: np.random.Generator, count: int | None
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Part each user's events at random: the first are visible, the others targets.

        A permutation is cut in two, so no event is in both.
        """
        of_user = self._seen.events.user
        most = int(np.bincount(of_user).max())
        visible, targets = (np.full((len(users), most), -1, np.intp) for _ in range(2))
        for row, user in enumerate(users):
            mine = draw.permutation(np.flatnonzero(of_user == user))
            n = int(draw.choice(VISIBLE)) if count is None else count
            n = min(n, max(len(mine) - 1, 0))
            visible[row, :n] = mine[:n]
            targets[row, : len(mine) - n] = mine[n:]
        return visible[:, : max(VISIBLE)], targets

    def best_steps(self, held: NDArray[np.intp]) -> int:
        """Train to the end and return the steps at which held-out users were predicted best."""
        import torch

        draw = np.random.default_rng(self.how.seed + 1)
        judged = [self._parted(held, draw, count) for count in VISIBLE for _ in range(DRAWS)]
        losses = []
        for done in range(0, self.how.steps + 1, CHECK_EVERY):
            with torch.no_grad():
                told = self._differences()
                losses.append(float(np.mean([float(self._loss(told, *one)) for one in judged])))
            for _ in range(min(CHECK_EVERY, self.how.steps - done)):
                self.step()
        return int(np.argmin(losses)) * CHECK_EVERY

    def model(self) -> PersonalModel:
        """Return the model in numpy, its LLMs in the order of the data."""
        outcome, llm = self._parts()
        p: Values = {**self._values, "outcome": outcome, "llm": llm}
        found = {
            key: part.detach().numpy().astype(np.float64)
            for key, part in p.items()
            if key not in ("own", "family", "size", "asked")
        }
        k = len(self._centre)
        found |= {"of_outcome": self._global[:k], "of_llm": self._global[k:]}
        found["query"] = self._ways @ self._values["asked"].detach().numpy()
        back = np.argsort(self._by_name)
        found |= {key: found[key][back] for key in ("llm", "match", "of_llm")}
        found |= {"centre": self._centre, "spread": self._spread}
        return PersonalModel({**found, "half": np.array([self.how.half])})


def _directions(rows: Floats32) -> Floats32:
    """Return the principal directions of embeddings, (d, at most `WAYS`), scaled to variance 1."""
    values, vectors = np.linalg.eigh(np.cov(rows.astype(np.float64), rowvar=False))
    kept = np.argsort(values)[::-1][:WAYS]
    kept = kept[values[kept] > 1e-9]
    # the sign of an eigenvector is arbitrary: its largest entry is made positive
    found = vectors[:, kept] * np.sign(vectors[np.abs(vectors[:, kept]).argmax(axis=0), kept])
    return np.asarray(found / np.sqrt(values[kept]), np.float32)
