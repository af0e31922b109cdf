"""The table of the gateway's Prometheus metrics.

Names follow Prometheus' conventions (https://prometheus.io/docs/practices/naming): prefix, base
unit, ``_total`` on counters. Every label has values of the Serve file or of a closed set here,
never text of users, so the number of series is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from waypost.contracts.steps import PURPOSES

Kind = Literal["counter", "gauge", "histogram"]
Merge = Literal["sum", "max"]

OTHER = "other"
"""Value of a label with a closed set for whatever is not in the set."""


@dataclass(frozen=True)
class Label:
    """A label.

    Attributes:
        what: What its values are.
        values: All values; None where they are those of the Serve file or of HTTP. Any other value
            is counted as `OTHER`.
    """

    what: str
    values: tuple[str, ...] | None = None


LABELS: Mapping[str, Label] = {
    "endpoint": Label("path of the API; `other` is none"),
    "status": Label("HTTP status; 499 where the client left before its answer was complete"),
    "model": Label("LLM of the pool, or the router where it wrote the answer itself"),
    "router": Label("router of the file; `pinned` where the client named the LLM"),
    "direction": Label("tokens of the prompt, or generated", ("input", "output")),
    "reason": Label(
        "why the LLM did not answer",
        (
            "empty", "filtered", "deadline", "timeout", "connection", "overloaded", "loading",
            "server", "context", "auth", "request",
        ),
    ),
    "winner": Label("which of the two calls answered", ("first", "second", "none")),
    "ended_by": Label(
        "the answer, or the cap that was reached", ("answer", "steps", "tokens", "money", "time")
    ),
    "purpose": Label("what the router asked for; another of a plug-in is `other`", PURPOSES),
    "outcome": Label("what became of it", ("decided", "failed", "dropped", "taken", "refused")),
    "state": Label(
        "of an LLM: whether it takes requests; of a session: which LLM answers its turn",
        ("ready", "loading", "failed", "resting", "new", "kept", "moved"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        name: Its name on the page; of a counter with ``_total``.
        kind: Its type.
        what: One sentence of help.
        unit: Unit of its values, as in the name; "" is a count.
        labels: Names of `LABELS`, in the order in which values are given.
        buckets: Upper bounds of a histogram, ascending, without +Inf.
        merge: How a gauge of several gateways is joined. All else is added up.
        group: Heading in the documentation, and row of the dashboard.
    """

    name: str
    kind: Kind
    what: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    buckets: tuple[float, ...] = ()
    merge: Merge = "sum"
    group: str = ""

    @property
    def width(self) -> int:
        """Numbers of one series: of a histogram its buckets, that above them, and the sum."""
        return len(self.buckets) + 2 if self.kind == "histogram" else 1


REQUEST_S = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84,
)  # fmt: skip
"""Bounds that OpenTelemetry's conventions for generative AI give (gen_ai.client.operation.duration,
https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics), and twice the last."""

FIRST_TOKEN_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    30.0, 60.0,
)  # fmt: skip
"""Those of gen_ai.server.time_to_first_token, and two above for CPUs."""

OUTPUT_TOKEN_S = (
    0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
)  # fmt: skip
"""Those of gen_ai.server.time_per_output_token, and two below for fast engines."""

DECISION_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
QUALITY = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)

_REQUESTS, _ROUTER, _MONEY, _LLMS, _GATEWAY = "Requests", "Router", "Money", "LLMs", "Gateway"

