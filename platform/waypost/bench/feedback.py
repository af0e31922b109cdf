"""Measure feedback: events a second of one core, and what the records of requests cost.

Events are counted over the CPU time of the process that takes them (event loop and threads), in
process and over HTTP. The CPU time of an answer is measured at gateways without records, with
`feedback_dir` and with `decision_log`, in turns; all keep texts.

Example: waypost bench feedback --rounds 60
"""

from __future__ import annotations

import asyncio
import http.client
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import Field

from waypost.bench import _cpu
from waypost.bench._cpu import Running, cpu_s
from waypost.bench._http1 import Endpoint
from waypost.bench._upstream import PATH, chat
from waypost.bench.harness import (
    Aim,
    BenchError,
    Result,
    Table,
    Tell,
    at_least,
    at_most,
    spread,
    with_range,
)
from waypost.contracts.feedback import FeedbackEvent
from waypost.contracts.generation import Usage
from waypost.contracts.records import Decision
from waypost.feedback import DecisionLog, FeedbackStore, Outcome
from waypost.feedback.store import FLUSH_S
from waypost.serve.gateway.schemas import MOST_EVENTS

NONE, STORE, LOG = "no records", "feedback_dir", "decision_log"
IN_PROCESS, OVER_HTTP = "in process", "over HTTP"
WANTED = 2_000
MOST_SHARE = 0.05

_REQUESTS = 50
_AT_ONCE = 64
_EACH_FLUSH = 100
"""Records of a flush: a replica that answers 500 requests a second."""


class Options(_cpu.Turns):
    """Options of ``waypost bench feedback``."""

    events: int = Field(4_000, ge=100, description="Events of a measurement.")
    passes: int = Field(3, ge=1, description="Measurements of events a second.")


QUICK = {"rounds": 1, "passes": 1, "seconds": 0.5, "events": 1_000}


