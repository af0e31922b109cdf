"""What a router that compares answers sees of an episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from waypost.contracts import policy
from waypost.contracts.records import Prediction
from waypost.contracts.steps import ANSWER, CallResult, EpisodeState
from waypost.contracts.types import Floats
from waypost.scorers.forms import Similar, group_answers
from waypost.tune.consensus.belief import MOST_CALLS

FORMLESS, UNSEEN = -1, -2


@dataclass(frozen=True, eq=False)
class Seen:
    """The answers of an episode so far; m LLMs.

    Attributes:
        answers: Results with an answer, in the order of the calls, and their columns.
        labels: int8 (m,), the group of each LLM's answer, numbered from 0 in the order of the
            calls; -1 for an answer without a normal form, -2 for none.
        asked: (m,) whether an LLM was asked, with or without success.
        spent_usd: Known dollars of all calls.
    """

    answers: tuple[tuple[CallResult, int], ...]
    labels: NDArray[np.int8]
    asked: NDArray[np.bool_]
    spent_usd: float

    @classmethod
    def of(cls, state: EpisodeState, known: Sequence[str], similar: Similar | None = None) -> Seen:
        """Read an episode.

        Args:
            state: The episode.
            known: Names of the router's LLMs.
            similar: Compares texts by their meaning.
        """
        place = {name: column for column, name in enumerate(known)}
        results = [
            (result, place[result.call.model])
            for step in state.steps
            for result in step
            if result.call.purpose == ANSWER and result.call.model in place
        ]
        answers = tuple(pair for pair in results if pair[0].ok)
        labels = np.full(len(known), UNSEEN, np.int8)
        texts = [result.text for result, _ in answers]
        groups = group_answers(texts, state.query.text, similar=similar)
        for (_, column), group in zip(answers, groups, strict=True):
            labels[column] = group if group < MOST_CALLS else FORMLESS
        asked = np.zeros(len(known), bool)
        asked[[column for _, column in results]] = True
        return cls(answers, labels, asked, sum(result.cost_usd or 0.0 for result, _ in results))

    def best(self, group: int, quality: Floats) -> CallResult:
        """Return the answer of the best LLM of a group; of all LLMs, where none is in it.

        Args:
            group: Label of the group.
            quality: (m,) predicted quality of each LLM.
        """
        inside = [pair for pair in self.answers if self.labels[pair[1]] == group]
        return max(inside or self.answers, key=lambda pair: float(quality[pair[1]]))[0]


def one_prediction(
    found: Prediction, row: int, n: int, mean_quality: Floats
) -> tuple[Prediction, Floats]:
    """Return one query's prediction, and its quality where the policy would decide by it."""
    quality = np.asarray(policy.decision_quality(found, mean_quality), np.float64)
    part = slice(row, row + 1)
    one = Prediction(
        quality[part],
        None if found.output_tokens is None else found.output_tokens[part],
        None if found.recorded_usd is None else found.recorded_usd[part],
    )
    return one, quality[row]
