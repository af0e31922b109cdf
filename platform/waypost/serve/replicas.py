"""Models of a Serve config for how a deployment is replicated and placed on Ray."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from waypost.config import StrictModel
from waypost.serve.limits import Autoscaling, Positive, Seconds


class ActorOptions(StrictModel):
    """Logical resources of one replica.

    Attributes:
        num_cpus: Ray's logical CPUs; they do not limit threads.
        num_gpus: GPUs; a fraction shares one.
        memory: Bytes of memory that Ray reserves; null reserves none.
        resources: Ray's custom resources by name.
        accelerator_type: Ray's name of the accelerator that a machine must have; null is any.
        runtime_env: Ray's runtime environment of the replica.
    """

    num_cpus: float = Field(default=0.1, ge=0)
    num_gpus: float = Field(default=0, ge=0)
    memory: float | None = Field(default=None, ge=0)
    resources: dict[str, float] = Field(default_factory=dict)
    accelerator_type: str | None = None
    runtime_env: dict[str, Any] = Field(default_factory=dict)


class NodeArgs(StrictModel):
    """How a deployment is replicated and placed.

    Attributes:
        num_replicas: Fixed number of replicas; 1 where neither this nor ``autoscaling`` is given.
        autoscaling: Replicas by load, instead of ``num_replicas``.
        max_ongoing_requests: Most requests in flight in one replica.
        max_queued_requests: Most queued requests of one caller; further ones are refused.
        max_surge_percent: Share of extra replicas started before old ones stop, when changed
            arguments restart them. 0 stops the old ones first: use it without room for both (GPUs).
        graceful_shutdown_timeout_s: Time in which a stopped replica may finish its requests.
        ray_actor_options: Resources that Ray reserves for each replica.
    """

    num_replicas: Positive | None = None
    autoscaling: Autoscaling | None = None
    max_ongoing_requests: Positive = 32
    max_queued_requests: int = Field(default=64, ge=0)
    max_surge_percent: int = Field(default=100, ge=0, le=100)
    graceful_shutdown_timeout_s: Seconds = 120.0
    ray_actor_options: ActorOptions = ActorOptions()

    @model_validator(mode="after")
    def _scaling_can_happen(self) -> NodeArgs:
        if self.autoscaling is None:
            return self
        if self.num_replicas is not None:
            raise ValueError("give num_replicas or autoscaling, not both")
        if self.autoscaling.target_ongoing_requests > self.max_ongoing_requests:
            raise ValueError(
                "autoscaling.target_ongoing_requests is above max_ongoing_requests "
                f"({self.max_ongoing_requests}), so that no replica would ever be added"
            )
        return self


class ChatArgs(StrictModel):
    """The chat page at ``/chat``: a deployment with one replica, since its queue is in one process.

    With ``api_keys`` the page asks for a name and a password: the user of the requests, and a
    client's key.

    Attributes:
        hosts: Names in the Host header that are accepted, without a port; ``"*"`` accepts all. So
            other web pages cannot read the chat through a name of theirs that leads here.
        max_upload_mb: Longest body of a request to it, in megabytes.
        ray_actor_options: Resources that Ray reserves for the replica.
    """

    hosts: tuple[Annotated[str, Field(min_length=1, max_length=253)], ...] = (
        "localhost",
        "127.0.0.1",
        "[::1]",
    )
    max_upload_mb: Positive = 16
    ray_actor_options: ActorOptions = ActorOptions()
