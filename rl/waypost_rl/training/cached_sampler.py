"""Sampling with the policy's own model, whose key-value cache is kept from turn to turn.

Works with transformers 4.45 to 5.x.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from waypost.contracts.errors import ContextLengthError, EngineRequestError
from waypost.engines._lm_cache import RowCache
from waypost.engines._lm_model import LanguageModel
from waypost_rl.protocol import STOP_STRINGS
from waypost_rl.training.parts import Sampled
from waypost_rl.training.stops import Stops

_PADDING = 0.25
"""Rows are read together if the shortest is shorter than the longest by at most this share."""

_WORTH_SHARING = 16
"""Tokens that all prompts must begin with to be read once for all."""


@dataclass(slots=True)
class _Row:
    """A row's part of the current turn."""

    row: int
    left: int
    draws: Iterator[float]
    ids: list[int] = field(default_factory=list)


class CachedSampler:
    """A `Sampler` on a causal language model of transformers.

    The model reads no token twice, neither in a later turn nor, at the first turn, where all
    prompts begin alike. A row that ended costs nothing until its next turn. What a row draws
    depends on the seed, the row and the number of its turn, not on the other rows.

    Args:
        model: The policy; its weights are used as they are at each turn. While it samples, it is
            in eval mode.
        tokenizer: Its tokenizer.
        stop: Texts that end a generation.
        end_ids: Tokens that end a generation; None takes those of model and tokenizer.
        name: What messages call the model.
        prefill_tokens: Tokens that one forward pass reads at most, pads included. Bounds its
            memory.

    Raises:
        WeightsError: The model is of a kind that cannot be batched.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        stop: Sequence[str] = STOP_STRINGS,
        end_ids: Collection[int] | None = None,
        name: str = "policy",
        prefill_tokens: int = 2048,
    ) -> None:
        self._module = model
        with self._evaluating():
            self._model = LanguageModel(model, tokenizer, name)
        self._stops = Stops(tokenizer, stop, self._model.end_ids if end_ids is None else end_ids)
        self._prefill_tokens = prefill_tokens
        self.close()

    def begin(self, rows: int, *, seed: int, temperature: float = 1.0) -> None:
        """See `Sampler.begin`."""
        self._cache = RowCache()
        self._cache.open(rows)
        self._place = list(range(rows))  # row -> row of the cache
        self._unread: list[list[int]] = [[] for _ in range(rows)]
        self._turns = [0] * rows
        self._seed = seed
        self._temperature = temperature

    def turn(
        self, added: Mapping[int, Sequence[int]], max_tokens: Mapping[int, int]
    ) -> dict[int, Sampled]:
        """See `Sampler.turn`.

        Raises:
            ContextLengthError: A row would exceed the model's context.
            EngineRequestError: A row is unknown, or has no token.
        """
        sampled: dict[int, Sampled] = {}
        active = [self._row(row, max_tokens[row]) for row in sorted(added)]
        self._cache.reserve(max((self._check(one, added[one.row]) for one in active), default=0))
        for place, one in enumerate(active):
            self._unread[one.row] += added[one.row]
            self._move(one.row, place)
        with self._evaluating():
            logits = self._read(active) if active else None
            while logits is not None:
                for one, token in zip(active, self._choose(logits, active), strict=True):
                    one.ids.append(token)
                    self._unread[one.row] = [token]
                    reason = self._stops.reason(one.ids)
                    if reason is not None or len(one.ids) == one.left:
                        sampled[one.row] = Sampled(tuple(one.ids), reason or "length")
                self._leave(active, sampled)
                logits = self._step(active) if active else None
        return sampled

    def update(self) -> None:
        """Drop what was read with earlier weights; the weights themselves are shared."""
        self.close()

    def close(self) -> None:
        """Free the cache."""
        self.begin(0, seed=0)

    def _row(self, row: int, max_tokens: int) -> _Row:
        if not 0 <= row < len(self._place):
            raise EngineRequestError(
                f"{self._model.name}: row {row} of a batch of {len(self._place)}; call begin with "
                "the number of rows, also after update"
            )
        draws = np.random.default_rng((self._seed, row, self._turns[row]))
        self._turns[row] += 1
        return _Row(row, max_tokens, iter(draws.random(max_tokens).tolist()))

    def _check(self, one: _Row, added: Sequence[int]) -> int:
        """Return the tokens of a row at the end of the turn if it takes all it may."""
        before = self._cache.lengths[self._place[one.row]] + len(self._unread[one.row])
        if before + len(added) < 1 or one.left < 1:
            raise EngineRequestError(
                f"{self._model.name}: row {one.row} has {before + len(added)} tokens and a limit "
                f"of {one.left}; expected at least 1 each"
            )
        after = before + len(added) + one.left
        if after > self._model.context_length:
            raise ContextLengthError(
                f"{self._model.name}: {before} tokens, {len(added)} more and {one.left} to sample "
                f"exceed its context of {self._model.context_length}"
            )
        return after

    def _move(self, row: int, place: int) -> None:
        """Let a row be at a place of the cache, whose row takes its own."""
        mine = self._place[row]
        if mine != place:
            other = self._place.index(place)
            self._cache.swap(mine, place)
            self._place[row], self._place[other] = place, mine

    def _leave(self, active: list[_Row], ended: Mapping[int, Sampled]) -> None:
        """Drop the rows that ended; those that go on stay the first of the cache."""
        for place in range(len(active) - 1, -1, -1):
            if active[place].row in ended:
                last = active.pop()
                if place < len(active):
                    active[place] = last
                    self._move(last.row, place)

    def _read(self, active: Sequence[_Row]) -> Tensor:
        """Read what is new in each row; return the logits of its last token."""
        new = [self._unread[one.row] for one in active]
        if len(new) > 1 and not any(self._cache.lengths[: len(new)]):
            common = _common(new)
            if common >= _WORTH_SHARING:
                self._read_row(0, new[0][:common])
                self._cache.share(0, range(1, len(new)))
                new = [ids[common:] for ids in new]
        logits: list[Any] = [None] * len(new)
        for group in self._groups([len(ids) for ids in new]):
            if len(group) == 1:
                found = self._read_row(group[0], new[group[0]])
            else:
                found = self._model.next_logits([new[row] for row in group], self._cache, group)
            for row, one in zip(group, found, strict=True):
                logits[row] = one
        return torch.stack(logits)

    def _read_row(self, row: int, ids: Sequence[int]) -> Tensor:
        for start in range(0, len(ids), self._prefill_tokens):
            part = ids[start : start + self._prefill_tokens]
            logits = self._model.next_logits([part], self._cache, [row])
        return logits

    def _groups(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Split rows into groups of similar length that fit into a forward pass."""
        group: list[int] = []
        most = 0
        for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
            fits = (len(group) + 1) * most <= self._prefill_tokens
            if group and (not fits or lengths[row] < (1 - _PADDING) * most):
                yield sorted(group)
                group = []
            if not group:
                most = lengths[row]
            group.append(row)
        yield sorted(group)

    def _step(self, active: Sequence[_Row]) -> Tensor:
        return self._model.next_logits(
            [one.ids[-1:] for one in active], self._cache, range(len(active))
        )

    def _choose(self, logits: Tensor, active: Sequence[_Row]) -> list[int]:
        if self._temperature == 0:
            best: list[int] = logits.argmax(dim=-1).tolist()
            return best
        return draw(logits / self._temperature, [next(one.draws) for one in active])

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        training = [one for one in self._module.modules() if one.training]
        self._module.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for one in training:
                one.training = True


def draw(logits: Tensor, uniform: Sequence[float]) -> list[int]:
    """Draw one token for each row from the softmax of its logits.

    Args:
        logits: (rows, vocabulary).
        uniform: One number in [0, 1) for each row; equal numbers and logits give equal tokens.
    """
    # float64: the sum of 150,000 small float32 would be off by more than many of them
    sums = torch.softmax(logits, dim=-1).cumsum(dim=-1, dtype=torch.float64)
    at = torch.tensor(uniform, dtype=torch.float64, device=logits.device)[:, None] * sums[:, -1:]
    found = torch.searchsorted(sums, at, right=True)[:, 0]
    tokens: list[int] = found.clamp_(max=logits.shape[-1] - 1).tolist()
    return tokens


def _common(rows: Sequence[list[int]]) -> int:
    """Return how many tokens all rows begin with, at least one less than the shortest row."""
    most = min(map(len, rows)) - 1
    first, last = min(rows)[:most], max(rows)[:most]  # the two that differ earliest
    pairs = zip(first, last, strict=True)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), most)
