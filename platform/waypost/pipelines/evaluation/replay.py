"""Replay the episodes of a step router on measured data."""

from __future__ import annotations

import asyncio
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import EngineRequestError, SchemaError
from waypost.contracts.records import Query
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.step_router import ANSWER, Call, CallResult, StepRouter
from waypost.contracts.verdicts import VERIFY
from waypost.episode import EpisodeLimits, EpisodeResult, run_episode
from waypost.metrics.comparison import Outcomes, look_up

_LIMITS = EpisodeLimits(max_steps=64, wall_s=3600.0)
"""Wide limits: a replay makes no calls, and caps would only hide the router's behaviour."""


def outcomes(router: StepRouter, data: RoutingData, lam: float) -> Outcomes:
    """Run an episode for each query; look up the score of its answer and the cost of its calls.

    An answer that the data lacks is a failed call. Verdicts on an answer are returned in their
    recorded order; further ones fail.

    Args:
        router: A fitted router.
        data: Recorded outcomes, with verdicts if the router needs them.
        lam: Cost weight of every query.

    Returns:
        Quality is NaN if no LLM gave the answer or it was not measured; dollars are NaN if the
        cost of a call is not recorded.

    Raises:
        SchemaError: The router needs verdicts that the data lacks, or makes calls other than for
            answers and verdicts, which data cannot contain.
    """
    done = asyncio.run(_episodes(router, data, lam))
    names = {name: j for j, name in enumerate(data.names)}
    model = np.array([names.get(result.model or "", -1) for result in done], np.intp)
    return Outcomes(
        quality=look_up(data, model).quality,
        cost_usd=np.array([np.nan if r.unpriced_calls else r.cost_usd for r in done], np.float64),
        model=model,
        calls=np.array([len(result.calls) for result in done], np.intp),
        first=np.array([names.get(_first(result), -1) for result in done], np.intp),
    )


def _first(result: EpisodeResult) -> str:
    asked = (one.call.model for one in result.calls if one.call.purpose == ANSWER)
    return next(asked, None) or ""


async def _episodes(router: StepRouter, data: RoutingData, lam: float) -> list[EpisodeResult]:
    found = []
    for row, text in enumerate(data.queries):
        query = Query(
            text, query_id=data.query_ids[row], task_name=data.task_names[row] or None, lam=lam
        )
        found.append(await run_episode(router, query, _Recorded(data, row), _LIMITS))
    return found


class _Recorded:
    """A call function that answers the calls about one query from the data."""

    def __init__(self, data: RoutingData, row: int) -> None:
        self._data = data
        self._row = row
        self._asked: Counter[int] = Counter()  # verdicts returned so far, by column

    async def __call__(self, call: Call) -> CallResult:
        column = self._data.names.index(call.model) if call.model in self._data.names else None
        if column is None:
            raise EngineRequestError(f"the data has no LLM {call.model}")
        if call.purpose == VERIFY:
            return self._verdict(call, column)
        if call.purpose != ANSWER or call.prompt != self._data.queries[self._row]:
            raise SchemaError(
                f"the data has no answers to calls of purpose {call.purpose!r} other than the "
                "queries themselves; this router can only be evaluated with live calls"
            )
        if np.isnan(self._data.quality[self._row, column]):
            raise EngineRequestError(f"the data has no answer of {call.model}")
        dollars = float(self._data.cost_usd[self._row, column])
        return CallResult(
            call,
            f"(the recorded answer of {call.model})",
            input_tokens=self._count(self._data.input_tokens, column),
            output_tokens=self._count(self._data.output_tokens, column),
            cost_usd=None if np.isnan(dollars) else dollars,
        )

    def _count(self, tokens: NDArray[np.float64], column: int) -> int:
        return int(np.nan_to_num(tokens[self._row, column]))

    def _verdict(self, call: Call, column: int) -> CallResult:
        if self._data.verdicts is None:
            raise SchemaError(
                "the data has no verdicts, which this router needs; record them with "
                "`waypost data verdicts`"
            )
        given = self._data.verdicts[self._row, column]
        sample = self._asked[column]
        self._asked[column] += 1
        if sample >= len(given) or np.isnan(given[sample]):
            raise EngineRequestError(f"the data has no verdict {sample} of {call.model}")
        dollars = float(self._data.verdict_cost_usd[self._row, column])
        text = "Yes" if given[sample] == 1 else "No"
        return CallResult(call, text, cost_usd=None if np.isnan(dollars) else dollars)
