"""The key-value cache of a batch whose sequences come and go.

Imports torch and transformers at the top: only `_lm_model` and `_lm_loop` import it, and they
are imported when a `transformers` engine starts.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        self._rows: list[int] = []  # those that take part in the current step
        self._new: list[int] = []  # their new tokens
        self._room = 0
        self._at = torch.empty(0, dtype=torch.long)
        self._index = torch.empty(0, dtype=torch.long)
        self._states: dict[int, list[Tensor]] = {}  # layer -> [keys, values], rows first

    def reserve(self, tokens: int) -> None:
        """Let the rows have room for so many tokens each when they next grow."""
        self._room = max(self._room, tokens)

    def begin(
        self, new: Sequence[int], device: torch.device, rows: Sequence[int] | None = None
    ) -> Tensor:
        """Prepare a step that adds tokens to rows.

        Rows with fewer new tokens than others have their tokens at the end of the step's width,
        behind pads, which are not stored. So the last column is the last token of every row.

        Args:
            new: New tokens of each row that takes part, at least 1.
            device: Where the model is.
            rows: Those rows; None for all. Neighbours in their order are read in place, others
                are copied in each layer.

        Returns the positions of the new tokens, int64 (rows, most new tokens). A pad has a
        position that its row has a key for.
        """
        self._rows = list(range(len(self.lengths)) if rows is None else rows)
        self._new = list(new)
        lengths = [self.lengths[row] for row in self._rows]
        width = max(new)
        self.end = max(length + count for length, count in zip(lengths, new, strict=True))
        if self.end > self._room:
            self._room = max(self.end, self._room * 2, _TOKENS)
        self._at = torch.tensor(lengths, device=device)
        self._index = torch.tensor(self._rows, device=device)
        if width == 1:
            return self._at[:, None]
        first = self._at - width + torch.tensor(self._new, device=device)
        return (first[:, None] + torch.arange(width, device=device)).clamp_(min=0)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Store a layer's new states, (rows, heads, new tokens, width); return all of them."""
        new = (key_states, value_states)
        width = key_states.shape[2]
        states = self._states.get(layer_idx)
        if (
            states is None
            or states[0].shape[2] < self._room
            or states[0].shape[0] < len(self.lengths)
        ):
            states = self._grow(layer_idx, new)
        for store, state in zip(states, new, strict=True):
            if width == 1 and len(self._rows) > 1:
                store[self._index, :, self._at] = state[:, :, 0]
                continue
            for of, (row, count) in enumerate(zip(self._rows, self._new, strict=True)):
                length = self.lengths[row]
                store[row, :, length : length + count] = state[of, :, width - count :]
        return self._seen(states[0]), self._seen(states[1])

    def _seen(self, store: Tensor) -> Tensor:
        first, count = self._rows[0], len(self._rows)
        if self._rows == list(range(first, first + count)):
            return store[first : first + count, :, : self.end]
        return store[self._index, :, : self.end]

    def commit(self) -> None:
        """Count the tokens of the step; call it after the forward pass."""
        for row, count in zip(self._rows, self._new, strict=True):
            self.lengths[row] += count

    def open(self, rows: int) -> None:
        """Add empty rows."""
        self.lengths += [0] * rows

    def share(self, row: int, rows: Sequence[int]) -> None:
        """Let other, empty rows begin with the tokens of a row."""
        length = self.lengths[row]
        for states in self._states.values():
            for store in states:
                store[list(rows), :, :length] = store[row, :, :length]
        for other in rows:
            self.lengths[other] = length

    def swap(self, row: int, other: int) -> None:
        """Exchange two rows."""
        lengths = self.lengths
        most = max(lengths[row], lengths[other])
        lengths[row], lengths[other] = lengths[other], lengths[row]
        for states in self._states.values():
            for store in states:
                store[[row, other], :, :most] = store[[other, row], :, :most]

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
        return self.end - max(self._new, default=0)

    def get_max_length(self) -> int | None:
        """Return None: the cache grows (transformers 4.45)."""
        return None

    def get_mask_sizes(self, *_: Any, **__: Any) -> tuple[int, int]:
        """Return width and offset of a mask (transformers 5; the engine gives its own masks)."""
        return self.end, 0
