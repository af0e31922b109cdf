"""A BERT-style sentence encoder with frozen lower layers and trainable upper layers."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import WeightsError
from waypost.encoders.texts import batches_by_length, prepare
from waypost_routers._finetune.base import Base

if TYPE_CHECKING:
    from torch import Tensor

PIECE = 16
"""Questions in one padded forward pass in training, sorted by length."""


class SplitEncoder:
    """An encoder of texts into mean-pooled states of unit length.

    The frozen layers' output for a text never changes, so training computes it once per text
    (4 bytes x width for each token) and repeats only the upper layers.

    Args:
        base: The pretrained encoder.
        trained_layers: Number of trainable upper layers; all if the model has fewer.
        max_tokens: Maximum number of tokens read of each text.
        arrays: Parameters of the upper layers; None keeps the pretrained ones.

    Raises:
        WeightsError: the model is not of BERT's form, or has no fast tokenizer.
    """

    def __init__(
        self,
        base: Base,
        trained_layers: int,
        max_tokens: int,
        arrays: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        import torch
        from tokenizers import Tokenizer

        layers = getattr(getattr(base.model, "encoder", None), "layer", None)
        if layers is None or not hasattr(base.model, "embeddings"):
            raise WeightsError(
                f"{base.name}: {type(base.model).__name__} has no embeddings and encoder.layer; "
                "expected an encoder of BERT's form, such as MiniLM"
            )
        cut = max(len(layers) - trained_layers, 0)
        self.device = base.device
        self.width = int(base.model.config.hidden_size)
        self._embeddings, self._lower = base.model.embeddings, layers[:cut]
        self.upper = copy.deepcopy(layers[cut:])
        if arrays is not None:
            loaded = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
            self.upper.load_state_dict(loaded)
        limit = min(max_tokens, int(base.model.config.max_position_embeddings))
        self._max_tokens = limit
        tokenizer = base.folder / "tokenizer.json"
        if not tokenizer.is_file():
            raise WeightsError(f"{base.name}: {base.folder} lacks tokenizer.json")
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(limit)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the parameters of the upper layers by name."""
        state = self.upper.state_dict()
        return {name: value.cpu().numpy().copy() for name, value in state.items()}

    def read(self, texts: Sequence[str]) -> list[Tensor]:
        """Return the frozen layers' output for each text, (tokens, width), on the CPU."""
        import torch

        found = []
        with torch.no_grad():
            for text in prepare(texts, self._max_tokens):
                ids = torch.tensor([self._tokenizer.encode(text).ids], device=self.device)
                hidden = _through(self._lower, self._embeddings(input_ids=ids), None)
                found.append(hidden[0].cpu())
        return found

    def pool(self, hidden: Sequence[Tensor]) -> Tensor:
        """Return the states of the outputs of `read`, (n, width), unit rows, with gradients.

        A single text is encoded without padding.
        """
        import torch

        rows: list[Any] = [None] * len(hidden)
        size = 1 if len(hidden) == 1 else PIECE
        for batch in batches_by_length([len(value) for value in hidden], size):
            piece = [hidden[i] for i in batch]
            padded = torch.nn.utils.rnn.pad_sequence(piece, batch_first=True).to(self.device)
            lengths = torch.tensor([len(value) for value in piece], device=self.device)
            real = torch.arange(padded.shape[1], device=self.device) < lengths[:, None]
            mask = None if bool(real.all()) else _additive(real)
            top = _through(self.upper, padded, mask)
            mean = (top * real[:, :, None]).sum(dim=1) / lengths[:, None]
            for row, state in zip(batch, torch.nn.functional.normalize(mean, dim=-1), strict=True):
                rows[row] = state
        return torch.stack(rows)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the states of texts, (n, width), encoded one by one, independent of each other."""
        import torch

        states = np.zeros((len(texts), self.width), np.float32)
        with torch.no_grad():
            for row, text in zip(states, texts, strict=True):
                row[:] = self.pool(self.read([text]))[0].cpu().numpy()
        return states


def _through(layers: Any, hidden: Any, mask: Any) -> Any:
    for layer in layers:
        out = layer(hidden, mask)
        hidden = out[0] if isinstance(out, tuple) else out  # a tuple before transformers 5
    return hidden


def _additive(real: Any) -> Any:
    import torch

    lowest = torch.finfo(torch.float32).min
    return torch.where(real, 0.0, lowest)[:, None, None, :]
