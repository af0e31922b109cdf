"""The Serve graph of the load tests, with one application for each kind of fault.

- ``apart``: three echo LLMs, each a deployment, and a router with one replica
- ``pair``: a router with two replicas, LLMs inside the gateway
- ``remote``: LLMs behind HTTP endpoints that a test scripts, and short time-outs
- ``tight``: the same endpoints, with a low limit of requests in flight and long time-outs
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from support.gateway import echo_pool
from support.served import application

LLMS = ("cook", "prover", "tiny")
FIRST_TOKEN_S = 3.0
BETWEEN_TOKENS_S = 2.0
TOTAL_S = 16.0
"""Time-outs of ``remote``."""

PLACES = 16
"""Maximum requests in flight of ``tight``, and maximum requests in its queue."""

TALK = {"tokens": 8, "tokens_per_s": 2}
"""Config of answers that take four seconds: many are in flight when a fault happens, and replicas
that start find free cores."""

INLINE = {"router": {"placement": "inline"}}


def load_graph(artifact: Path, upstreams: Mapping[str, str], apps: tuple[str, ...]) -> Any:
    """Return the content of a Serve file.

    Args:
        artifact: Artifact of a router for `LLMS`.
        upstreams: Base URL of each LLM.
        apps: Names of the applications to include.
    """
    roomy = {"max_ongoing_requests": 200, "max_queued_requests": 200}
    talking = [{"name": name, "engine": "echo", "config": TALK, **roomy} for name in LLMS]
    remote = [_remote(name, upstreams[name]) for name in LLMS]
    quick = {"first_token_timeout_s": FIRST_TOKEN_S, "between_tokens_timeout_s": BETWEEN_TOKENS_S}
    few = {"max_in_flight": PLACES, "max_queued": PLACES}
    found = {
        "apart": application("apart", artifact, talking),
        "pair": application(
            "pair",
            artifact,
            echo_pool(**dict.fromkeys(LLMS, TALK)),
            router={"num_replicas": 2},
        ),
        "remote": application(
            "remote", artifact, remote, limits={**quick, "total_timeout_s": TOTAL_S}, **INLINE
        ),
        "tight": application("tight", artifact, remote, limits=few, **INLINE),
    }
    return {"applications": [found[name] for name in apps]}


def _remote(name: str, base_url: str) -> dict[str, Any]:
    config = {"base_url": base_url, "model": name, "max_retries": 0}
    return {
        "name": name,
        "engine": "openai",
        "placement": "inline",
        "config": config,
        "max_ongoing_requests": 200,
        "max_queued_requests": 200,
    }


async def gauges(base_url: str) -> dict[str, float]:
    """Return the gateway's gauges and counters without labels, by name.

    Args:
        base_url: Base URL of the application, without ``/v1``.
    """
    async with aiohttp.ClientSession() as session, session.get(f"{base_url}/metrics") as reply:
        text = await reply.text()
    found = re.findall(r"^(waypost_\w+) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}
