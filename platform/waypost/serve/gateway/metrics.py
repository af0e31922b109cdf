"""The gateway's own metrics, in Prometheus' text format, for each gateway replica by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from waypost.contracts.errors import MissingExtraError
from waypost.contracts.generation import Usage
from waypost.contracts.steps import PURPOSES, Call
from waypost.serve.backends.hedging import Hedged

_DECISION_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
_TOKEN_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The metrics. Labels are endpoints, models and routers of the config, never user text.

    Raises:
        MissingExtraError: prometheus-client is not installed.
    """

    def __init__(self) -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
        except ImportError:
            raise MissingExtraError("prometheus_client", "gateway") from None
        self._children: dict[tuple[int, tuple[str, ...]], Any] = {}
        self._registry = registry = CollectorRegistry(auto_describe=True)

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"waypost_{name}", what, labels, registry=registry)

        self._requests = counter("requests", "Requests answered.", "endpoint", "status")
        self._decisions = counter("decisions", "Decisions by the model chosen.", "router", "model")
        self._tokens = counter("tokens", "Tokens, as engines count them.", "model", "direction")
        self._cost = counter("cost_usd", "Dollars, at the pool's prices.", "model")
        self._failovers = counter("failovers", "LLMs that did not answer.", "model", "reason")
        self._hedges = counter("hedges", "Slow whole answers asked twice.", "model", "winner")
        self._episodes = counter("episodes", "Answers in steps.", "router", "ended_by")
        self._episode_calls = counter("episode_calls", "LLM calls of episodes.", "model", "purpose")
        self._broken = counter("broken_streams", "Streams that ended with an error.", "model")
        self._shadows = counter("shadow_decisions", "Shadow decisions.", "router", "outcome")
        self._configs = counter("user_configs", "Configs taken, or refused.", "outcome")
        self._decision_s = Histogram(
            "waypost_decision_seconds",
            "Time of a decision, embedding included.",
            buckets=_DECISION_BUCKETS,
            registry=registry,
        )
        self._first_token_s = Histogram(
            "waypost_time_to_first_token_seconds",
            "From the request's arrival to the first token of a stream.",
            ["model"],
            buckets=_TOKEN_BUCKETS,
            registry=registry,
        )
        self._in_flight = Gauge("waypost_in_flight", "Requests in flight.", registry=registry)
        self._queued = Gauge("waypost_queued", "Requests that wait.", registry=registry)
        self._resting = Gauge(
            "waypost_resting_models", "LLMs that rest after failures.", registry=registry
        )
        self._lost = Gauge(
            "waypost_lost_records",
            "Records of requests that feedback_dir or decision_log could not take.",
            registry=registry,
        )
        # a number that grows without more requests in flight is a leak
        tasks = Gauge("waypost_tasks", "Tasks of the event loop.", registry=registry)
        tasks.set_function(_count_tasks)

    def watch(
        self,
        in_flight: Callable[[], float],
        queued: Callable[[], float],
        resting: Callable[[], float],
        lost: Callable[[], float],
    ) -> None:
        """Set the sources of the gauges."""
        self._in_flight.set_function(in_flight)
        self._queued.set_function(queued)
        self._resting.set_function(resting)
        self._lost.set_function(lost)

    def _of(self, metric: Any, *labels: str) -> Any:
        # `labels` takes a lock and checks its arguments, which costs as much as the count itself
        key = (id(metric), labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    def request(self, endpoint: str, status: int) -> None:
        """Count an answered request."""
        self._of(self._requests, endpoint, str(status)).inc()

    def decision(self, router: str, model: str, seconds: float) -> None:
        """Count a decision."""
        self._of(self._decisions, router, model).inc()
        self._decision_s.observe(seconds)

    def first_token(self, model: str, seconds: float) -> None:
        """Count the first token of a stream."""
        self._of(self._first_token_s, model).observe(seconds)

    def usage(self, model: str, usage: Usage, cost_usd: float | None) -> None:
        """Count tokens and dollars of an answer."""
        self._of(self._tokens, model, "input").inc(usage.input_tokens)
        self._of(self._tokens, model, "output").inc(usage.output_tokens)
        if cost_usd:
            self._of(self._cost, model).inc(cost_usd)

    def episode_call(self, call: Call, usage: Usage, cost_usd: float | None) -> None:
        """Count a call of an episode, its tokens and dollars."""
        # a plug-in names purposes freely; a label needs a fixed set of values
        purpose = call.purpose if call.purpose in PURPOSES else "other"
        self._of(self._episode_calls, call.model, purpose).inc()
        self.usage(call.model, usage, cost_usd)

    def episode(self, router: str, ended_by: str) -> None:
        """Count an episode that gave an answer."""
        self._of(self._episodes, router, ended_by).inc()

    def failover(self, model: str, reason: str) -> None:
        """Count an LLM that did not answer."""
        self._of(self._failovers, model, reason).inc()

    def hedge(self, hedged: Hedged) -> None:
        """Count a hedge: the LLM that was slow, and whether ``first``, ``second`` or none won."""
        model, _ = hedged.models
        winner = {model: "first", None: "none"}.get(hedged.winner, "second")
        self._of(self._hedges, model, winner).inc()

    def broken_stream(self, model: str) -> None:
        """Count a stream that ended with an error after its first token."""
        self._of(self._broken, model).inc()

    def shadow(self, router: str, outcome: str) -> None:
        """Count a shadow decision: ``decided``, ``failed``, or ``dropped`` undecided."""
        self._of(self._shadows, router, outcome).inc()

    def config(self, taken: bool) -> None:
        """Count a ``user_config``."""
        self._of(self._configs, "taken" if taken else "refused").inc()

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)


def _count_tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return 0  # read from a thread without an event loop
