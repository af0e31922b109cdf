"""Memory of a gateway's replica over very many requests, long prompts and bodies among them."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from waypost.bench import _usage
from waypost.bench._http1 import Wire
from waypost.bench._processes import upstream
from waypost.bench._targets import Scene, started
from waypost.bench._upstream import prompts
from waypost.bench.harness import (
    Aim,
    BenchError,
    Result,
    Table,
    Tell,
    at_most,
    figure,
)

TARGETS = ("inline/direct", "inline/serve")
"""Both ingresses of the gateway, with router and engine in its process."""

MOST_GROWTH = 1.05
"""Aim: memory in the last fifth of the requests over memory in the second."""

LONG_PROMPT = 300 * 1024
LONG_BODY = 4 * 1024 * 1024
"""Bytes; the body is the longest that the gateway takes by default (``limits.max_body_bytes``)."""

PROMPT_EVERY, BODY_EVERY = 100, 1000
"""One request in so many has a prompt of `LONG_PROMPT` or a body of `LONG_BODY`."""

WORKERS = 16
"""Requests in flight."""

_TURN = 64 * 1024
_SAMPLES = 100
_FILLER = "waypost "


@dataclass(frozen=True, slots=True)
class Held:
    """Memory of the replica after a number of requests, in MB (10^6 bytes)."""

    requests: int
    rss_mb: float
    pss_mb: float


def bodies(model: str, seed: int) -> Iterator[tuple[bytes, bool]]:
    """Yield bodies of chats without end, and whether each asks for a stream: every second does."""
    history = _history()
    long = _FILLER * (LONG_PROMPT // len(_FILLER))
    for number, prompt in enumerate(prompts(seed)):
        asked, before, of_its_kind = prompt, b"", number
        if number % BODY_EVERY == BODY_EVERY - 1:
            before, of_its_kind = history, number // BODY_EVERY
        elif number % PROMPT_EVERY == 0:
            asked, of_its_kind = f"{prompt} {long}", number // PROMPT_EVERY
        stream = of_its_kind % 2 == 1
        last = b'{"role":"user","content":"%s"}' % asked.encode()
        head = b'{"model":"%s","stream":%s,"messages":[' % (
            model.encode(),
            b"true" if stream else b"false",
        )
        body = head + before + last + b"]}"
        if before:  # white space up to the last byte allowed
            body += b" " * (LONG_BODY - len(body))
        yield body, stream


def _history() -> bytes:
    """Return the turns of a conversation that nearly fills a body of `LONG_BODY`."""
    text = (_FILLER * (_TURN // len(_FILLER))).encode()
    found: list[bytes] = []
    size = 0
    while size + len(text) < LONG_BODY - 2 * _TURN:
        role = (b"user", b"assistant")[len(found) % 2]
        found.append(b'{"role":"%s","content":"%s"},' % (role, text))
        size += len(found[-1])
    return b"".join(found)


def growth(held: Sequence[Held]) -> dict[str, dict[str, float]]:
    """Return what became of the memory, for ``rss`` and ``pss``.

    Returns:
        ``second_fifth_mb`` and ``last_fifth_mb``, means over a fifth of the samples; their
        ``ratio``, the last over the second; ``kb_per_1000``, the slope of a line through the
        samples behind the first fifth, in kB for 1,000 requests.

    Raises:
        BenchError: There are fewer than ten samples.
    """
    if len(held) < 10:
        raise BenchError(f"{len(held)} samples of memory are too few for fifths: at least 10")
    fifth = len(held) // 5
    found = {}
    for name in ("rss", "pss"):
        values = np.array([getattr(one, f"{name}_mb") for one in held])
        second, last = values[fifth : 2 * fifth].mean(), values[-fifth:].mean()
        thousands = np.array([one.requests for one in held[fifth:]]) / 1e3
        slope = np.polyfit(thousands - thousands.mean(), values[fifth:], 1)[0]
        found[name] = {
            "second_fifth_mb": float(second),
            "last_fifth_mb": float(last),
            "ratio": float(last / second),
            "kb_per_1000": float(1e3 * slope),
        }
    return found


def run(targets: Sequence[str], requests: int, artifact: Path, seed: int, tell: Tell) -> Result:
    """Send requests to each target; return the growth of its gateway's replica.

    Args:
        targets: Placements and modes of Waypost's graph.
        requests: Requests to each.
        artifact: Folder of the trained router.
        seed: Seed of the prompts.
        tell: Progress callbacks.

    Returns:
        Figures: ``soak``, of each target `growth` and ``errors``; ``held``, the memory as it was
        read, also of a target whose replica ended.
    """
    figures: dict[str, Any] = {}
    failed: dict[str, str] = {}
    histories: dict[str, list[dict[str, float]]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="waypost-bench-") as folder,
        upstream("--tokens", "64") as port,
    ):
        scene = Scene(port, artifact, Path(folder))
        for name in targets:
            tell(f"{requests:,} requests to {name}")
            held: list[Held] = []
            try:
                with started(name, scene) as (endpoint, process):
                    found = _usage.replicas(process, "Gateway")
                    if len(found) != 1:
                        raise BenchError(f"{len(found)} replicas of the gateway instead of one")
                    load = _Load(bodies(endpoint.model, seed), requests, found[0], held, tell)
                    errors = asyncio.run(load.run([Wire(endpoint) for _ in range(WORKERS)]))
                figures[name] = {"errors": errors, **growth(held)}
            except BenchError as error:
                failed[name] = f"after {held[-1].requests if held else 0:,} requests: {error}"
            histories[name] = [asdict(one) for one in held]
    facts = (
        f"{requests:,} requests to each target, {WORKERS} in flight, half of them streams; one in "
        f"{PROMPT_EVERY} has a prompt of 300 KiB, one in {BODY_EVERY} a body of 4 MiB. Memory of "
        f"the gateway's replica, read {_SAMPLES} times; slopes are over the last four fifths."
    )
    more = {"soak": figures, "held": histories}
    return Result(list(_tables(figures)), facts, list(_aims(figures)), more, failed)


class _Load:
    """Closed loops over one sequence of bodies, and the memory of a process meanwhile."""

    def __init__(
        self,
        asked: Iterator[tuple[bytes, bool]],
        requests: int,
        replica: int,
        held: list[Held],
        tell: Tell,
    ) -> None:
        self._asked, self._requests, self._replica = asked, requests, replica
        self._held, self._tell = held, tell
        self._sent = self._done = self._errors = 0

    async def run(self, wires: Sequence[Wire]) -> int:
        """Send all requests; return how many of them had no full answer."""
        try:
            await asyncio.gather(*map(self._work, wires))
        finally:
            for wire in wires:
                wire.close()
        return self._errors

    async def _work(self, wire: Wire) -> None:
        every = max(1, self._requests // _SAMPLES)
        while self._sent < self._requests:
            self._sent += 1
            body, stream = next(self._asked)
            if await wire.ask(body, stream=stream) is None:
                self._errors += 1
                await asyncio.sleep(0.01)
            self._done += 1
            if self._done % every == 0:
                try:
                    now = _usage.memory(self._replica)
                except OSError:
                    raise BenchError("the gateway's replica ended") from None
                self._held.append(Held(self._done, now.rss_mb, now.pss_mb))
                self._tell.bar(self._done, self._requests, "requests")


def _tables(figures: dict[str, Any]) -> Iterator[Table]:
    heads = ("target", "", "second fifth, MB", "last fifth, MB", "ratio", "kB for 1,000 requests")
    rows = [
        [
            *(target, name.upper(), figure(one["second_fifth_mb"]), figure(one["last_fifth_mb"])),
            *(f"{one['ratio']:.3f}", f"{one['kb_per_1000']:+.1f}"),
        ]
        for target, found in figures.items()
        for name, one in ((name, found[name]) for name in ("rss", "pss"))
    ]
    if rows:
        yield Table("Memory of the gateway's replica", heads, rows)


def _aims(figures: dict[str, Any]) -> Iterator[Aim]:
    for target, found in figures.items():
        for name in ("rss", "pss"):
            what = f"{target}: {name.upper()}, last fifth / second fifth"
            yield at_most(what, found[name]["ratio"], MOST_GROWTH)
        yield at_most(f"{target}: requests without a full answer", float(found["errors"]), 0)
