"""Models of a Serve config that bound the gateway, and of its log."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from waypost.config import StrictModel
from waypost.storage import Uri, is_uri

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


def _without_secrets(folder: str) -> str:
    if is_uri(folder) and Uri(folder).holds_secrets:
        raise ValueError(
            "holds credentials, and a cluster shows its configs; set them in the environment of "
            "its nodes"
        )
    return folder


Folder = Annotated[str, AfterValidator(_without_secrets)]
"""Path or URI of a folder; a URI without credentials."""


class Limits(StrictModel):
    """Bounds of the gateway, for each of its replicas.

    Attributes:
        max_body_bytes: A longer body is answered 413.
        max_in_flight: Most requests in flight.
        max_queued: Most queued requests; further ones are answered 429.
        queue_timeout_s: Longest wait in the queue; then the request is answered 429.
        body_timeout_s: A body that takes longer to arrive is answered 408. An arriving body does
            not count as in flight. Where more than ``max_in_flight`` (at least 1024) bodies arrive
            at a time, the one that has taken longest is ended.
        first_token_timeout_s: Longest wait for the first token of an LLM before failover. A whole
            answer that an HTTP engine asks for whole has no first token: see ``deadline``.
        between_tokens_timeout_s: Longest pause between two tokens of one answer.
        total_timeout_s: Time-out of all attempts of one request together.
        max_tokens: Most tokens of one answer; a request that asks for more is capped to it.
        max_steps: Most delegations of one request to a step router.
        max_episode_tokens: Cap on the tokens of all calls of an episode; null is no cap.
        max_choices: Most answers of one request: ``n`` times the number of prompts.
    """

    max_body_bytes: Positive = 4 * 1024 * 1024
    max_in_flight: Positive = 256
    max_queued: int = Field(default=256, ge=0)
    queue_timeout_s: Seconds = 30.0
    body_timeout_s: Seconds = 30.0
    first_token_timeout_s: Seconds = 60.0
    between_tokens_timeout_s: Seconds = 30.0
    total_timeout_s: Seconds = 600.0
    max_tokens: Positive = 8192
    max_steps: Positive = 8
    max_episode_tokens: Positive | None = None
    max_choices: Annotated[int, Field(ge=1, le=128)] = 8


Share = Annotated[float, Field(gt=0, lt=1)]


class DeadlineArgs(StrictModel):
    """When an LLM that was asked for a whole answer is given up and the next of the ranking asked.

    Each gateway replica learns, for each LLM, the seconds of its answers by their tokens. The last
    LLM that is left has all the time of the request.

    Attributes:
        quantile: Share of an LLM's answers that are in time, for the tokens asked for.
        factor: The deadline is so many times the time of that quantile.
        least_s: Shortest deadline.
        most_s: Longest deadline; also that of an LLM of which too few answers are known.
    """

    quantile: Share = 0.99
    factor: float = Field(default=2.0, ge=1)
    least_s: Seconds = 10.0
    most_s: Seconds = 300.0

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> DeadlineArgs:
        if self.least_s > self.most_s:
            raise ValueError("least_s is above most_s")
        return self


class HedgeArgs(StrictModel):
    """When a whole answer that takes long is asked of the next LLM as well.

    The first good answer is sent and the other call ended, which its provider may bill all the
    same. Requests in steps, and those that name their LLM, are not hedged.

    Attributes:
        quantile: A second LLM is asked once this share of the first LLM's answers would be there.
        most_share: Most hedged requests, as a share of all whole answers.
    """

    quantile: Share = 0.95
    most_share: Share = 0.05


def switch(model: type[StrictModel]) -> BeforeValidator:
    """Return what reads ``on`` as the model's defaults, and ``off`` as None."""

    def read(value: Any) -> Any:
        # YAML 1.1 reads `off` as false
        if isinstance(value, bool) or value in ("off", "on"):
            return model() if value is True or value == "on" else None
        return value

    return BeforeValidator(read)


Hedge = Annotated[HedgeArgs | None, switch(HedgeArgs)]
"""``off``, ``on``, or the settings of `HedgeArgs`."""


def _is_an_origin(origin: str) -> str:
    parts = urlsplit(origin)
    if origin != "*" and (not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}"):
        raise ValueError("expected an origin, such as https://app.example.com, or *")
    return origin


class CorsArgs(StrictModel):
    """Which web pages may read the gateway's answers.

    Attributes:
        allow_origins: Origins of pages, such as ``https://app.example.com``; ``*`` allows all.
    """

    allow_origins: tuple[Annotated[str, AfterValidator(_is_an_origin)], ...] = ()


class MetricsArgs(StrictModel):
    """What the gateway tells Prometheus.

    Attributes:
        access: Who reads ``/metrics`` where ``api_keys`` is on: ``key`` needs a key of the service
            ``waypost-metrics``, or one of a client; ``open`` needs none.
        budget_usd_per_day: Dollars that a day may cost, for the alert about it; null is no budget.
            Requests are not refused for it.
    """

    access: Literal["key", "open"] = "key"
    budget_usd_per_day: float | None = Field(default=None, gt=0)


class Listening(StrictModel):
    """How a replica of the gateway serves HTTP itself.

    Attributes:
        direct: Whether it takes the public port where ``waypost serve`` offers it.
        host: Address of ``port``.
        port: Port of its own, shared by the replicas of a machine; null has none.
        drain_s: Time for open requests where it is stopped or replaced.
    """

    direct: bool = True
    host: str = "127.0.0.1"
    port: int | None = None
    drain_s: Seconds = 120.0


class Autoscaling(StrictModel):
    """Ray Serve's autoscaling of one deployment.

    Attributes:
        min_replicas: Fewest replicas; 0 stops the last one while there are no requests.
        max_replicas: Most replicas.
        initial_replicas: Replicas at the start; null is ``min_replicas``.
        target_ongoing_requests: Requests in flight per replica above which replicas are added.
        upscale_delay_s: Time for which the load is above the target before replicas are added.
        downscale_delay_s: Time for which the load is below the target before they are removed.
        upscaling_factor: Share of missing replicas added at once; null is Serve's default, 1.
        downscaling_factor: Share of surplus replicas removed at once; null is Serve's default.
        metrics_interval_s: Time between two reports of the load; null is Serve's default, 10.
        look_back_period_s: Time over which the load is averaged; null is Serve's default, 30.
    """

    min_replicas: int = Field(default=1, ge=0)
    max_replicas: Positive = 1
    initial_replicas: int | None = Field(default=None, ge=0)
    target_ongoing_requests: float = Field(default=2.0, gt=0)
    upscale_delay_s: float = Field(default=30.0, ge=0)
    downscale_delay_s: float = Field(default=600.0, ge=0)
    upscaling_factor: float | None = Field(default=None, gt=0)
    downscaling_factor: float | None = Field(default=None, gt=0)
    metrics_interval_s: float | None = Field(default=None, gt=0)
    look_back_period_s: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Autoscaling:
        if self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas is above max_replicas")
        return self


class LogArgs(StrictModel):
    """How the nodes log. Neither prompts nor answers nor keys are ever logged.

    Attributes:
        format: One line of text, or one JSON object, for each event.
        level: Lowest level that is logged.
    """

    format: Literal["plain", "json"] = "plain"
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
