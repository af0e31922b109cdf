"""The measuring client: closed loops over kept-alive connections, in its own process.

``python -m waypost.bench._client`` reads a `Job` as JSON on its standard input and writes a list of
`Sample` as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from waypost.bench._http1 import Endpoint, Exchange, Wire
from waypost.bench._processes import spoken
from waypost.bench._upstream import chat, prompts
from waypost.bench._usage import Cpu
from waypost.bench.harness import BenchError


@dataclass(frozen=True)
class Slice:
    """One measurement of fixed length.

    Attributes:
        kind: ``pairs`` sends a request to the target and one to the upstream, in an order drawn
            for each pair; ``saturation`` sends requests to the target only.
        concurrency: Number of workers, each with one request in flight.
        stream: Whether to request streams.
        seconds: Length; requests already sent are finished.
    """

    kind: Literal["pairs", "saturation"]
    concurrency: int
    stream: bool
    seconds: float


@dataclass(frozen=True)
class Job:
    """The work of one client process.

    Attributes:
        target: The measured gateway.
        upstream: The endpoint behind the gateway.
        slices: Slices to measure, in order.
        seed: Seed of the prompts and of the order within pairs.
        warm_up_s: Seconds of unmeasured saturation before the first slice.
        process: Process that started the target, whose CPU time is measured; None: nobody's is.
    """

    target: Endpoint
    upstream: Endpoint
    slices: tuple[Slice, ...]
    seed: int
    warm_up_s: float = 0.0
    process: int | None = None


@dataclass(frozen=True)
class Pair:
    """Milliseconds of one request through the target and one directly to the upstream.

    The times to the first token are meaningful for streams only.
    """

    through_ms: float
    direct_ms: float
    through_first_ms: float
    direct_first_ms: float


@dataclass
class Sample:
    """The measurements of a slice.

    Attributes:
        slice: The slice.
        pairs: Times of a slice of kind ``pairs``.
        answered: Requests that the target answered in a slice of kind ``saturation``.
        seconds: Seconds from the first request to the last answer.
        errors: Requests (or pairs) that were not answered with 200 and a complete body.
        client_busy: Share of one core that this client used.
        target_cpu_s: CPU seconds of the target's processes (`_usage.Cpu`); None if not measured.
    """

    slice: Slice
    pairs: list[Pair] = field(default_factory=list)
    answered: int = 0
    seconds: float = 0.0
    errors: int = 0
    client_busy: float = 0.0
    target_cpu_s: float | None = None

    @property
    def cpu_ms(self) -> float | None:
        """CPU milliseconds of the target's processes for each request that it answered."""
        requests = self.answered + len(self.pairs)
        return 1e3 * self.target_cpu_s / requests if self.target_cpu_s and requests else None


class Load:
    """The load of a job: runs its slices."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._prompts = prompts(job.seed)
        self._rng = random.Random(job.seed)  # noqa: S311 - no secret

    async def run(self) -> list[Sample]:
        """Warm up, then run the slices one after another; return their samples."""
        if self._job.warm_up_s > 0:
            most = max(part.concurrency for part in self._job.slices)
            await self._measure(Slice("saturation", most, False, self._job.warm_up_s / 2))
            await self._measure(Slice("saturation", most, True, self._job.warm_up_s / 2))
        return [await self._measure(part) for part in self._job.slices]

    async def _measure(self, part: Slice) -> Sample:
        sample, job = Sample(part), self._job
        asked = (job.target, job.upstream) if part.kind == "pairs" else (job.target,)
        workers = [[Wire(endpoint) for endpoint in asked] for _ in range(part.concurrency)]
        everyone = [wire for wires in workers for wire in wires]
        # opens the connections before the clock starts
        first = [self._ask(wire, next(self._prompts), stream=part.stream) for wire in everyone]
        await asyncio.gather(*first)
        gc.collect()
        gc.disable()
        used = None if job.process is None else Cpu(job.process)
        cpu, begin = time.process_time(), time.perf_counter()
        until = begin + part.seconds
        await asyncio.gather(*(self._work(sample, wires, until) for wires in workers))
        # Until the last answer: the target is busy until then. A count at a fixed time would be
        # wrong by up to the number of requests in flight, which matters for a slow target.
        sample.seconds = time.perf_counter() - begin
        sample.client_busy = (time.process_time() - cpu) / sample.seconds
        sample.target_cpu_s = None if used is None else used.since()
        gc.enable()
        for wire in everyone:
            wire.close()
        return sample

    async def _ask(self, wire: Wire, prompt: str, *, stream: bool) -> Exchange | None:
        return await wire.ask(chat(wire.endpoint.model, prompt, stream=stream), stream=stream)

    async def _work(self, sample: Sample, wires: Sequence[Wire], until: float) -> None:
        while time.perf_counter() < until:
            prompt = next(self._prompts)
            done: dict[Wire, Exchange | None] = {}
            for wire in self._rng.sample(wires, len(wires)):
                done[wire] = await self._ask(wire, prompt, stream=sample.slice.stream)
            through, direct = done[wires[0]], done[wires[-1]]
            if through is None or direct is None:
                sample.errors += 1
                await asyncio.sleep(0.01)  # do not flood a target that refuses at once
            elif sample.slice.kind == "saturation":
                sample.answered += 1
            else:
                times = (through.total_s, direct.total_s, through.first_s, direct.first_s)
                sample.pairs.append(Pair(*(1e3 * seconds for seconds in times)))


def measure(job: Job) -> list[Sample]:
    """Run a job in a process of its own.

    Raises:
        BenchError: The process failed.
    """
    out, problem = spoken([sys.executable, "-m", "waypost.bench._client"], to_json(job))
    if problem:
        raise BenchError(f"the client failed:\n{problem}")
    found: list[Sample] = from_json(out, list[Sample])
    return found


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else asdict(value)


def to_json(value: Any) -> str:
    """Return dataclasses, such as a job or samples, as JSON."""
    return json.dumps(value, default=_plain)


def from_json(text: str | bytes, kind: Any) -> Any:
    """Read what `to_json` wrote of a kind, as ``Job`` or ``list[Sample]``."""
    return TypeAdapter(kind).validate_python(json.loads(text))


if __name__ == "__main__":
    sys.stdout.write(to_json(asyncio.run(Load(from_json(sys.stdin.read(), Job)).run())))
