"""The whole measurement: every target against one upstream, pass after pass, in a drawn order."""

from __future__ import annotations

import os
import platform
import random
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from waypost import __version__
from waypost.bench.gateway import litellm
from waypost.bench.gateway.aims import aims, ratios
from waypost.bench.gateway.decision import rounds_of
from waypost.bench.gateway.figures import percentiles, summary
from waypost.bench.gateway.load import Endpoint, Job, Sample, Slice
from waypost.bench.gateway.processes import BenchError, measure, upstream
from waypost.bench.gateway.targets import DECISION, LITELLM, Scene, started
from waypost.config import resolve_path

FORMAT = "waypost-bench-gateway/1"
ARTIFACT = "serve_configs/starter/artifact"
DIRECT = "direct"
"""The upstream alone: what client and upstream could do if no gateway were between them."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How much is measured.

    Attributes:
        seed: Of prompts and of every order.
        passes: How often every target is started and measured.
        rounds: How often in a pass every slice is measured.
        seconds: Length of a slice.
        tokens: Of every answer.
        concurrency: Of the pairs.
        saturation: Concurrency of the throughput.
        decisions: Texts decided in a round.
    """

    seed: int = 0
    passes: int = 2
    rounds: int = 2
    seconds: float = 2.0
    tokens: int = 64
    concurrency: tuple[int, ...] = (1, 8, 32, 64)
    saturation: tuple[int, ...] = (32, 64)
    decisions: int = 1000


QUICK = Options(passes=1, rounds=1, seconds=0.5, decisions=300)


def run(
    targets: tuple[str, ...], options: Options, artifact: Path | None, tell: Tell
) -> dict[str, Any]:
    """Measure.

    Args:
        targets: Names of `targets.ALL`.
        options: How much.
        artifact: The trained router of the Waypost targets; None is the shipped one.
        tell: Called with a line for each step.

    Returns:
        JSON-able data: ``format``, ``machine``, ``options``, ``decision``, ``direct`` (the
        upstream alone), ``targets`` (see `figures.summary`), ``ratios`` and ``aims``, and
        ``failed``: target -> why it was not measured to the end.

    Raises:
        BenchError: the upstream or the client fails.
        ArtifactError, WeightsError: the router cannot be had.
    """
    artifact = resolve_path(ARTIFACT) if artifact is None else artifact
    decision = _decision(artifact, options, tell) if DECISION in targets else None
    samples: dict[str, list[Sample]] = {}
    failed: dict[str, str] = {}
    servers = [name for name in targets if name != DECISION]
    if LITELLM in servers:
        _prepare(litellm.environment, tell, failed)
    with (
        tempfile.TemporaryDirectory(prefix="waypost-bench-") as folder,
        upstream(options.tokens) as port,
    ):
        scene = Scene(port, artifact, Path(folder))
        for number in range(options.passes):
            order = random.Random(options.seed + number)  # noqa: S311 - no secret
            drawn = order.sample(servers, len(servers))
            for name in [DIRECT, *drawn] if servers else []:
                if name in failed:
                    continue
                tell(f"pass {number + 1} of {options.passes}: {name}")
                try:
                    samples.setdefault(name, []).extend(_one(name, scene, options, order))
                except BenchError as error:
                    failed[name] = str(error)
                    tell(f"{name} failed: {error}")
    direct = summary(samples.pop(DIRECT, []))["throughput"]
    found = {name: summary(samples[name]) for name in servers if samples.get(name)}
    return {
        "format": FORMAT,
        "machine": machine(),
        "options": {**asdict(options), "artifact": artifact.name, "targets": list(targets)},
        "decision": decision,
        DIRECT: direct,
        "targets": found,
        "ratios": ratios(found),
        "aims": aims(decision, found),
        "failed": failed,
    }


def _prepare(make: Callable[[Tell], Path], tell: Tell, failed: dict[str, str]) -> None:
    try:
        make(tell)
    except BenchError as error:
        failed[LITELLM] = str(error)
        tell(f"{LITELLM} failed: {error}")


def _decision(artifact: Path, options: Options, tell: Tell) -> dict[str, Any]:
    tell("deciding in this process")
    rounds = options.passes * options.rounds
    times = rounds_of(artifact, rounds, options.decisions, options.seed)
    return {"count": sum(map(len, times)), "ms": percentiles(times)}


def _one(name: str, scene: Scene, options: Options, order: random.Random) -> list[Sample]:
    """Measure one target for one pass; the upstream alone is measured at saturation only."""
    there = Endpoint(scene.upstream, "echo")
    parts = slices(options, order)
    if name == DIRECT:
        loaded = tuple(part for part in parts if part.kind == "saturation")
        return measure(Job(there, there, loaded, order.randrange(2**32)))
    with started(name, scene) as target:
        warm_up_s = 4 * options.seconds
        return measure(Job(target, there, parts, order.randrange(2**32), warm_up_s))


def slices(options: Options, order: random.Random) -> tuple[Slice, ...]:
    """Return the slices of one pass: every round holds each kind once, in an order of its own."""
    seconds = options.seconds
    kinds = [
        Slice("pairs", concurrency, stream, seconds)
        for stream in (False, True)
        for concurrency in options.concurrency
    ] + [
        Slice("saturation", concurrency, stream, seconds)
        for stream in (False, True)
        for concurrency in options.saturation
    ]
    return tuple(part for _ in range(options.rounds) for part in order.sample(kinds, len(kinds)))


def machine() -> dict[str, Any]:
    """Return what the figures depend on, as far as it can be told without naming the machine."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "waypost": __version__,
        "ray": _version("ray"),
        "litellm": _litellm(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _litellm() -> str | None:
    try:
        return litellm.version(resolve_path(litellm.LOCK))
    except BenchError:
        return None
