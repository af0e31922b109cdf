"""Embeddings of one run: each text once for each encoder, however many routers share it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.encoder import Encoder
from waypost.contracts.router import TrainableRouter
from waypost.contracts.routing_data import RoutingData
from waypost.pipelines.embed import Progress, query_embeddings


class Vectors:
    """Embeds what routers need, and remembers it.

    Args:
        encoder: The one that routers are fitted with.
        folder: Routing-data folder that keeps embeddings; see `query_embeddings`.
        progress: Told (done, total) embedded texts.
    """

    def __init__(self, encoder: Encoder, folder: Path, progress: Progress | None = None) -> None:
        self.encoder = encoder
        self._folder = folder
        self._progress = progress
        self._rows: dict[str, dict[str, NDArray[np.float32]]] = {}

    def embedded(self, data: RoutingData, encoder: Encoder) -> RoutingData:
        """Return the data with embeddings by this encoder; the folder keeps new ones."""
        known = self._rows.setdefault(encoder.id, {})
        new = list(dict.fromkeys(text for text in data.queries if text not in known))
        if new:
            rows = query_embeddings(new, encoder, self._folder, self._progress)
            known.update(zip(new, rows, strict=True))
        rows = np.stack([known[text] for text in data.queries])
        return data.with_embeddings(rows, encoder.id)

    def for_router(self, router: TrainableRouter, data: RoutingData) -> RoutingData:
        """Return the data as this router is to be asked: with its encoder's embeddings, if any."""
        encoder = self._encoder_of(router)
        return data if encoder is None else self.embedded(data, encoder)

    def of_texts(self, router: TrainableRouter, texts: Sequence[str]) -> NDArray[np.float32] | None:
        """Embed texts that no folder keeps; None where the router needs none."""
        encoder = self._encoder_of(router)
        if encoder is None:
            return None
        known = self._rows.setdefault(encoder.id, {})
        new = list(dict.fromkeys(text for text in texts if text not in known))
        if new:
            known.update(zip(new, encoder.encode(new), strict=True))
        return np.stack([known[text] for text in texts])

    @staticmethod
    def _encoder_of(router: TrainableRouter) -> Encoder | None:
        return router.encoder if router.needs_embeddings else None
