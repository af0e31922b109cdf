"""The client that measures: closed loops over kept connections, in a process of its own.

``python -m waypost.bench.gateway.load`` reads a `Job` as JSON on its standard input and
writes a list of `Sample` as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Literal

from waypost.bench.gateway.http1 import Connection, Exchange, ProtocolError, connect, post
from waypost.bench.gateway.prompts import chat, prompts
from waypost.bench.gateway.upstream import TOKEN

PATH = "/v1/chat/completions"
ANSWER_TIMEOUT_S = 30.0
MARK = TOKEN.strip().encode()
_DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Endpoint:
    """Who is asked: a port of 127.0.0.1, and the model named there."""

    port: int
    model: str


@dataclass(frozen=True)
class Slice:
    """One stretch of measuring.

    Attributes:
        kind: ``pairs`` asks the target and the upstream in turn, in an order drawn anew for each
            pair; ``saturation`` asks the target only.
        concurrency: Workers, each with one request in flight.
        stream: Whether answers are streams.
        seconds: How long; requests begun are finished.
    """

    kind: Literal["pairs", "saturation"]
    concurrency: int
    stream: bool
    seconds: float


@dataclass(frozen=True)
class Job:
    """What one process of the client does.

    Attributes:
        target: The gateway that is measured.
        upstream: What is behind it.
        slices: In this order.
        seed: Of prompts and of the order within pairs.
        warm_up_s: Seconds of saturation before the first slice, not measured.
    """

    target: Endpoint
    upstream: Endpoint
    slices: tuple[Slice, ...]
    seed: int
    warm_up_s: float = 0.0


@dataclass(frozen=True)
class Pair:
    """Milliseconds of one request through the target and one straight to the upstream.

    The times to the first token are those of streams; of a whole answer they say nothing.
    """

    through_ms: float
    direct_ms: float
    through_first_ms: float
    direct_first_ms: float


@dataclass
class Sample:
    """What a slice gave.

    Attributes:
        slice: Which.
        pairs: Of a slice of pairs.
        answered: Requests that the target answered in a slice of saturation.
        seconds: From the first request to the last answer.
        errors: Requests that were not answered with 200 and a complete body.
        client_busy: Share of one core that this client took.
    """

    slice: Slice
    pairs: list[Pair] = field(default_factory=list)
    answered: int = 0
    seconds: float = 0.0
    errors: int = 0
    client_busy: float = 0.0


class _Wire:
    """A worker's connection to one endpoint, opened again where the server closed it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._connection: Connection | None = None

    async def ask(self, prompt: str, *, stream: bool) -> Exchange | None:
        """Return the exchange; None where it was not answered in full."""
        request = post(self.endpoint.port, PATH, chat(self.endpoint.model, prompt, stream=stream))
        try:
            if self._connection is None or not self._connection.open:
                self._connection = await connect(self.endpoint.port, MARK)
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                done = await self._connection.exchange(request)
        except (ProtocolError, OSError):  # TimeoutError is an OSError
            self.close()
            return None
        complete = done.body.endswith(_DONE) if stream else MARK in done.body
        return done if done.status == 200 and complete else None

    def close(self) -> None:
        if self._connection is not None and self._connection.open:
            self._connection.close()
        self._connection = None


class Load:
    """Runs the slices of a job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._prompts = prompts(job.seed)
        self._rng = random.Random(job.seed)  # noqa: S311 - no secret

    async def run(self) -> list[Sample]:
        """Run all slices, one after another."""
        if self._job.warm_up_s > 0:
            most = max(part.concurrency for part in self._job.slices)
            await self._measure(Slice("saturation", most, False, self._job.warm_up_s / 2))
            await self._measure(Slice("saturation", most, True, self._job.warm_up_s / 2))
        return [await self._measure(part) for part in self._job.slices]

    async def _measure(self, part: Slice) -> Sample:
        sample = Sample(part)
        work = self._pairs if part.kind == "pairs" else self._requests
        wires = [
            (_Wire(self._job.target), _Wire(self._job.upstream)) for _ in range(part.concurrency)
        ]
        for target, upstream in wires:  # connections are opened before the clock runs
            await target.ask(next(self._prompts), stream=part.stream)
            if part.kind == "pairs":
                await upstream.ask(next(self._prompts), stream=part.stream)
        gc.collect()
        gc.disable()
        cpu, begin = time.process_time(), time.perf_counter()
        until = begin + part.seconds
        await asyncio.gather(*(work(sample, *pair, until) for pair in wires))
        # To the last answer: the target is busy until then. A count at a fixed moment would be
        # wrong by up to as many answers as are in flight, which is much for a slow target.
        sample.seconds = time.perf_counter() - begin
        sample.client_busy = (time.process_time() - cpu) / sample.seconds
        gc.enable()
        for target, upstream in wires:
            target.close()
            upstream.close()
        return sample

    async def _pairs(self, sample: Sample, target: _Wire, upstream: _Wire, until: float) -> None:
        stream = sample.slice.stream
        while time.perf_counter() < until:
            prompt = next(self._prompts)
            if self._rng.random() < 0.5:
                through = await target.ask(prompt, stream=stream)
                direct = await upstream.ask(prompt, stream=stream)
            else:
                direct = await upstream.ask(prompt, stream=stream)
                through = await target.ask(prompt, stream=stream)
            if through is None or direct is None:
                sample.errors += 1
                await asyncio.sleep(0.01)  # a target that refuses at once is not to be hammered
                continue
            times = (through.total_s, direct.total_s, through.first_s, direct.first_s)
            sample.pairs.append(Pair(*(1e3 * seconds for seconds in times)))

    async def _requests(self, sample: Sample, target: _Wire, _: _Wire, until: float) -> None:
        stream = sample.slice.stream
        while time.perf_counter() < until:
            done = await target.ask(next(self._prompts), stream=stream)
            if done is None:
                sample.errors += 1
                await asyncio.sleep(0.01)
            else:
                sample.answered += 1


def job_to_json(job: Job) -> str:
    """Return a job as JSON."""
    return json.dumps(asdict(job))


def job_from_json(text: str) -> Job:
    """Read what `job_to_json` wrote."""
    data = json.loads(text)
    return Job(
        target=Endpoint(**data["target"]),
        upstream=Endpoint(**data["upstream"]),
        slices=tuple(Slice(**part) for part in data["slices"]),
        seed=data["seed"],
        warm_up_s=data["warm_up_s"],
    )


def samples_to_json(samples: list[Sample]) -> str:
    """Return samples as JSON."""
    return json.dumps([asdict(sample) for sample in samples])


def samples_from_json(text: str) -> list[Sample]:
    """Read what `samples_to_json` wrote."""
    return [
        Sample(
            **{
                **item,
                "slice": Slice(**item["slice"]),
                "pairs": [Pair(**pair) for pair in item["pairs"]],
            }
        )
        for item in json.loads(text)
    ]


if __name__ == "__main__":
    sys.stdout.write(samples_to_json(asyncio.run(Load(job_from_json(sys.stdin.read())).run())))
