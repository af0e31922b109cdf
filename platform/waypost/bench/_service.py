"""Clients of a cluster of pods, and the Service that leads them to the pods that are ready."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp

from waypost.bench._upstream import PATH, chat
from waypost.serve.config import AUTO

SERVE = 8000
"""Port of a pod on which its gateways are reached."""

PAUSE_S = 0.05
"""Pause of a client after a bad answer."""

ANSWERED, EVENT = "answered", "stream: error event"
BAD = ("whole: lost", "error status", EVENT, "stream: cut", "refused")
_OK = 200


@dataclass(frozen=True)
class Ended:
    """The end of a request: its kind, and its times."""

    kind: str
    begin: float
    end: float


@dataclass
class Service:
    """The pods that take requests, as the readiness probe of the manifest finds them.

    Attributes:
        pods: Address -> failures in a row; all pods that may serve.
        ready: Addresses of those that are ready.
    """

    period_s: float
    failures: int
    pods: dict[str, int] = field(default_factory=dict)
    ready: list[str] = field(default_factory=list)

    async def look(self) -> None:
        """Probe each pod, again and again."""
        timeout = aiohttp.ClientTimeout(total=self.period_s)
        async with aiohttp.ClientSession(timeout=timeout) as http:
            while True:
                await asyncio.gather(*(self._probe(http, pod) for pod in list(self.pods)))
                await asyncio.sleep(self.period_s)

    async def _probe(self, http: aiohttp.ClientSession, pod: str) -> None:
        good = False
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with http.get(f"http://{pod}:{SERVE}/readyz") as reply:
                good = reply.status == _OK
        failed = self.pods[pod] = 0 if good else self.pods.get(pod, 0) + 1
        if good and pod not in self.ready:
            self.ready.append(pod)
        elif failed >= self.failures and pod in self.ready:
            self.ready.remove(pod)


async def ask_on(
    http: aiohttp.ClientSession, service: Service, ended: list[Ended], stream: bool
) -> None:
    """Ask one answer after the other, and note how each ended.

    Args:
        http: The client.
        service: Tells whom to ask.
        ended: The ends of all requests.
        stream: Whether to ask for streams.
    """
    headers = {"content-type": "application/json"}
    draw = random.Random(secrets.randbits(32))  # noqa: S311 - which pod is asked
    while True:
        if not service.ready:
            ended.append(Ended("refused", time.monotonic(), time.monotonic()))
            await asyncio.sleep(PAUSE_S * 10)
            continue
        begin = time.monotonic()
        url = f"http://{draw.choice(service.ready)}:{SERVE}{PATH}"
        body = chat(AUTO, "How many lamps are there?", stream=stream)
        try:
            async with http.post(url, data=body, headers=headers) as reply:
                text = await reply.read()
                kind = kind_of(reply.status, text, stream)
        except aiohttp.ClientConnectorError:
            kind = "refused"
        except (aiohttp.ClientError, TimeoutError, OSError):
            kind = "stream: cut" if stream else "whole: lost"
        ended.append(Ended(kind, begin, time.monotonic()))
        if kind != ANSWERED:
            await asyncio.sleep(PAUSE_S)


def kind_of(status: int, text: bytes, stream: bool) -> str:
    """Return how a request ended: `ANSWERED`, or one of `BAD`."""
    if status != _OK:
        return "error status"
    if not stream or text.rstrip().endswith(b"data: [DONE]"):
        return EVENT if stream and b'"error"' in text else ANSWERED
    return EVENT if b'"error"' in text else "stream: cut"
