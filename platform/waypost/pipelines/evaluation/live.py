"""Run the episodes of a step router over recorded calls, and make the calls that are missing.

The episodes are run again and again over what is recorded, since `step` is pure. A call without a
record ends its episode for this time. The missing calls of all episodes are then made together,
and the episodes go one step further.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from waypost.contracts.errors import SchemaError, WaypostError
from waypost.contracts.pricing import dollars
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.step_router import StepRouter
from waypost.contracts.steps import Call, CallResult
from waypost.contracts.verdicts import VERIFY
from waypost.episode import EpisodeResult, run_episode
from waypost.metrics.comparison import Outcomes, Sweep
from waypost.pipelines.evaluation import replay
from waypost.pipelines.evaluation.kept_calls import KeptCalls, is_left
from waypost.pipelines.evaluation.lambda_curve import decides_alone, few
from waypost.pipelines.evaluation.questions import Questions

AT_ZERO = (0.0,)
"""Cost weights of a router whose calls the data lacks, unless some are given."""


@dataclass(frozen=True)
class LiveSources:
    """Where the calls of episodes are looked up besides the scores of the data.

    Attributes:
        questions: Recorded answers and truths of the questions.
        kept: Calls that were made live.
    """

    questions: Questions
    kept: KeptCalls


@dataclass(frozen=True)
class LiveCalls:
    """The calls of one router that were made live, by this evaluation or an earlier one.

    Attributes:
        calls: Different calls.
        cost_usd: Dollars of their answers.
        failed: Calls without an answer, apart from those left out.
        left: Calls that were not made because of the budget.
        unanswered: Questions without an answer at the first cost weight.
        not_scored: Answers that could not be scored at the first cost weight.
    """

    calls: int = 0
    cost_usd: float = 0.0
    failed: int = 0
    left: int = 0
    unanswered: int = 0
    not_scored: int = 0


def sweep_episodes(
    router: StepRouter,
    data: RoutingData,
    lambdas: Sequence[float],
    sources: LiveSources,
    *,
    given: bool,
) -> tuple[Sweep, LiveCalls | None]:
    """Run the episodes of every query, from the data where it holds all their calls.

    Args:
        router: A fitted router.
        data: Recorded outcomes, with the costs to count in ``cost_usd``.
        lambdas: Cost weights, ascending.
        sources: Where further calls are.
        given: Whether the weights were asked for. Else a router whose calls the data lacks is
            run at `AT_ZERO` only, since each weight costs calls.

    Returns:
        The outcomes, and the calls that were made live; None where the data holds all calls.

    Raises:
        SchemaError: A call is not recorded and there is no pool, or the pool lacks the LLM.
    """
    some = few(lambdas)
    runs = _Runs(router, data, sources, live=False)
    if all(runs.complete(lam) for lam in some):
        return Sweep(some, tuple(runs.outcomes(lam) for lam in some)), None
    live = _Runs(router, data, sources, live=True)
    wanted = tuple(lambdas) if given else AT_ZERO
    if sources.kept.pool is not None or not sources.kept.empty:
        if live.make(wanted):
            swept = Sweep(wanted, tuple(live.outcomes(lam) for lam in wanted), spans=given)
            return swept, live.made(wanted[0])
    else:
        live.complete(wanted[0])
    if not decides_alone(router):
        # What data lacks of answers and verdicts is a failed call, as long as it has some of them.
        try:
            return Sweep(some, tuple(replay.outcomes(router, data, lam) for lam in some)), None
        except SchemaError as error:
            raise SchemaError(f"{error}; {live.missing()}") from None
    raise SchemaError(live.missing())


class _NotRecordedError(Exception):
    """Ends an episode whose next call has no record."""


class _Runs:
    """Episodes of one router at each of its cost weights."""

    def __init__(
        self, router: StepRouter, data: RoutingData, sources: LiveSources, *, live: bool
    ) -> None:
        self._router = router
        self._data = data
        self._sources = sources
        self._live = live
        self._done: dict[tuple[float, int], tuple[EpisodeResult, _LiveCaller]] = {}
        self._lacking: dict[str, dict[bytes, Mapping[str, Any]]] = {}
        self._unknown: list[Call] = []
        self._stuck: dict[str, int] = {}
        self._not_scored: set[int] = set()

    def complete(self, lam: float) -> bool:
        """Run the unfinished episodes once; return whether all of them are finished."""
        return asyncio.run(self._run(lam))

    def make(self, lambdas: Sequence[float]) -> bool:
        """Run all episodes to their ends; return whether they have got there."""
        while True:
            self._lacking, self._unknown, self._stuck = {}, [], {}
            finished = [self.complete(lam) for lam in lambdas]
            if all(finished):
                return True
            pool = self._sources.kept.pool
            if pool is None:
                return False
            if self._unknown:
                absent: dict[str, dict[bytes, Mapping[str, Any]]] = {
                    call.model: {} for call in self._unknown
                }
                self._lacking |= absent
            self._sources.kept.ask(self._lacking)

    async def _run(self, lam: float) -> bool:
        finished = True
        for row in range(len(self._data)):
            if (lam, row) in self._done:
                continue
            caller = _LiveCaller(self._data, row, self._sources, live=self._live)
            query = replay.query_of(self._data, row, lam)
            try:
                result = await run_episode(self._router, query, caller, replay.LIMITS)
            except _NotRecordedError:
                finished = False
                self._note(caller)
            else:
                self._done[lam, row] = (result, caller)
        return finished

    def _note(self, caller: _LiveCaller) -> None:
        for call, request in caller.lacking:
            self._stuck[call.purpose] = self._stuck.get(call.purpose, 0) + 1
            if request is None:
                self._unknown.append(call)
            else:
                self._lacking.setdefault(call.model, {})[request["key"]] = request

    def missing(self) -> str:
        """Return in words which calls are not recorded, and what to do."""
        kinds = ", ".join(f"{count} of purpose {name!r}" for name, count in self._stuck.items())
        return (
            f"calls that are not recorded: {kinds or 'some'}, on {len(self._data)} questions; "
            "--pool FILE makes them live"
        )

    def outcomes(self, lam: float) -> Outcomes:
        """Return the outcomes of finished episodes."""
        done = [self._done[lam, row] for row in range(len(self._data))]
        pairs = [self._score(row, *one) for row, one in enumerate(done)]
        return replay.outcomes_of(
            self._data,
            [result for result, _ in done],
            np.array([quality for quality, _ in pairs], np.float64),
            replay.columns(self._data, [model for _, model in pairs]),
            [replay.seconds_of(result, caller.seconds) for result, caller in done],
        )

    def _score(
        self, row: int, result: EpisodeResult, caller: _LiveCaller
    ) -> tuple[float, str | None]:
        """Return the score of an answer, and the LLM if the answer is its own to the query."""
        if result.text is None:
            return np.nan, None
        own = next((one for one in reversed(result.calls) if _gave(one, result)), None)
        model = own.call.model if own is not None and caller.asks_query(own.call) else None
        recorded = np.nan
        if model in self._data.names:
            recorded = float(self._data.quality[row, self._data.names.index(model)])
        if own is not None and model is not None and id(own) not in caller.records:
            return recorded, model
        try:
            found = self._sources.questions.score(self._data.query_ids[row], result.text)
        except WaypostError:
            found = None
        if found is None and np.isnan(recorded):
            self._not_scored.add(row)
        return recorded if found is None else found, model

    def made(self, lam: float) -> LiveCalls:
        """Count the live calls of all episodes."""
        records: dict[bytes, tuple[Mapping[str, Any], float]] = {}
        for _, caller in self._done.values():
            for key, record, usd in caller.records.values():
                records[key] = (record, usd)
        errors = [record for record, _ in records.values() if record["error"] is not None]
        left = sum(map(is_left, errors))
        first = [self._done[lam, row][0] for row in range(len(self._data))]
        return LiveCalls(
            calls=len(records) - left,
            cost_usd=sum(usd for _, usd in records.values()),
            failed=len(errors) - left,
            left=left,
            unanswered=sum(result.text is None for result in first),
            not_scored=len(self._not_scored),
        )


def _gave(one: CallResult, result: EpisodeResult) -> bool:
    return one.ok and one.text == result.text and one.call.model == result.model


class _LiveCaller(replay.Recorded):
    """A call function that answers from the data, then from the kept calls.

    Attributes:
        lacking: Calls without a record and their requests; None where the LLM is not known.
        records: Key, record and dollars of results of kept calls, by `id`.
    """

    def __init__(self, data: RoutingData, row: int, sources: LiveSources, *, live: bool) -> None:
        super().__init__(data, row)
        self.lacking: list[tuple[Call, Mapping[str, Any] | None]] = []
        self.records: dict[int, tuple[bytes, Mapping[str, Any], float]] = {}
        self._sources = sources
        self._live = live
        self._repeats: Counter[Call] = Counter()

    async def __call__(self, call: Call) -> CallResult:
        text = None
        if self.asks_query(call):
            text = self._sources.questions.response(self._data.query_ids[self._row], call.model)
        found = self.find(call, text)
        # A router may read an answer, whose text the data does not always hold.
        readable = text is not None or call.final or self.has_verdict(call.model)
        if found is not None and (readable or call.purpose == VERIFY):
            return found
        self.seconds.pop(id(found), None)
        repeat = self._repeats[call]
        self._repeats[call] += 1
        request = self._request(call, repeat)
        record = None if request is None else self._sources.kept.get(call.model, request["key"])
        if request is None or record is None:
            self.lacking.append((call, request))
            raise _NotRecordedError
        return self._result(call, request["key"], record)

    def _request(self, call: Call, repeat: int) -> Mapping[str, Any] | None:
        if not self._live:
            return None
        return self._sources.kept.request(
            call,
            answers=call.final or self.asks_query(call),
            max_tokens=self._sources.questions.max_tokens(self._data.query_ids[self._row]),
            repeat=repeat,
        )

    def _result(self, call: Call, key: bytes, record: Mapping[str, Any]) -> CallResult:
        usd: float | None = 0.0  # a failed call is not paid for, as in the budget of a data run
        result = CallResult(call, None, record["error"], cost_usd=usd)
        if record["error"] is None:
            tokens = record["input_tokens"], record["output_tokens"]
            usd = self._sources.kept.cost_usd(call.model, record)
            usd = self._listed(call.model, tokens) if usd is None else usd
            result = replace(
                result,
                text=record["response"],
                input_tokens=tokens[0],
                output_tokens=tokens[1],
                cost_usd=usd,
            )
            # outcomes hold float32, the log what was measured
            self.seconds[id(result)] = round(float(record["latency_s"]), 4)
        self.records[id(result)] = (key, record, np.nan if usd is None else usd)
        return result

    def _listed(self, model: str, tokens: tuple[int, int]) -> float | None:
        """Return the dollars of a call at the data's list prices; None where unknown."""
        if model not in self._data.names:
            return None
        prices = self._data.prices[self._data.names.index(model)]
        spent = dollars(float(tokens[0]), float(tokens[1]), (float(prices[0]), float(prices[1])))
        return None if np.isnan(spent) else spent
