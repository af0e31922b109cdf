"""Measure feedback: events a second of one core, and what the records of requests cost.

Events are counted over the CPU time of the process that takes them (event loop and threads), in
process and over HTTP. The CPU time of an answer is measured at gateways without records, with
`feedback_dir` and with `decision_log`, in turns; all keep texts.

Example: waypost bench feedback --rounds 3
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

from pydantic import DirectoryPath, Field

from waypost.bench import harness
from waypost.bench._client import Endpoint, Job, Slice
from waypost.bench._processes import measure, upstream
from waypost.bench._targets import Scene
from waypost.bench._upstream import PATH, chat
from waypost.bench.cpu import ARTIFACT, Running, alone, cpu_s
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
from waypost.config import resolve_path
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


class Options(harness.Options):
    """Options of ``waypost bench feedback``.

    Attributes:
        concurrency: Requests in flight.
    """

    artifact: DirectoryPath | None = Field(
        None, description=f"Artifact of the router.  [default: {ARTIFACT}]"
    )
    rounds: int = Field(5, ge=1, description="Measurements of every figure.")
    seconds: float = Field(2.0, gt=0, description="Seconds of a measurement of answers.")
    events: int = Field(4_000, ge=100, description="Events of a measurement.")
    seed: int = Field(0, ge=0, description="Seed of the prompts.")
    concurrency: int = 32


QUICK = {"rounds": 1, "seconds": 0.5, "events": 1_000}


def run(options: Options, tell: Tell) -> Result:
    """Measure events in process, then gateways in turns.

    Returns:
        Figures: ``events``, for each way (in process or over HTTP, events of a body) the `spread`
        of ``each_cpu_second`` and ``each_second``; ``answers``, for each gateway ``cpu_us`` an
        answer, ``share``, what it takes beyond the one without records, over that one's, and
        ``record_us`` of a record in process.

    Raises:
        BenchError: A gateway does not start or refuses an event, or the client fails.
    """
    rates: dict[tuple[str, int], list[tuple[float, float]]] = {}
    records: dict[str, list[float]] = {}
    for number in range(options.rounds):
        for size in (1, MOST_EVENTS):
            tell(f"round {number + 1} of {options.rounds}: {IN_PROCESS}, {size} at a time")
            found = asyncio.run(in_process(options.events, size))
            rates.setdefault((IN_PROCESS, size), []).append(found)
        for name in (STORE, LOG):
            records.setdefault(name, []).append(asyncio.run(record(name, options.events)))
    micros: dict[str, list[float]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="waypost-bench-")))
        port = stack.enter_context(upstream("--tokens", "64"))
        scene = Scene(port, options.artifact or resolve_path(ARTIFACT), folder)
        changes: dict[str, dict[str, Any]] = {
            NONE: {},
            STORE: {STORE: str(folder / "f")},
            LOG: {LOG: str(folder / "l")},
        }
        servers = {
            name: stack.enter_context(alone(scene, changes={"log_queries": True, **given}))
            for name, given in changes.items()
        }
        keys = count()
        for number in range(-1, options.rounds):  # the first is not counted
            for name, server in servers.items():
                tell(f"round {number + 1} of {options.rounds}: answers, {name}")
                used = _answer(server, port, options, number)
                if number >= 0:
                    micros.setdefault(name, []).append(used)
            for size in (1, MOST_EVENTS):
                tell(f"round {number + 1} of {options.rounds}: {OVER_HTTP}, {size} at a time")
                found = over_http(servers[STORE], options.events, size, keys)
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
    answers = [
        {
            "server": name,
            "cpu_us": spread(found),
            "share": spread(shares(found, micros[NONE])),
            "record_us": spread(records.get(name, [0.0])),
        }
        for name, found in micros.items()
    ]
    return Result(
        tables(events, answers), _facts(options), aims(events, answers),
        {"events": events, "answers": answers},
    )  # fmt: skip


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


def _answer(server: Running, port: int, options: Options, number: int) -> float:
    """Return the CPU microseconds of an answer."""
    part = Slice("saturation", options.concurrency, stream=False, seconds=options.seconds)
    job = Job(server.endpoint, Endpoint(port, "echo"), (part,), options.seed + number + 1)
    begin = cpu_s(server.pid)
    (sample,) = measure(job)
    time.sleep(0.5)  # what is written later belongs to it
    spent = cpu_s(server.pid) - begin
    if sample.errors:
        raise BenchError(f"{sample.errors} requests failed")
    # each worker's first request is not in the sample
    return 1e6 * spent / (sample.answered + options.concurrency)


def shares(found: Sequence[float], without: Sequence[float]) -> list[float]:
    """Return what each round takes beyond that without records, over it."""
    return [one / other - 1 for one, other in zip(found, without, strict=True)]


def tables(
    events: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]]
) -> list[Table]:
    """Return the tables of the figures."""
    rates = [(f"{e['way']}, {e['size']} at a time", *map(with_range, _rates(e))) for e in events]
    rows = [
        (
            one["server"],
            with_range(one["cpu_us"]),
            _percent(one["share"]),
            with_range(one["record_us"]),
        )
        for one in answers
    ]
    heads = ("gateway", "microseconds", "beyond no records", "a record by itself")
    return [
        Table("Events taken [range]", ("way", "each CPU second", "each second"), rates),
        Table("CPU of an answer [range]", heads, rows),
    ]


def _rates(event: Mapping[str, Any]) -> tuple[Mapping[str, float], Mapping[str, float]]:
    return event["each_cpu_second"], event["each_second"]


def _percent(share: Mapping[str, float]) -> str:
    median, least, most = (f"{100 * share[key]:.1f}" for key in ("median", "least", "most"))
    return f"{median} % [{least}, {most}]"


def aims(events: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]]) -> list[Aim]:
    """Return the aims of the project."""
    rate = {(e["way"], e["size"]): e["each_cpu_second"]["median"] for e in events}
    whole = {one["server"]: one["cpu_us"]["median"] for one in answers}
    return [
        at_least("events in process each CPU second", rate.get((IN_PROCESS, MOST_EVENTS)), WANTED),
        at_least("events over HTTP each CPU second", rate.get((OVER_HTTP, MOST_EVENTS)), WANTED),
        *(
            at_most(f"{one['server']}: {what} over an answer's CPU", value, MOST_SHARE)
            for one in answers
            if one["server"] != NONE
            for what, value in (
                ("what it takes beyond no records", one["share"]["median"]),
                ("a record by itself", one["record_us"]["median"] / whole[NONE]),
            )
        ),
    ]


def _facts(options: Options) -> str:
    return (
        f"Medians of {options.rounds} rounds in turns, ranges in brackets; {options.events} "
        f"events a round; answers of 64 tokens, {options.concurrency} in flight for "
        f"{options.seconds:g} s; seed {options.seed}. A CPU second is one of all threads of the "
        "process that takes the events."
    )
