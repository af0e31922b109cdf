"""What the gateway counts; `waypost.telemetry.table.METRICS` says what each metric is."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path

from waypost.contracts.errors import MissingExtraError
from waypost.contracts.generation import Usage
from waypost.contracts.records import Decision
from waypost.contracts.steps import Call
from waypost.serve.backends.hedging import Hedged
from waypost.telemetry.counters import Counters, Key
from waypost.telemetry.machine import Machine
from waypost.telemetry.table import LABELS, METRICS

logger = logging.getLogger(__name__)

PAGE = "text/plain; version=0.0.4; charset=utf-8"
"""Content type of the page."""

REFRESH_S = 1.0
"""Age of the gauges that other gateways of the machine read."""

BY_MODEL = frozenset({"model", "direction"})
"""Metrics with no other labels begin at 0 for every LLM: else their first value is no growth."""


class Metrics:
    """The metrics of one gateway replica, in one page with those of its machine.

    Args:
        folder: Folder of the machine's gateways; None keeps the numbers in memory, alone.

    Raises:
        MissingExtraError: prometheus-client is not installed.
    """

    def __init__(self, folder: Path | None = None) -> None:
        try:
            from waypost.telemetry.page import render
        except ImportError:
            raise MissingExtraError("prometheus_client", "gateway") from None
        self._render = render
        self._measure: Callable[[Counters], None] = lambda _: None
        self._machine: Machine | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._counters = Counters()
        if folder is not None:
            self._share(folder)
        for metric in METRICS:
            if not metric.labels and metric.kind != "gauge":
                self._begin(metric.name, ())

    def _share(self, folder: Path) -> None:
        name = f"{os.getpid()}-{time.time_ns():x}"
        try:
            self._counters = Counters(folder, name)
            self._machine = Machine(folder)
            self._machine.fold()
        except OSError as error:
            logger.error("metrics of this replica stand alone: %s", error)
            self._counters, self._machine = Counters(), None

    def _begin(self, name: str, labels: tuple[str, ...]) -> None:
        self._counters.add(name, labels, 0.0)

    def begin(self, models: Iterable[str]) -> None:
        """Begin the counts of LLMs at 0."""
        for metric in METRICS:
            if metric.kind == "counter" and metric.labels and {*metric.labels} <= BY_MODEL:
                sets = [LABELS[label].values or models for label in metric.labels]
                for labels in product(*sets):
                    self._begin(metric.name, labels)

    def watch(self, measure: Callable[[Counters], None]) -> None:
        """Set what sets the gauges, whenever they are read."""
        self._measure = measure

    async def start(self) -> None:
        """Keep the gauges fresh for other gateways of the machine."""
        if self._machine is not None:
            self._ticking = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            self._measure(self._counters)
            await asyncio.sleep(REFRESH_S)

    def close(self) -> None:
        """Stop; what was counted stays."""
        if self._ticking is not None:
            self._ticking.cancel()
        self._counters.close()

    # -- counts -------------------------------------------------------------------------------

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._counters.add("waypost_requests_total", (endpoint, str(status)))
        self._counters.observe("waypost_request_duration_seconds", (endpoint,), seconds)

    def decision(self, router: str, decision: Decision, seconds: float) -> None:
        """Count a decision."""
        counters = self._counters
        counters.add("waypost_decisions_total", (router, decision.model))
        counters.observe("waypost_decision_seconds", (), seconds)
        if decision.out_of_distribution:
            counters.add("waypost_out_of_distribution_decisions_total", (router,))
        if decision.session is not None:
            counters.add("waypost_session_turns_total", (decision.session,))

    def first_token(self, model: str, seconds: float) -> None:
        """Count the first token of a stream."""
        self._counters.observe("waypost_time_to_first_token_seconds", (model,), seconds)

    def stream(self, model: str, seconds: float, tokens: int) -> None:
        """Count the pace of a stream: its tokens, and the seconds from the first to the last."""
        if tokens > 1:
            pace = seconds / (tokens - 1)
            self._counters.observe("waypost_time_per_output_token_seconds", (model,), pace)

    def usage(self, router: str, model: str, usage: Usage, cost_usd: float | None) -> None:
        """Count tokens and dollars of a call; None where the LLM's prices are unknown."""
        counters = self._counters
        counters.add("waypost_tokens_total", (model, "input"), usage.input_tokens)
        counters.add("waypost_tokens_total", (model, "output"), usage.output_tokens)
        if cost_usd is None:
            counters.add("waypost_unpriced_answers_total", (model,))
        else:
            counters.add("waypost_cost_usd_total", (router, model), cost_usd)

    def answer(self, router: str, model: str, dearest_usd: float | None) -> None:
        """Count an answer, and what it would have cost at the dearest LLM."""
        self._counters.add("waypost_answers_total", (model,))
        if dearest_usd is not None:
            self._counters.add("waypost_dearest_cost_usd_total", (router,), dearest_usd)

    def episode_call(self, router: str, call: Call, usage: Usage, cost_usd: float | None) -> None:
        """Count a call of an episode, its tokens and dollars."""
        self._counters.add("waypost_episode_calls_total", (call.model, call.purpose))
        self.usage(router, call.model, usage, cost_usd)

    def episode(self, router: str, ended_by: str) -> None:
        """Count an episode that gave an answer."""
        self._counters.add("waypost_episodes_total", (router, ended_by))

    def failover(self, model: str, reason: str) -> None:
        """Count an LLM that did not answer."""
        self._counters.add("waypost_failovers_total", (model, reason))

    def hedge(self, hedged: Hedged) -> None:
        """Count a hedge: the LLM that was slow, and whether ``first``, ``second`` or none won."""
        model, _ = hedged.models
        winner = {model: "first", None: "none"}.get(hedged.winner, "second")
        self._counters.add("waypost_hedges_total", (model, winner))

    def broken_stream(self, model: str) -> None:
        """Count a stream that ended with an error after its first token."""
        self._counters.add("waypost_broken_streams_total", (model,))

    def rating(self, model: str, rating: float, predicted: float | None) -> None:
        """Count a rating of an answer, and the score that was predicted for it, if it was."""
        if predicted is not None:
            self._counters.observe("waypost_rating_ratio", (model,), rating)
            self._counters.observe("waypost_rated_prediction_ratio", (model,), predicted)

    def shadow(self, router: str, outcome: str) -> None:
        """Count a shadow decision: ``decided``, ``failed``, or ``dropped`` undecided."""
        self._counters.add("waypost_shadow_decisions_total", (router, outcome))

    def config(self, taken: bool) -> None:
        """Count a ``user_config``."""
        self._counters.add("waypost_user_configs_total", ("taken" if taken else "refused",))

    # -- the page -----------------------------------------------------------------------------

    async def text(self) -> bytes:
        """Return the page for Prometheus: the numbers of all gateways of the machine."""
        self._measure(self._counters)
        # a page of many LLMs takes milliseconds
        return await asyncio.to_thread(lambda: self._render(self._numbers()))

    def _numbers(self) -> dict[Key, list[float]]:
        if self._machine is not None:
            try:
                return self._machine.numbers()
            except OSError as error:
                logger.error("metrics of this replica stand alone: %s", error)
        return self._counters.numbers()
