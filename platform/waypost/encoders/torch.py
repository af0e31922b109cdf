"""A sentence-transformers model run by torch: the reference encoder, and the one for a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost import weights
from waypost.contracts.errors import MissingExtraError
from waypost.encoders.texts import batches_by_length, prepare, unit_rows


class TorchEncoder:
    """An encoder that runs any sentence-transformers model in float32 with its own pooling.

    Calls from several threads run one after another.

    Args:
        id: The encoder id.
        model: Hub name or folder.
        max_tokens: Number of tokens read from each text, at most the model's own limit.
        threads: torch threads of a call; the previous number is restored after it.
        batch_size: Texts per forward pass; None is 1 on the CPU and 64 on other devices.
        device: torch device, such as ``cpu`` or ``cuda``.
    """

    def __init__(
        self,
        id: str,
        model: str,
        max_tokens: int,
        threads: int,
        batch_size: int | None,
        device: str,
    ) -> None:
        self.id = id
        self.model = model
        self.max_tokens = max_tokens
        self.threads = threads
        self.batch_size = batch_size
        self.device = device
        self._model: Any = None
        self._lock = Lock()

    @property
    def dimension(self) -> int:
        """Dimension of a vector; loads the model on first use."""
        with self._lock:
            return int(self._load().get_embedding_dimension())

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts; see `waypost.contracts.encoder.Encoder`.

        Raises:
            WeightsError: the model cannot be obtained.
            MissingExtraError: sentence-transformers is not installed.
        """
        short = prepare(texts, self.max_tokens)
        with self._lock:
            model = self._load()
            rows = np.zeros((len(short), model.get_embedding_dimension()), np.float32)
            size = self.batch_size or (1 if self.device == "cpu" else 64)
            with _threads(self.threads):
                for batch in batches_by_length([len(text) for text in short], size):
                    rows[batch] = model.encode(
                        [short[position] for position in batch],
                        batch_size=size,
                        show_progress_bar=False,
                        convert_to_numpy=True,
                    )
        return unit_rows(rows)

    def _load(self) -> Any:
        if self._model is None:
            try:
                from sentence_transformers import SentenceTransformer
            except ImportError:
                raise MissingExtraError("sentence_transformers", "train") from None
            folder = weights.resolve(self.model)
            model = SentenceTransformer(str(folder), device=self.device)
            model.max_seq_length = min(self.max_tokens, model.max_seq_length or self.max_tokens)
            self._model = model
        return self._model


@contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
