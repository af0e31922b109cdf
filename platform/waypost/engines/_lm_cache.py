"""The key-value cache of a batch whose sequences come and go.

Imports torch and transformers at the top: only `_lm_model` and `_lm_loop` import it, and they
are imported when a `transformers` engine starts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

_TOKENS = 256
"""A row's room grows in steps of at least this many tokens."""


class RowCache(Cache):  # type: ignore[misc]  # transformers is not typed for mypy
    """Keys and values of several sequences, one a row, each beginning at position 0.

    Rows of different length end where they end; what lies behind is masked by the caller, so no
    sequence is ever padded or moved when another joins or leaves. Works with the Cache protocol
    of transformers 4.45 and of 5: ``update`` and ``get_seq_length``.

    Attributes:
        lengths: Tokens in each row.
        end: Longest row with the tokens of the current step: the width of the masks.
    """

    def __init__(self) -> None:
        # Cache.__init__ differs between transformers 4 (where Cache is a torch module) and 5.
        if isinstance(self, torch.nn.Module):
            torch.nn.Module.__init__(self)
        self.layers: list[Any] = []  # transformers 5 looks here for layers of special kinds
        self.lengths: list[int] = []
        self.end = 0
        self._new = 0
        self._room = 0
        self._at = torch.empty(0, dtype=torch.long)
        self._states: dict[int, list[Tensor]] = {}  # layer -> [keys, values], rows first

    def begin(self, new_tokens: int, device: torch.device) -> Tensor:
        """Prepare a step that adds tokens to every row.

        Args:
            new_tokens: How many; more than one only where the cache has a single row.
            device: Where the model is.

        Returns the positions of the new tokens, int64 (rows, new_tokens).
        """
        self._new = new_tokens
        self.end = max(self.lengths) + new_tokens
        if self.end > self._room:
            self._room = max(self.end, self._room * 2, _TOKENS)
        self._at = torch.tensor(self.lengths, device=device)
        return self._at[:, None] + torch.arange(new_tokens, device=device)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Store a layer's new states, (rows, heads, new tokens, width); return all of them."""
        new = (key_states, value_states)
        states = self._states.get(layer_idx)
        if states is None or states[0].shape[2] < self._room or states[0].shape[0] < len(new[0]):
            states = self._grow(layer_idx, new)
        rows = len(self.lengths)
        for store, state in zip(states, new, strict=True):
            if rows == 1:
                store[:1, :, self.end - self._new : self.end] = state
            else:
                store[torch.arange(rows, device=state.device), :, self._at] = state[:, :, 0]
        return states[0][:rows, :, : self.end], states[1][:rows, :, : self.end]

    def commit(self) -> None:
        """Count the tokens of the step; call it after the forward pass."""
        self.lengths = [length + self._new for length in self.lengths]

    def append(self, other: RowCache) -> None:
        """Take over the one row of another cache as the last row."""
        row, length = len(self.lengths), other.lengths[0]
        self.lengths.append(length)
        self._room = max(self._room, other._room)
        for layer, source in other._states.items():
            store = self._states.get(layer)
            if store is None or store[0].shape[0] <= row or store[0].shape[2] < self._room:
                store = self._grow(layer, source)
            for target, state in zip(store, source, strict=True):
                target[row, :, :length] = state[0, :, :length]

    def remove(self, row: int) -> None:
        """Drop a row; the last row takes its place. An empty cache frees its memory."""
        last = len(self.lengths) - 1
        if row != last:
            length = self.lengths[last]
            for states in self._states.values():
                for store in states:
                    store[row, :, :length] = store[last, :, :length]
            self.lengths[row] = length
        self.lengths.pop()
        if not self.lengths:
            self._states, self._room = {}, 0

    def _grow(self, layer: int, like: tuple[Tensor, ...] | list[Tensor]) -> list[Tensor]:
        old = self._states.get(layer)
        rows = len(self.lengths)
        if old is not None and rows > old[0].shape[0]:
            rows = max(rows, 2 * old[0].shape[0])
        elif old is not None:
            rows = old[0].shape[0]
        grown = []
        for index, state in enumerate(like):
            # zeros, not empty: a masked NaN is still a NaN
            store = state.new_zeros(rows, state.shape[1], self._room, state.shape[3])
            if old is not None:
                store[: old[index].shape[0], :, : old[index].shape[2]] = old[index]
            grown.append(store)
        self._states[layer] = grown
        return grown

    # What transformers asks of a cache.

    def get_seq_length(self, layer_idx: int | None = 0) -> int:
        """Return the longest row's tokens before the current step."""
        return self.end - self._new

    def get_max_length(self) -> int | None:
        """Return None: the cache grows (transformers 4.45)."""
        return None

    def get_mask_sizes(self, *_: Any, **__: Any) -> tuple[int, int]:
        """Return width and offset of a mask (transformers 5; the engine gives its own masks)."""
        return self.end, 0
