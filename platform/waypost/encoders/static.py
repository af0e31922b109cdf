"""Static embeddings: the mean of one vector per token, with NumPy and a tokenizer only.

Models have the form of model2vec (Tulkens and van Dongen, 2024): ``model.safetensors`` with
``embeddings`` (and ``mapping`` and ``weights`` if the vocabulary is quantised), ``tokenizer.json``
and ``config.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import SchemaError
from waypost.encoders.texts import prepare, unit_rows


class StaticEncoder:
    """An encoder that averages token vectors.

    The table is read on first use. A row does not depend on the other rows of its call.

    Args:
        id: The encoder id.
        locate: Returns the model's folder; called once, on first use (it may distil or
            download).
        dimension: Dimension of a vector; a wider table is cut to its first columns.
        max_tokens: Number of tokens read from each text.
    """

    def __init__(
        self, id: str, locate: Callable[[], Path], dimension: int, max_tokens: int
    ) -> None:
        self.id = id
        self.locate = locate
        self.dimension = dimension
        self.max_tokens = max_tokens
        self._loaded: tuple[Any, NDArray[np.float32], int] | None = None
        self._lock = Lock()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts; see `waypost.contracts.encoder.Encoder`.

        Raises:
            WeightsError: the model cannot be obtained.
            SchemaError: the model's table is narrower than `dimension`.
        """
        tokenizer, table, unknown = self._load()
        rows = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in zip(rows, prepare(texts, self.max_tokens), strict=True):
            # one text at a time: encode_batch starts threads, which make a later fork unsafe
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            if unknown in ids:
                ids = [number for number in ids if number != unknown]
            if ids:
                table[ids].sum(axis=0, out=row)
        return unit_rows(rows)

    def _load(self) -> tuple[Any, NDArray[np.float32], int]:
        if self._loaded is None:
            with self._lock:
                if self._loaded is None:
                    self._loaded = self._read(self.locate())
        return self._loaded

    def _read(self, folder: Path) -> tuple[Any, NDArray[np.float32], int]:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        tensors = load_file(folder / "model.safetensors")
        table = np.asarray(tensors["embeddings"], np.float32)
        if "mapping" in tensors:
            table = table[tensors["mapping"]]
        if "weights" in tensors:
            table = table * np.asarray(tensors["weights"], np.float32)[:, None]
        if table.shape[1] < self.dimension:
            raise SchemaError(
                f"{folder}: the static model has {table.shape[1]} dimensions, "
                f"the encoder needs {self.dimension}"
            )
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.max_tokens)
        unknown = tokenizer.token_to_id("[UNK]")
        return (
            tokenizer,
            np.ascontiguousarray(table[:, : self.dimension]),
            -1 if unknown is None else unknown,
        )