def run(options: Options, tell: Tell) -> Result:
    """Measure events in process, then gateways in turns.

    Returns:
        Figures: ``events``, for each way (in process or over HTTP, events of a body) the `spread`
        of ``each_cpu_second`` and ``each_second``; ``cells`` as of `cpu.run`; ``added``, records
        -> kind of answer -> share of its CPU that they add; ``record_us``, the CPU microseconds of
        a record in process.

    Raises:
        BenchError: A gateway does not start or refuses an event, or the client fails.
    """
    rates: dict[tuple[str, int], list[tuple[float, float]]] = {}
    records: dict[str, list[float]] = {}
    for number in range(options.passes):
        for size in (1, MOST_EVENTS):
            tell(f"pass {number + 1} of {options.passes}: {IN_PROCESS}, {size} at a time")
            found = asyncio.run(in_process(options.events, size))
            rates.setdefault((IN_PROCESS, size), []).append(found)
        for name in (STORE, LOG):
            records.setdefault(name, []).append(asyncio.run(record(name, options.events)))
    with ExitStack() as stack:
        scene = stack.enter_context(_cpu.scene_of(options))
        changes: dict[str, dict[str, Any]] = {
            NONE: {},
            STORE: {STORE: str(scene.folder / "f")},
            LOG: {LOG: str(scene.folder / "l")},
        }
        servers = {
            name: stack.enter_context(_cpu.alone(scene, changes={"log_queries": True, **given}))
            for name, given in changes.items()
        }
        cells, errors = _cpu.in_turns(servers, scene.upstream, options, tell)
        keys = count()
        for number in range(-1, options.passes):  # the first is not counted
            for size in (1, MOST_EVENTS):
                tell(f"pass {number + 1} of {options.passes}: {OVER_HTTP}, {size} at a time")
                found = over_http(
                    servers[STORE], max(options.events // 10, 10) * min(size, 10), size, keys
                )
                if number >= 0:
                    rates.setdefault((OVER_HTTP, size), []).append(found)
    events = [
        {
            "way": way,
            "size": size,
            "each_cpu_second": spread([one[0] for one in found]),
            "each_second": spread([one[1] for one in found]),
        }
        for (way, size), found in rates.items()
    ]
    figures = {
        "events": events,
        "cells": cells,
        "errors": errors,
        "added": _cpu.added(cells, {STORE: NONE, LOG: NONE}, NONE),
        "record_us": {name: spread(values) for name, values in records.items()},
    }
    shown, told = tables(figures), _facts(options)
    return Result(shown, told, aims(figures), figures, _cpu.failed(errors))


async def in_process(events: int, size: int) -> tuple[float, float]:
    """Rate requests in a new store; return events for each CPU second, and for each second."""
    with tempfile.TemporaryDirectory(prefix="waypost-bench-") as folder:
        store = FeedbackStore(
            Path(folder), keep_queries=True, most=10 * _REQUESTS, max_age_s=86_400.0
        )
        await store.start()
        for i in range(_REQUESTS):
            store.remember(_outcome(f"r{i}"))
        await store.add([])
        bodies = [
            [FeedbackEvent(**_event(f"r{i % _REQUESTS}", i)) for i in range(begin, begin + size)]
            for begin in range(0, events, size)
        ]
        cpu, wall = time.process_time(), time.perf_counter()
        for begin in range(0, len(bodies), _AT_ONCE):
            await asyncio.gather(*map(store.add, bodies[begin : begin + _AT_ONCE]))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        await store.close()
    return size * len(bodies) / cpu, size * len(bodies) / wall


async def record(kind: str, number: int) -> float:
    """Keep records of requests in a new folder; return the CPU microseconds of one."""
    with tempfile.TemporaryDirectory(prefix="waypost-bench-") as name:
        folder = Path(name)
        keeper: FeedbackStore | DecisionLog = (
            FeedbackStore(folder, keep_queries=True, most=number, max_age_s=86_400.0)
            if kind == STORE
            else DecisionLog(name, keep_queries=True)
        )
        await keeper.start()
        keep = keeper.remember if isinstance(keeper, FeedbackStore) else keeper.add
        outcomes = [_outcome(f"r{i}") for i in range(number)]
        cpu = time.process_time()
        for begin in range(0, number, _EACH_FLUSH):
            for outcome in outcomes[begin : begin + _EACH_FLUSH]:
                keep(outcome)
            await asyncio.sleep(FLUSH_S)
        await keeper.close()
        return 1e6 * (time.process_time() - cpu) / number


def over_http(server: Running, events: int, size: int, keys: count[int]) -> tuple[float, float]:
    """Rate requests of a gateway, a body at a time; return events for each CPU second of it, and
    for each second.

    Raises:
        BenchError: It refuses an event.
    """
    connection = http.client.HTTPConnection("127.0.0.1", server.endpoint.port, timeout=60)
    try:
        ids = [_asked(connection, server.endpoint) for _ in range(_REQUESTS)]
        said = [_event(ids[i % _REQUESTS], next(keys)) for i in range(events)]
        bodies = [said[begin : begin + size] for begin in range(0, events, size)]
        _send(connection, bodies[:1])  # waits until all requests can be found
        cpu, wall = cpu_s(server.pid), time.perf_counter()
        _send(connection, bodies[1:])
        cpu, wall = cpu_s(server.pid) - cpu, time.perf_counter() - wall
    finally:
        connection.close()
    sent = events - len(bodies[0])
    return sent / cpu, sent / wall


def _asked(connection: http.client.HTTPConnection, endpoint: Endpoint) -> str:
    asked = chat(endpoint.model, "How many lamps are there?", stream=False)
    connection.request("POST", PATH, asked, {"content-type": "application/json"})
    reply = connection.getresponse()
    reply.read()
    return reply.headers["x-waypost-request-id"]


def _send(
    connection: http.client.HTTPConnection, bodies: Sequence[Sequence[Mapping[str, Any]]]
) -> None:
    for events in bodies:
        body = {"events": events} if len(events) > 1 else events[0]
        sent = json.dumps(body).encode()
        connection.request("POST", "/v1/feedback", sent, {"content-type": "application/json"})
        reply = connection.getresponse()
        told = reply.read()
        if reply.status != 200 or b'"error"' in told:
            raise BenchError(f"an event was refused: HTTP {reply.status}: {told[:200]!r}")


def _event(request_id: str, number: int) -> dict[str, Any]:
    event: dict[str, Any] = {"request_id": request_id, "rating": number % 5 / 4}
    # one user's further rating would replace the earlier one
    event |= {"user_id": f"user-{number}", "idempotency_key": f"key-{number}"}
    return event | {"kind": "rating"}


def _outcome(request_id: str) -> Outcome:
    decision = Decision("large", ("large", "small"), quality={"large": 0.7}, propensity=1.0)
    query = {"query": "How many lamps are there?", "user_id": "ann"}
    return Outcome(
        request_id, time.time(), query, decision, model="large", usage=Usage(10, 64), seconds=0.1
    )


def tables(figures: Mapping[str, Any]) -> list[Table]:
    """Return the tables of the figures."""
    rates = [
        (f"{e['way']}, {e['size']} at a time", *map(with_range, _rates(e)))
        for e in figures["events"]
    ]
    more: Mapping[str, Any] = figures["added"]
    rows = [
        (
            name,
            *map(_cpu.with_interval, more[name].values()),
            with_range(figures["record_us"][name]),
        )
        for name, kinds in more.items()
    ]
    heads = ("records", *more[STORE], "a record by itself, microseconds")
    return [
        Table("Events taken [range]", ("way", "each CPU second", "each second"), rates),
        _cpu.table(figures["cells"]),
        Table("Share that records add to the CPU of an answer", heads, rows),
    ]


def _rates(event: Mapping[str, Any]) -> tuple[Mapping[str, float], Mapping[str, float]]:
    return event["each_cpu_second"], event["each_second"]


def aims(figures: Mapping[str, Any]) -> list[Aim]:
    """Return the aims of the project."""
    rate = {(e["way"], e["size"]): e["each_cpu_second"]["median"] for e in figures["events"]}
    return [
        at_least("events in process each CPU second", rate.get((IN_PROCESS, MOST_EVENTS)), WANTED),
        at_least("events over HTTP each CPU second", rate.get((OVER_HTTP, MOST_EVENTS)), WANTED),
        *(
            at_most(f"{name}, {kind}: share of an answer's CPU", share["share"], MOST_SHARE)
            for name, kinds in figures["added"].items()
            for kind, share in kinds.items()
        ),
    ]


def _facts(options: Options) -> str:
    return (
        f"Events: medians of {options.passes} passes, ranges in brackets; {options.events} "
        "events a pass (over HTTP one by one a tenth); a CPU second is one of all threads of the "
        f"process that takes them. {_cpu.facts(options)}"
    )
