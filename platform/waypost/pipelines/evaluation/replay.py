"""Replay the episodes of a step router on measured data."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import EngineRequestError, SchemaError
from waypost.contracts.records import Query
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.step_router import ANSWER, Call, CallResult, StepRouter
from waypost.contracts.verdicts import VERIFY
from waypost.episode import EpisodeLimits, EpisodeResult, run_episode
from waypost.metrics.comparison import Outcomes, look_up

LIMITS = EpisodeLimits(max_steps=64, wall_s=3600.0)
"""Wide limits: caps would only hide the router's behaviour."""

NO_VERDICTS = "the data has no verdicts, which this router needs; record them with "
"""Beginning of the message of data without verdicts."""


def outcomes(router: StepRouter, data: RoutingData, lam: float) -> Outcomes:
    """Run an episode for each query; look up the score of its answer and the cost of its calls.

    Answers have their recorded texts where the data was read with them. An answer that the data
    lacks is a failed call. Verdicts on an answer are returned in their recorded order; further ones
    fail.

    Args:
        router: A fitted router.
        data: Recorded outcomes, with verdicts if the router needs them.
        lam: Cost weight of every query.

    Returns:
        Quality is NaN if no LLM gave the answer or it was not measured; dollars are NaN if the
        cost of a call is not recorded, seconds if its latency is not.

    Raises:
        SchemaError: The router needs verdicts that the data lacks, or makes calls other than for
            answers and verdicts, which data cannot contain.
    """
    callers = [_Caller(data, row) for row in range(len(data))]
    done = asyncio.run(_episodes(router, data, lam, callers))
    model = columns(data, [result.model for result in done])
    quality = look_up(data, model).quality
    seconds = [seconds_of(one, caller.seconds) for one, caller in zip(done, callers, strict=True)]
    return outcomes_of(data, done, quality, model, seconds)


def outcomes_of(
    data: RoutingData,
    done: Sequence[EpisodeResult],
    quality: NDArray[np.float64],
    model: NDArray[np.intp],
    seconds: Sequence[float],
) -> Outcomes:
    """Put together the outcomes of one episode for each query of the data."""
    return Outcomes(
        quality=quality,
        cost_usd=np.array([np.nan if r.unpriced_calls else r.cost_usd for r in done], np.float64),
        model=model,
        seconds=np.array(seconds, np.float64),
        calls=np.array([len(result.calls) for result in done], np.intp),
        first=columns(data, [_first(result) for result in done]),
    )


def columns(data: RoutingData, models: Sequence[str | None]) -> NDArray[np.intp]:
    """Return the columns of LLMs in the data, -1 for one that it lacks and for None."""
    place: dict[str | None, int] = {name: j for j, name in enumerate(data.names)}
    return np.array([place.get(model, -1) for model in models], np.intp)


def seconds_of(result: EpisodeResult, seconds: Mapping[int, float]) -> float:
    """Return the seconds of an episode: the sum over its steps of the slowest call of each.

    Args:
        result: The episode.
        seconds: Seconds of its results by `id`; one that lacks makes the sum NaN.
    """
    slowest = [np.max([seconds.get(id(one), np.nan) for one in step]) for step in result.steps]
    return float(np.sum(slowest))


def query_of(data: RoutingData, row: int, lam: float) -> Query:
    """Return the query of a row at a cost weight."""
    return Query(
        data.queries[row],
        query_id=data.query_ids[row],
        task_name=data.task_names[row] or None,
        lam=lam,
    )


def _first(result: EpisodeResult) -> str | None:
    return next((one.call.model for one in result.calls if one.call.purpose == ANSWER), None)


async def _episodes(
    router: StepRouter, data: RoutingData, lam: float, callers: Sequence[_Caller]
) -> list[EpisodeResult]:
    return [
        await run_episode(router, query_of(data, row, lam), caller, LIMITS)
        for row, caller in enumerate(callers)
    ]


class Recorded:
    """The calls about one query that the data holds.

    Args:
        data: Recorded outcomes.
        row: Row of the query.

    Attributes:
        seconds: Recorded latency of the results that were returned, by `id`; NaN where unknown.
    """

    def __init__(self, data: RoutingData, row: int) -> None:
        self.seconds: dict[int, float] = {}
        self._data = data
        self._row = row
        self._asked: Counter[int] = Counter()  # verdicts asked for so far, by column

    def asks_query(self, call: Call) -> bool:
        """Return whether a call puts the query itself to an LLM."""
        return call.purpose == ANSWER and call.prompt == self._data.queries[self._row]

    def find(self, call: Call, text: str | None = None) -> CallResult | None:
        """Return the recorded result of a call; None where the data holds none.

        Args:
            call: The call. A verdict is the next one of that LLM.
            text: The recorded answer, where it is known.
        """
        names = self._data.names
        column = names.index(call.model) if call.model in names else None
        if call.purpose == VERIFY and column is not None:
            return self._verdict(call, column)
        if column is None or not self.asks_query(call):
            return None
        if np.isnan(self._data.quality[self._row, column]):
            return None
        result = CallResult(
            call,
            self._text(call.model, column) if text is None else text,
            input_tokens=self._count(self._data.input_tokens, column),
            output_tokens=self._count(self._data.output_tokens, column),
            cost_usd=_known(self._data.cost_usd[self._row, column]),
        )
        self.seconds[id(result)] = float(self._data.latency_s[self._row, column])
        return result

    def has_verdict(self, model: str) -> bool:
        """Return whether the data holds a verdict of an LLM on its answer to the query."""
        if self._data.verdicts is None or model not in self._data.names:
            return False
        given = self._data.verdicts[self._row, self._data.names.index(model)]
        return not bool(np.isnan(given).all())

    def _text(self, model: str, column: int) -> str:
        """Return the recorded answer; "" if the data holds the texts of others only."""
        if self._data.responses is None:
            return f"(the recorded answer of {model})"
        return self._data.responses.text(self._row, column) or ""

    def _count(self, tokens: NDArray[np.float64], column: int) -> int:
        return int(np.nan_to_num(tokens[self._row, column]))

    def _verdict(self, call: Call, column: int) -> CallResult | None:
        if self._data.verdicts is None:
            return None
        given = self._data.verdicts[self._row, column]
        sample = self._asked[column]
        self._asked[column] += 1
        if sample >= len(given) or np.isnan(given[sample]):
            return None
        dollars = _known(self._data.verdict_cost_usd[self._row, column])
        return CallResult(call, "Yes" if given[sample] == 1 else "No", cost_usd=dollars)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


class _Caller(Recorded):
    """A call function that answers from the data; what the data lacks fails."""

    async def __call__(self, call: Call) -> CallResult:
        found = self.find(call)
        if found is not None:
            return found
        if call.model not in self._data.names:
            raise EngineRequestError(f"the data has no LLM {call.model}")
        if call.purpose == VERIFY:
            if self._data.verdicts is None:
                raise SchemaError(f"{NO_VERDICTS}`waypost data verdicts`")
            raise EngineRequestError(f"the data has no further verdict of {call.model}")
        if not self.asks_query(call):
            raise SchemaError(
                f"the data has no answers to calls of purpose {call.purpose!r} other than the "
                "queries themselves; this router can only be evaluated with live calls"
            )
        raise EngineRequestError(f"the data has no answer of {call.model}")