METRICS: tuple[Metric, ...] = (
    Metric(
        "waypost_requests_total",
        "counter",
        "Requests answered.",
        ("endpoint", "status"),
        group=_REQUESTS,
    ),
    Metric(
        "waypost_request_duration_seconds",
        "histogram",
        "From the arrival of a request to the end of its answer.",
        ("endpoint",),
        "seconds",
        REQUEST_S,
        group=_REQUESTS,
    ),
    Metric(
        "waypost_time_to_first_token_seconds",
        "histogram",
        "From the arrival of a request to the first token of its stream.",
        ("model",),
        "seconds",
        FIRST_TOKEN_S,
        group=_REQUESTS,
    ),
    Metric(
        "waypost_time_per_output_token_seconds",
        "histogram",
        "Mean time between the tokens of a stream, after the first.",
        ("model",),
        "seconds",
        OUTPUT_TOKEN_S,
        group=_REQUESTS,
    ),
    Metric("waypost_requests_in_flight", "gauge", "Requests in flight.", group=_REQUESTS),
    Metric(
        "waypost_requests_queued",
        "gauge",
        "Requests that wait for a place in the gateway.",
        group=_REQUESTS,
    ),
    Metric(
        "waypost_broken_streams_total",
        "counter",
        "Streams that ended with an error event.",
        ("model",),
        group=_REQUESTS,
    ),
    Metric(
        "waypost_decisions_total",
        "counter",
        "Decisions, by the LLM that was chosen.",
        ("router", "model"),
        group=_ROUTER,
    ),
    Metric(
        "waypost_decision_seconds",
        "histogram",
        "Time of a decision, embedding included.",
        (),
        "seconds",
        DECISION_S,
        group=_ROUTER,
    ),
    Metric(
        "waypost_out_of_distribution_decisions_total",
        "counter",
        "Decisions of queries unlike the training data.",
        ("router",),
        group=_ROUTER,
    ),
    Metric(
        "waypost_rating_ratio",
        "histogram",
        "Ratings of answers, 0 to 1.",
        ("model",),
        "ratio",
        QUALITY,
        group=_ROUTER,
    ),
    Metric(
        "waypost_rated_prediction_ratio",
        "histogram",
        "Predicted scores of the answers that were rated, 0 to 1.",
        ("model",),
        "ratio",
        QUALITY,
        group=_ROUTER,
    ),
    Metric(
        "waypost_session_turns_total",
        "counter",
        "Turns of sessions, by what became of the session's LLM.",
        ("state",),
        group=_ROUTER,
    ),
    Metric(
        "waypost_episodes_total",
        "counter",
        "Answers in steps.",
        ("router", "ended_by"),
        group=_ROUTER,
    ),
    Metric(
        "waypost_episode_calls_total",
        "counter",
        "LLM calls of answers in steps.",
        ("model", "purpose"),
        group=_ROUTER,
    ),
    Metric(
        "waypost_shadow_decisions_total",
        "counter",
        "Decisions of shadow routers.",
        ("router", "outcome"),
        group=_ROUTER,
    ),
    Metric(
        "waypost_cost_usd_total",
        "counter",
        "Dollars of answers, at the pool's prices.",
        ("router", "model"),
        "usd",
        group=_MONEY,
    ),
    Metric(
        "waypost_dearest_cost_usd_total",
        "counter",
        "Dollars that the same tokens would have cost at the dearest LLM of the pool.",
        ("router",),
        "usd",
        group=_MONEY,
    ),
    Metric(
        "waypost_unpriced_answers_total",
        "counter",
        "Answers of LLMs whose prices are not known.",
        ("model",),
        group=_MONEY,
    ),
    Metric(
        "waypost_budget_usd_per_day",
        "gauge",
        "`metrics.budget_usd_per_day` of the Serve file; absent where none is set.",
        (),
        "usd",
        merge="max",
        group=_MONEY,
    ),
    Metric(
        "waypost_tokens_total",
        "counter",
        "Tokens, as engines count them.",
        ("model", "direction"),
        group=_LLMS,
    ),
    Metric("waypost_answers_total", "counter", "Answers given.", ("model",), group=_LLMS),
    Metric(
        "waypost_failovers_total",
        "counter",
        "Calls of LLMs without an answer; the next LLM of the ranking was asked.",
        ("model", "reason"),
        group=_LLMS,
    ),
    Metric(
        "waypost_hedges_total",
        "counter",
        "Slow whole answers asked twice.",
        ("model", "winner"),
        group=_LLMS,
    ),
    Metric(
        "waypost_llm_requests_in_flight",
        "gauge",
        "Requests that an LLM works on.",
        ("model",),
        group=_LLMS,
    ),
    Metric(
        "waypost_llm_requests_queued",
        "gauge",
        "Requests that wait for a free place of an LLM.",
        ("model",),
        group=_LLMS,
    ),
    Metric(
        "waypost_llm_gateways",
        "gauge",
        "Gateways for which an LLM is ready, loading, failed, or resting after failures.",
        ("model", "state"),
        group=_LLMS,
    ),
    Metric("waypost_gateways", "gauge", "Gateways that run.", group=_GATEWAY),
    Metric(
        "waypost_event_loop_tasks",
        "gauge",
        "Tasks of the event loop; growth without more requests is a leak.",
        group=_GATEWAY,
    ),
    Metric(
        "waypost_lost_records_total",
        "counter",
        "Records of requests that `feedback_dir` or `decision_log` could not take.",
        group=_GATEWAY,
    ),
    Metric(
        "waypost_user_configs_total",
        "counter",
        "Changes of `user_config`.",
        ("outcome",),
        group=_GATEWAY,
    ),
)

BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in METRICS}
