"""Answers of vLLM that follow a JSON schema: the check before, and the masks where vLLM has none.

vLLM 0.32 keeps an answer to a schema by llguidance. What 0.6.3 has for it does not work here: its
outlines imports pyairports, of which the package index has an empty package only; the processors
that it makes keep their state in themselves, but on a CPU its process gets a new copy of them for
each token; and lm-format-enforcer overlooks a part of schemas (``minimum``, ``maximum``). It takes
any callable as a processor of logits, though, and so gets llguidance as well.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import EngineError
from waypost.engines._lm_guided import Guide, Guided

if TYPE_CHECKING:
    from torch import Tensor

_ANSWERS = 256
"""Answers whose parsers a process keeps. One more begins anew at each token: .7 ms and more."""

_numbers = count()


@lru_cache(maxsize=8)
def guide_of(model: Path, name: str) -> Guide:
    """Return what keeps the answers of a model to a format. Takes a second, once in a process.

    Args:
        model: Its folder.
        name: What messages call it.

    Raises:
        MissingExtraError: llguidance is not installed.
        WeightsError: the folder cannot be read, or its tokenizer cannot be constrained.
    """
    from waypost.engines._lm_prompt import ModelText

    return ModelText.of_folder(model, name).guide()


class Formats:
    """What answers of one model may be kept to.

    Args:
        model: Its folder.
        name: What messages call it.

    Raises:
        MissingExtraError: llguidance is not installed.
        WeightsError: its tokenizer cannot be constrained.
    """

    def __init__(self, model: Path, name: str) -> None:
        self._model = model
        self._name = name
        self._guide = guide_of(model, name)

    def follow(self, schema: Any) -> Guided:
        """Return what sees whether an answer follows a schema; see `Guide.follow`."""
        return self._guide.follow(schema)

    def constraint(self, schema: Any) -> Constraint:
        """Return the processor of logits of one answer."""
        return Constraint(self._model, self._name, json.dumps(schema), next(_numbers))


@dataclass(frozen=True)
class Constraint:
    """Leaves one answer of vLLM 0.6.3 only tokens that follow its schema.

    vLLM sends it to its process anew for each token, so that it holds no parser but names one.

    Attributes:
        model: Folder of the model.
        name: What messages call the model.
        schema: JSON.
        number: Of the answer; no other in this process and those that it starts has it.
    """

    model: Path
    name: str
    schema: str
    number: int

    def __call__(self, past: Sequence[int], logits: Tensor) -> Tensor:
        """Return the logits, (vocabulary,), of the next token; -inf where it may not be.

        Raises nothing: an error would end every request of the engine.
        """
        import torch

        forbidden = _answer(self).forbidden_behind(past)[: logits.shape[-1]]
        return logits.masked_fill(torch.from_numpy(forbidden).to(logits.device), -torch.inf)


class _Answer:
    """The parser of one answer, and the tokens that it has seen."""

    def __init__(self, constraint: Constraint) -> None:
        self._guide = guide_of(constraint.model, constraint.name)
        self._schema = json.loads(constraint.schema)
        self._begin()

    def _begin(self) -> None:
        self._guided = self._guide.follow(self._schema)
        self._seen = 0

    def forbidden_behind(self, past: Sequence[int]) -> NDArray[np.bool_]:
        """Return which tokens may not follow, (width,): all but the ends where the parser gave up.

        `VllmBatch` tells an answer that ends so from one that follows its schema.
        """
        if len(past) < self._seen:  # the answer was begun again
            self._begin()
        self._guided.take(*past[self._seen :])
        self._seen = len(past)
        try:
            return self._guided.forbidden()
        except EngineError:
            return self._guide.all_but_ends()


_answer = lru_cache(maxsize=_ANSWERS)(_Answer)
