"""Kill processes of a running server, and count what each kill costs its clients.

A pool of clients asks all the time. One process (or all of one kind) gets SIGKILL; what was open
then, what was refused later, and the time until every request is answered again are written down.
The LLMs are a local endpoint that takes `LLM_S` for an answer.

Example: waypost bench faults --mode direct --fault gateway
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, Literal

import aiohttp
import psutil
from pydantic import DirectoryPath, Field

from waypost.bench import harness
from waypost.bench._processes import upstream
from waypost.bench._targets import ARTIFACT, Scene, started
from waypost.bench._upstream import PATH, chat
from waypost.bench.harness import BenchError, Result, Table, Tell
from waypost.config import resolve_path
from waypost.serve.config import AUTO

LLM_S = 0.2
CALM_S = 5.0
"""Time without a bad answer after which a fault counts as healed."""

WITHIN_S = 120.0
PAUSE_S = 0.05
"""Pause of a client after a bad answer."""

Fault = Literal["gateway", "one of two gateways", "router", "llm", "controller", "proxy", "haproxy"]

TITLES: dict[Fault, str] = {
    "gateway": "ray::ServeReplica:waypost:Gateway",
    "one of two gateways": "ray::ServeReplica:waypost:Gateway",
    "router": "ray::ServeReplica:waypost:Router",
    "llm": "ray::ServeReplica:waypost:{llm}",
    "controller": "ray::ServeController",
    "proxy": "ray::ProxyActor",
    "haproxy": "haproxy",
}
"""Fault -> how the command line of the killed process begins (of HAProxy, its name)."""

MOST: dict[Fault, int] = {"one of two gateways": 1}
ONLY_IN: dict[Fault, str] = {"proxy": "serve", "haproxy": "haproxy"}
BAD = ("open: cut or lost", "503 with Retry-After", "other error", "refused")


class Options(harness.Options):
    """Options of ``waypost bench faults``."""

    artifact: DirectoryPath | None = Field(
        None, description=f"Artifact of the router.  [default: {ARTIFACT}]"
    )
    in_flight: int = Field(32, ge=1, description="Clients that ask all the time.")
    kills: int = Field(2, ge=1, description="Kills of each kind.")
    mode: tuple[Literal["direct", "serve", "haproxy"], ...] = Field(
        ("direct", "serve", "haproxy"), description="How HTTP reaches the gateway."
    )
    fault: tuple[Fault, ...] = Field(tuple(TITLES), description="What is killed.")


@dataclass(frozen=True)
class Ended:
    """The end of a request: its kind, one of `BAD` or "answered", and its times."""

    kind: str
    begin: float
    end: float


@dataclass(frozen=True)
class Cost:
    """What a kill costs.

    Attributes:
        asked: Requests that ended between the kill and the calm after it.
        bad: Number of bad ends by kind.
        healed_s: Seconds from the kill to the end of the last request that failed, or that began
            before the next answer came.
    """

    asked: int
    bad: dict[str, int]
    healed_s: float


def run(options: Options, tell: Tell) -> Result:
    """Kill each kind of process in each mode.

    Returns:
        Figures: ``cells``, one for each mode and fault with a `Cost` for each kill.

    Raises:
        BenchError: A server does not start, or does not heal within `WITHIN_S`.
    """
    artifact = options.artifact or resolve_path(ARTIFACT)
    cells: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="waypost-bench-"))
        port = stack.enter_context(upstream("--tokens", "8", "--latency", str(LLM_S)))
        scene = Scene(port, artifact, Path(folder))
        for mode, replicas in product(options.mode, (1, 2)):
            faults = [fault for fault in options.fault if _fits(fault, mode, replicas)]
            try:
                cells += _cells(options, scene, mode, replicas, faults, tell) if faults else []
            except BenchError as error:
                failed[f"{mode}, {replicas} gateway"] = str(error)
    return Result([table(cells)], _facts(options), (), {"cells": cells}, failed)


def _cells(
    options: Options, scene: Scene, mode: str, replicas: int, faults: Sequence[Fault], tell: Tell
) -> list[dict[str, Any]]:
    """Measure some faults of one server."""
    tell(f"{mode}, {replicas} gateway: starting")
    found = []
    with started(f"deployments/{mode}", replace(scene, gateways=replicas)) as (endpoint, pid):
        for fault in faults:
            tell(f"{mode}: {fault}")
            hit = partial(kill, pid, TITLES[fault].format(llm=scene.llms[0]), MOST.get(fault))
            url = f"http://127.0.0.1:{endpoint.port}"
            costs = [asyncio.run(cost(url, options.in_flight, hit)) for _ in range(options.kills)]
            found.append(_cell(mode, fault, costs))
    return found


def _fits(fault: Fault, mode: str, replicas: int) -> bool:
    return ONLY_IN.get(fault, mode) == mode and (fault in MOST) == (replicas == 2)


def kill(server: int, title: str, most: int | None = None) -> int:
    """Send SIGKILL to descendants of a process; return how many got it.

    Args:
        server: The process.
        title: How their command lines begin, or their name.
        most: At most so many; None is all.
    """
    found = [one for one in psutil.Process(server).children(recursive=True) if _is(one, title)]
    for one in found[:most]:
        os.kill(one.pid, signal.SIGKILL)
    return len(found[:most])


def _is(process: psutil.Process, title: str) -> bool:
    try:
        return process.name() == title or " ".join(process.cmdline()).startswith(title)
    except psutil.Error:
        return False  # it has ended


async def cost(url: str, in_flight: int, fault: Callable[[], int]) -> Cost:
    """Ask all the time, call ``fault``, and count until all is calm.

    Args:
        url: ``http://host:port``.
        in_flight: Number of clients.
        fault: Causes the fault; returns how many processes it hit.

    Raises:
        BenchError: Nothing was hit, or it does not heal within `WITHIN_S`.
    """
    ended: list[Ended] = []
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=WITHIN_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        clients = [asyncio.create_task(_ask_on(http, url, ended)) for _ in range(in_flight)]
        try:
            begin: float | None = None
            while True:
                await asyncio.sleep(PAUSE_S)
                now = time.monotonic()
                if begin is None:
                    if sum(one.kind == "answered" for one in ended) < 2 * in_flight:
                        continue
                    begin = now
                    if not fault():
                        raise BenchError("no process was there to kill")
                if now > begin + WITHIN_S:
                    raise BenchError(f"not every request is answered {WITHIN_S:g} s later")
                after = [one for one in ended if one.end >= begin]
                if now > begin + CALM_S and after and _calm(after, now):
                    return _count(after, begin)
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)


def _calm(after: Sequence[Ended], now: float) -> bool:
    last = max((one.end for one in after if one.kind != "answered"), default=0.0)
    return now > last + CALM_S and any(one.begin > now - CALM_S for one in after)


def _count(after: Sequence[Ended], begin: float) -> Cost:
    bad = Counter(one.kind for one in after if one.kind != "answered")
    last_bad = max((one.end for one in after if one.kind != "answered"), default=begin)
    # where nothing was refused, the wait shows as a gap between answers
    good = sorted(one.end for one in after if one.kind == "answered")
    gaps = [(b - a, b) for a, b in zip([begin, *good], good, strict=False)]
    gap, end = max(gaps, default=(0.0, begin))
    healed = max(last_bad, end if gap > 2 * LLM_S else begin)
    return Cost(len(after), dict(bad), healed - begin)


async def _ask_on(http: aiohttp.ClientSession, url: str, ended: list[Ended]) -> None:
    body = chat(AUTO, "How many lamps are there?", stream=False)
    headers = {"content-type": "application/json"}
    while True:
        begin = time.monotonic()
        try:
            async with http.post(f"{url}{PATH}", data=body, headers=headers) as reply:
                await reply.read()
                kind = "answered" if reply.status == 200 else "other error"
                if reply.status == 503 and "retry-after" in reply.headers:
                    kind = "503 with Retry-After"
        except aiohttp.ClientConnectorError:
            kind = "refused"
        except (aiohttp.ClientError, TimeoutError, OSError):
            kind = "open: cut or lost"
        ended.append(Ended(kind, begin, time.monotonic()))
        if kind != "answered":
            await asyncio.sleep(PAUSE_S)


def _cell(mode: str, fault: Fault, costs: Sequence[Cost]) -> dict[str, Any]:
    shown = [{"asked": one.asked, "bad": one.bad, "healed_s": one.healed_s} for one in costs]
    return {"mode": mode, "fault": fault, "kills": shown}


def table(cells: Sequence[dict[str, Any]]) -> Table:
    """Return a row for each mode and fault: sums of bad ends, median and longest seconds."""
    rows = []
    for cell in cells:
        kills = cell["kills"]
        sums = [str(sum(one["bad"].get(kind, 0) for one in kills)) for kind in BAD]
        seconds = [one["healed_s"] for one in kills]
        asked = sum(one["asked"] for one in kills)
        healed = f"{median(seconds):.1f} / {max(seconds):.1f}"
        rows.append([f"{cell['fault']}, {cell['mode']}", str(asked), *sums, healed])
    heads = ("killed", "requests", *BAD, "seconds until all are answered, median / longest")
    return Table("What a kill costs", heads, rows)


def _facts(options: Options) -> str:
    return (
        f"{options.kills} kills each, {options.in_flight} clients, LLMs that take {LLM_S:g} s. "
        f"Clients ask again {1e3 * PAUSE_S:g} ms after a bad answer, so the number of refused "
        "requests says how long the port was closed."
    )
