"""Protocol of query encoders, so that routers and artifacts need not import an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into vectors.

    Attributes:
        id: Names everything that decides the vectors (kind, weights, revision, features), and
            nothing else (threads, cache size). Two encoders with the same id give the same
            vectors up to numerical noise. Artifacts and file names contain it, so it holds only
            letters, digits, ``.``, ``_``, ``+`` and ``-``.
        dimension: Width d of a vector.
    """

    @property
    def id(self) -> str: ...  # noqa: D102

    @property
    def dimension(self) -> int: ...  # noqa: D102

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts.

        Returns float32 of shape (n_texts, d), each row of unit length (an empty text included).
        A row depends on its own text only, to about 1e-6. Thread-safe.
        """
        ...
