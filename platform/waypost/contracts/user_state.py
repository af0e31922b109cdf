"""What a personal router learns about one user: the history it reads, the state it makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.types import Floats


@dataclass(frozen=True, eq=False)
class UserHistory:
    """One user's visible ratings and preferences, oldest first.

    Attributes:
        embeddings: float32 (n, d), the questions.
        llms: Names of the LLMs that were rated, or stood left.
        others: Names of the LLMs that stood right; None for a rating.
        values: (n,), the rating, or 1 where the left answer was preferred, 0 where the right one
            was, .5 where neither.
    """

    embeddings: NDArray[np.float32]
    llms: tuple[str, ...]
    others: tuple[str | None, ...]
    values: Floats

    def __len__(self) -> int:
        return len(self.llms)


@dataclass(frozen=True, eq=False)
class UserState:
    """What a personal router knows of one user; made and read by one fitted router only.

    Attributes:
        events: Number of events that it was made from.
        vector: float32 (width,), of the router's own width.
    """

    events: int
    vector: NDArray[np.float32]


Users: TypeAlias = Sequence[UserState | None] | None
"""The state of each query's user, None for an unknown one; None where no user is known."""

StateOf: TypeAlias = Callable[[str | None], UserState | None]
"""Returns the state of the user with an id; None for an unknown user, and for no id."""


@runtime_checkable
class PersonalRouter(Protocol):
    """A router whose predictions depend on the state of the user who asks."""

    def user_state(self, history: UserHistory) -> UserState:
        """Return the state of a user with this history. Pure; the weights do not change."""
        ...
