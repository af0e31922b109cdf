"""Base class of personal routers: a global score, and a user's own where the user is known."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.parameters import Integer, Real
from waypost.contracts.router import Prediction, QueryBatch
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats, Floats32
from waypost.contracts.user_state import UserHistory, UserState
from waypost_routers._learned import CalibratedRouter, embeddings_of, measured
from waypost_routers._linear.logistic import sigmoid
from waypost_routers._linear.ridge import Ridge, fit_ridge, folds_of
from waypost_routers._personal.model import NUMPY, Encoder, PersonalModel, Turns
from waypost_routers._personal.training import PersonalTraining, Seen, Shapes, fit_personal

FEWEST_EVENTS = 8
"""With fewer events in the training data the router is not personal."""


class PersonalScoreRouter(CalibratedRouter):
    """A router with a global score of each LLM, and a personal one for users with feedback.

    Scores, tokens and dollars of the LLMs' answers are predicted from the question (ridge
    regression). Without feedback in the training data, the predicted scores decide. With feedback,
    each answer has a vector made of these predictions, of the LLM, its family, and the question; a
    user is a vector, too. Their dot product says how much the user prefers the answer. A user
    without a state gets the mean user's score.

    A subclass writes `_encoder` and `_shapes`.

    Args:
        width: Length of the states and vectors.
        learning_rate: Initial learning rate of AdamW; falls to 0 as a cosine over ``steps``.
        weight_decay: Decoupled weight decay.
        half: Number of events at which a user's own score and the global one weigh the same.
        steps: Maximum number of steps; the number used is chosen on held-out users.
        seed: Seed of weights, draws and held-out users.

    Learned by ``fit``:
        ridge_: Map from embeddings to scores.
        characters_: Mean length of a question, with which dollars are compared.
        personal_: Vectors of answers and users; None without feedback in the training data.
        steps_: Number of training steps on feedback.
    """

    router_family = "personal"
    link = "identity"
    state_parts: ClassVar = {
        **CalibratedRouter.state_parts,
        "ridge_": Ridge,
        "personal_": PersonalModel,
    }

    new_model_support = "few-shot"
    trial_parameters: ClassVar = {"steps": 60}
    parameter_constraints: ClassVar = {
        "width": Integer(2, 1024),
        "learning_rate": Real(0, 1, open_low=True),
        "weight_decay": Real(0, 10),
        "half": Real(0, open_low=True),
        "steps": Integer(1),
        "seed": Integer(0),
    }

    ridge_: Ridge
    characters_: float
    personal_: PersonalModel | None
    steps_: int

    def __init__(
        self,
        width: int = 32,
        learning_rate: float = 0.005,
        weight_decay: float = 0.01,
        half: float = 5.0,
        steps: int = 150,
        seed: int = 0,
    ) -> None:
        self.width = width
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.half = half
        self.steps = steps
        self.seed = seed

    @staticmethod
    @abstractmethod
    def _encoder(*args: Any) -> Any:
        """Make users' states of visible turns; see `Encoder`."""

    @abstractmethod
    def _shapes(self, width: int) -> Shapes:
        """Return the parameters of the encoder."""

    def _fit(self, data: RoutingData) -> None:
        data = measured(data)
        rows = embeddings_of(data)
        self.ridge_, outside = fit_ridge(rows, data.quality, folds_of(data), contrasts=True)
        self._calibrate(data, np.arange(len(data)), outside)
        self._learn_lengths(data)
        self.characters_ = float(np.mean([len(text) for text in data.queries]))
        self.personal_, self.steps_ = None, 0
        events = data.events
        if events is None or len(events) < FEWEST_EVENTS or len(data.llms) < 2:
            return
        how = PersonalTraining(
            width=self.width,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            half=self.half,
            steps=self.steps,
            seed=self.seed,
        )
        # out-of-sample scores: what the events are about was trained on, later questions are not
        outcomes = self._outcomes(rows, self.calibration_.apply(outside))
        seen = Seen(events, np.asarray(rows, np.float32), outcomes, data.names)
        encoder: Encoder = type(self)._encoder
        self.personal_, self.steps_ = fit_personal(seen, encoder, self._shapes, how)

    def _raw(self, batch: QueryBatch) -> Floats:
        return self.ridge_.predict(np.asarray(batch.embeddings))

    def _outcomes(self, rows: NDArray[Any], quality: Floats, tokens: Any = None) -> Floats:
        """Return score and logarithms of dollars, tokens and size, (n, n_llms, 4)."""
        if tokens is None and self.tokens_ is not None:
            tokens = self.tokens_.predict(QueryBatch((), rows))
        characters = np.full(len(rows), self.characters_)
        dollars = self.cost_model_.predict(characters, output_tokens=tokens)
        written = np.ones(quality.shape) if tokens is None else tokens
        sizes = np.array([llm.size_b or np.nan for llm in self.llms_])
        amounts = (dollars, written, np.broadcast_to(sizes, quality.shape))
        return np.stack([quality, *(_filled_log(part) for part in amounts)], axis=-1)

    def _predict(self, batch: QueryBatch) -> Prediction:
        found = super()._predict(batch)
        if self.personal_ is None:
            return found
        model, n = self.personal_, len(batch)
        states, events = np.zeros((n, model.width)), np.zeros(n)
        for row, user in enumerate(batch.users or ()):
            if user is not None and len(user.vector) == model.width:
                states[row], events[row] = user.vector, user.events
        rows = np.asarray(batch.embeddings, np.float32)
        preferred = model.preferences(rows, self.answer_outcomes(rows, found), states, events)
        centred = preferred - preferred.mean(axis=1, keepdims=True)
        first = np.exp(preferred - preferred.max(axis=1, keepdims=True))
        first /= first.sum(axis=1, keepdims=True)
        return replace(found, quality=sigmoid(centred), confidence=first)

    def answer_outcomes(self, rows: Any, found: Prediction | None = None) -> Floats:
        """Return the predicted score, and the logarithms of dollars, tokens and size in billions.

        Shape (n, n_llms, 4); an unknown logarithm is that of the pool's mean. The dollars are those
        of a question of mean length.
        """
        if found is None:
            found = super()._predict(QueryBatch((), np.asarray(rows, np.float32)))
        return self._outcomes(rows, np.asarray(found.quality), found.output_tokens)

    def user_state(self, history: UserHistory) -> UserState:
        """Return the state of a user with this history; events of unknown LLMs are left out.

        Pure: no weight changes. Without feedback in the training data every state is empty.
        """
        self._require_fitted()
        model, column = self.personal_, {llm.name: j for j, llm in enumerate(self.llms_)}
        kept = [
            i
            for i, (llm, other) in enumerate(zip(history.llms, history.others, strict=True))
            if llm in column and (other is None or other in column)
        ]
        if model is None or not kept:
            return UserState(0, np.zeros(0 if model is None else model.width, np.float32))
        rows: Floats32 = history.embeddings[kept]
        outcomes = self.answer_outcomes(rows)
        rated = np.array([history.others[i] is None for i in kept])
        left = [column[history.llms[i]] for i in kept]
        right = [column.get(history.others[i] or "", 0) for i in kept]

        def gain(of: Floats) -> Floats:
            """Return the left answer's part of (n, n_llms, ...), less the right one's."""
            place = np.arange(len(kept))
            beside = np.where(_like(rated, of), of.mean(axis=1), of[place, right])
            return np.asarray(of[place, left] - beside)

        turns = Turns(
            difference=gain(model.vectors(rows, outcomes)),
            known=gain(model.known(outcomes)),
            value=history.values[kept],
            rated=rated.astype(float),
            there=np.ones(len(kept)),
        )
        state = type(self)._encoder(model.values, turns, NUMPY)
        return UserState(len(kept), np.asarray(state, np.float32))


def _like(mask: NDArray[np.bool_], values: Floats) -> NDArray[np.bool_]:
    """Return a mask of rows that broadcasts over (n, n_llms, ...) without its second axis."""
    return mask.reshape(-1, *(1,) * (values.ndim - 2))


def _filled_log(amounts: Floats) -> Floats:
    """Return logarithms; an unknown amount has the mean logarithm of its row, else 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log(np.maximum(amounts, 1e-12))
    known = np.isfinite(logs)
    counts = known.sum(axis=1, keepdims=True)
    mean = np.where(known, logs, 0.0).sum(axis=1, keepdims=True) / np.maximum(counts, 1)
    return np.where(known, logs, mean)
