"""A sentence encoder and the structure features in one vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.encoder import Encoder
from waypost.encoders import structure


class StructuredEncoder:
    """Joins the vectors of a base encoder and the structure features.

    The cosine of two vectors is ``(1 - weight)`` times that of the base encoder plus ``weight``
    times that of the structure features.

    Args:
        id: The encoder id.
        base: The encoder of the text's content.
        weight: Share of the structure features, in (0, 1).
    """

    def __init__(self, id: str, base: Encoder, weight: float) -> None:
        self.id = id
        self.base = base
        self.weight = weight

    @property
    def dimension(self) -> int:
        """Width of the base vector and the features together."""
        return self.base.dimension + structure.DIMENSION

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts; see `waypost.contracts.encoder.Encoder`."""
        form = structure.structure_features(texts)
        return join(self.base.encode(texts), form, self.weight)


def join(
    content: NDArray[np.float32], form: NDArray[np.float32], weight: float
) -> NDArray[np.float32]:
    """Join unit rows of shape (n, a) and (n, b) to unit rows of shape (n, a + b)."""
    parts = [content * np.float32((1 - weight) ** 0.5), form * np.float32(weight**0.5)]
    return np.concatenate(parts, axis=1)
