"""Build the graph for Ray Serve: ``import_path: waypost.serve.app:build``.

Gateway (ingress) -> Router -> one deployment for each LLM, named after it, and Owner where
gateways on several machines share folders. This module has no
``from __future__ import annotations``: with it Serve would pass `build` a plain dict.
"""

import logging
import os
from typing import Any

from waypost.config import PATIENT_THREADS
from waypost.engines import engine_class
from waypost.serve.chat_node import ChatNode
from waypost.serve.config import PoolEntry, ServeArgs
from waypost.serve.environments import interpreter
from waypost.serve.keeping import HEAD
from waypost.serve.nodes import GatewayNode, LLMNode, OwnerNode, RouterNode
from waypost.serve.plan import Plan, Served, make_plan
from waypost.serve.replicas import ActorOptions, ChatArgs, NodeArgs

logger = logging.getLogger(__name__)

SPARE_PLACES = 10_000
"""Concurrent requests of a gateway replica beyond its own queue, for /healthz, /metrics and
refusals. Without them Serve's proxy would queue requests, and not in order of arrival."""

HEALTH_CHECK_S = 1.0
"""Period of health checks: Serve notices a killed replica only at the next check."""

GATEWAY_CHECK_S = 0.25
"""The same for the gateway, without which nobody is answered."""

HEAD_RESOURCE = "node:__internal_head__"
"""Ray's resource of its head node, 1 in all."""

PINNING = 0.001
"""Amount of a machine's resource that pins a replica to it; during an update there are two."""

OWNER_CALLS = 1000
"""Concurrent calls of the owner; each gateway replica has one at a time for each folder."""

OWNER_STOP_S = 10.0

CHAT_CALLS = 1000
"""Concurrent requests of browsers to the chat page; each open page has a few."""

CHAT_STOP_S = 5.0


def build(args: ServeArgs) -> Any:
    """Return the Serve application of these arguments.

    Raises:
        ConfigError, ArtifactError, PoolMismatchError: see `make_plan`.
        MissingExtraError: Ray Serve is not installed.
    """
    from ray import serve

    plan = make_plan(args)
    for model in plan.models:
        if model.unavailable is not None:
            logger.error("%s is not served: %s", model.name, model.unavailable)
    entries = {entry.name: entry for entry in args.pool}
    replicas = sum(_computing_replicas(entries[model.name]) for model in plan.models)
    llms = {
        model.name: _llm(serve, model, entries[model.name], plan, replicas)
        for model in plan.models
        if model.deployment is not None
    }
    owner = _owner(serve, plan) if plan.owned else None
    chat = None if plan.chat is None else _chat(serve, plan, plan.chat)
    router = None
    if not plan.router_inline:
        options = node_options(args.router)
        deployment = serve.deployment(name="Router", user_config={}, **options)(RouterNode)
        router = deployment.bind(plan.model_dump(mode="json", by_alias=True), owner)
    options = node_options(args.gateway)
    places = plan.limits.max_in_flight + plan.limits.max_queued
    options["max_ongoing_requests"] = places + SPARE_PLACES
    options["max_queued_requests"] = -1
    options["health_check_period_s"] = GATEWAY_CHECK_S
    # between two looks at the requests that its proxy sent, of which there may be none
    options["graceful_shutdown_wait_loop_s"] = min(
        0.5, args.gateway.graceful_shutdown_timeout_s / 4
    )
    # empty, not None: Serve does not reconfigure a replica when its user_config is removed
    ingress = serve.ingress()(GatewayNode)
    gateway = serve.deployment(name="Gateway", user_config={}, **options)(ingress)
    return gateway.bind(plan.model_dump(mode="json", by_alias=True), router, llms, owner, chat)


def _chat(serve: Any, plan: Plan, args: ChatArgs) -> Any:
    deployment = serve.deployment(
        name="Chat",
        num_replicas=1,
        max_ongoing_requests=CHAT_CALLS,
        health_check_period_s=HEALTH_CHECK_S,
        graceful_shutdown_timeout_s=CHAT_STOP_S,
        ray_actor_options=actor_options(args.ray_actor_options),
    )(ChatNode)
    return deployment.bind(plan.model_dump(mode="json", by_alias=True))


def _owner(serve: Any, plan: Plan) -> Any:
    place = HEAD_RESOURCE if plan.store_place == HEAD else plan.store_place
    deployment = serve.deployment(
        name="Owner",
        num_replicas=1,
        max_ongoing_requests=OWNER_CALLS,
        health_check_period_s=HEALTH_CHECK_S,
        graceful_shutdown_timeout_s=OWNER_STOP_S,
        # no CPU: many clusters give none of those of the head node
        ray_actor_options={"num_cpus": 0, "resources": {place: PINNING}},
    )(OwnerNode)
    return deployment.bind(plan.feedback_dir, plan.log.model_dump(mode="json"))


def _llm(serve: Any, model: Served, entry: PoolEntry, plan: Plan, replicas: int) -> Any:
    options = node_options(entry)
    actor = options["ray_actor_options"]
    runtime_env = actor.setdefault("runtime_env", {})
    threads = thread_variables(entry, replicas)
    runtime_env["env_vars"] = {**threads, **runtime_env.get("env_vars", {})}
    if entry.environment is not None:
        runtime_env["py_executable"] = str(interpreter(entry.environment, f"pool: {entry.name}"))
    deployment = serve.deployment(name=model.deployment, **options)(LLMNode)
    return deployment.bind(model.model_dump(mode="json"), plan.log.model_dump(mode="json"))


def thread_variables(entry: PoolEntry, replicas: int) -> dict[str, str]:
    """Return variables that limit threads, so that all LLM replicas together use each core once.

    For an entry that asks for whole CPUs Ray itself sets the number of threads.

    Args:
        entry: The LLM.
        replicas: Number of replicas on this machine that compute answers themselves.
    """
    if entry.ray_actor_options.num_cpus >= 1:
        return dict(PATIENT_THREADS)
    share = max(1, (os.cpu_count() or 1) // max(1, replicas))
    return {**PATIENT_THREADS, "OMP_NUM_THREADS": str(share)}


def _computing_replicas(entry: PoolEntry) -> int:
    if engine_class(entry.engine).remote:
        return 0
    if entry.autoscaling is not None:
        return entry.autoscaling.max_replicas
    return entry.num_replicas or 1


def actor_options(options: ActorOptions) -> dict[str, Any]:
    """Return what Ray reserves for a replica, as Ray names it."""
    given = options.model_dump().items()
    return {key: value for key, value in given if value not in (None, {})}


def node_options(node: NodeArgs) -> dict[str, Any]:
    """Return the options of a deployment, as Serve names them."""
    options: dict[str, Any] = {
        "max_ongoing_requests": node.max_ongoing_requests,
        "max_queued_requests": node.max_queued_requests or -1,
        "health_check_period_s": HEALTH_CHECK_S,
        "max_surge_percent": node.max_surge_percent,
        "graceful_shutdown_timeout_s": node.graceful_shutdown_timeout_s,
        "ray_actor_options": actor_options(node.ray_actor_options),
    }
    if node.autoscaling is None:
        options["num_replicas"] = node.num_replicas or 1
    else:
        options["autoscaling_config"] = node.autoscaling.model_dump(exclude_none=True)
    return options
