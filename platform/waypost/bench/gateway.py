"""Measure the latency that the gateway adds, beside other gateways and an old build of Waypost.

Each target runs between one client and one local upstream that answers at once. Added latency is
the latency of a request through the target less that of a request directly to the upstream, sent in
turn by the same worker; CPU is that of all processes of the target that see requests. The forwarder
(uvicorn, uvloop, httptools, aiohttp, one worker) passes requests on and decides nothing: the bound
of a gateway in Python. LiteLLM, Portkey's gateway and the old build are installed into Waypost's
cache the first time. All targets together take ten minutes.

With --soak, the memory of the gateway's replica over so many requests is measured instead.

Example: waypost bench gateway --quick --target inline --target litellm --out out.json
"""

from __future__ import annotations

import gc
import random
import tempfile
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import DirectoryPath, Field

from waypost.bench import _peers, _soak, harness
from waypost.bench._client import Sample, Slice
from waypost.bench._gateway_tables import CONCURRENCY, aims, over_others, summary, tables
from waypost.bench._targets import ARTIFACT, DECISION, WAYPOST, chosen
from waypost.bench._turn import DIRECT, Turn, taken
from waypost.bench._upstream import prompts
from waypost.bench.harness import BenchError, Result, Tell, milliseconds, over_rounds, with_range
from waypost.config import resolve_path
from waypost.contracts.errors import ConfigError, Fault
from waypost.loading import load_router

_WARM_UP = 50


class Options(harness.Options):
    """Options of ``waypost bench gateway``.

    Attributes:
        rounds: Measurements of every slice in a pass.
        seconds: Seconds of a slice.
        concurrency: Concurrencies for latency.
        saturation: Concurrencies for throughput.
        decisions: Texts routed in a round.
    """

    target: tuple[str, ...] = Field(
        (),
        description="inline or deployments, each also with /direct, /serve or /haproxy; forwarder; "
        "portkey; litellm; old, also with /serve or /haproxy; decision. May be given many times.  "
        "[default: all; with --soak inline/direct and inline/serve]",
    )
    artifact: DirectoryPath | None = Field(
        None,
        description=f"Artifact of the router.  [default: {ARTIFACT}]",
    )
    tokens: int = Field(64, ge=1, description="Tokens of every answer.")
    passes: int = Field(1, ge=1, description="How often every target is started and measured.")
    seed: int = Field(0, ge=0, description="Seed of the prompts and of the order of measurements.")
    soak: int | None = Field(
        None, ge=1000, description="Measure memory over so many requests to each target instead."
    )
    rounds: int = 2
    seconds: float = 1.5
    concurrency: tuple[int, ...] = CONCURRENCY
    saturation: tuple[int, ...] = CONCURRENCY[-1:]
    decisions: int = 1000


QUICK = {"passes": 1, "rounds": 1, "seconds": 0.5, "decisions": 300}


def run(options: Options, tell: Tell) -> Result:
    """Measure every target against an upstream, pass after pass, in random order.

    Returns:
        Figures: ``decision``, ``direct`` (the upstream alone), ``targets`` (see
        `_gateway_tables.summary`), ``over`` (see `_gateway_tables.over_others`), ``versions``. With
        ``soak`` those of `_soak.run`.

    Raises:
        ConfigError: A target is unknown, or cannot be soaked.
        BenchError: The upstream or the client fails.
        ArtifactError, WeightsError: The router cannot be loaded.
    """
    targets = chosen(options.target)
    artifact = options.artifact or resolve_path(ARTIFACT)
    if options.soak is not None:
        soaked = targets if options.target else _soak.TARGETS
        if strange := [name for name in soaked if name not in WAYPOST]:
            told = f"with --soak only targets of Waypost, such as {WAYPOST[0]}; not {strange[0]}"
            raise ConfigError([Fault("--target", told)])
        return _soak.run(soaked, options.soak, artifact, options.seed, tell)
    decision = _decision(artifact, options, tell) if DECISION in targets else None
    servers = [name for name in targets if name != DECISION]
    failed: dict[str, str] = {}
    for peer, install in _peers.PEERS.items():
        of_it = [name for name in servers if name.partition("/")[0] == peer]
        try:
            _ = of_it and install(tell)
        except BenchError as error:
            failed |= dict.fromkeys(of_it, str(error))
    samples: dict[str, list[Sample]] = {}
    with tempfile.TemporaryDirectory(prefix="waypost-bench-") as folder:
        for number in range(options.passes):
            order = random.Random(options.seed + number)  # noqa: S311 - no secret
            drawn = order.sample(servers, len(servers))
            for name in [DIRECT, *drawn] if servers else []:
                if name in failed:
                    continue
                tell(f"pass {number + 1} of {options.passes}: {name}")
                try:
                    found = taken(_turn(name, artifact, Path(folder), options, order))
                    samples.setdefault(name, []).extend(found)
                except BenchError as error:
                    failed[name] = str(error)
    alone = summary(samples.pop(DIRECT, []))["throughput"]
    measured = {name: summary(samples[name]) for name in servers if samples.get(name)}
    figures = {
        "decision": decision,
        DIRECT: alone,
        "targets": measured,
        "over": over_others(measured),
        "versions": _peers.versions(),
    }
    return result(figures, options, failed)


def result(figures: Mapping[str, Any], options: Options, failed: Mapping[str, str]) -> Result:
    """Return the result of these figures."""
    aimed = aims(figures["decision"], figures["targets"])
    shown = list(tables(figures["targets"], figures[DIRECT], options.concurrency))
    missing = "".join(f" {name} was not measured: {why}." for name, why in failed.items())
    facts = _facts(figures, options) + " ".join(missing.split("\n"))
    return Result(shown, facts, aimed, figures, failed)


def _decision(artifact: Path, options: Options, tell: Tell) -> dict[str, Any]:
    """Time routing decisions, embedding included, in this process, on different texts."""
    tell("deciding in this process")
    rounds, count = options.passes * options.rounds, options.decisions
    router = load_router(artifact)
    texts = list(islice(prompts(options.seed), _WARM_UP + rounds * count))
    for text in texts[:_WARM_UP]:
        router.route_single(text)
    gc.collect()
    times = milliseconds(lambda i: router.route_single(texts[_WARM_UP + i]), rounds * count, 0)
    each = [times[i * count : (i + 1) * count] for i in range(rounds)]
    return {"count": len(times), "ms": over_rounds(each)}


def _turn(name: str, artifact: Path, folder: Path, options: Options, order: random.Random) -> Turn:
    """Return one pass over one target; the upstream alone is measured at saturation only."""
    parts, seconds = slices(options, order), 2 * options.seconds
    if name == DIRECT:
        parts, seconds = tuple(part for part in parts if part.kind == "saturation"), 0.0
    seed = order.randrange(2**32)
    return Turn(name, artifact.absolute(), folder, options.tokens, parts, seed, seconds)


def slices(options: Options, order: random.Random) -> tuple[Slice, ...]:
    """Return the slices of one pass: every round has each kind once, in random order."""
    kinds = [
        part
        for stream in (False, True)
        for part in (
            *(Slice("pairs", step, stream, options.seconds) for step in options.concurrency),
            *(Slice("saturation", step, stream, options.seconds) for step in options.saturation),
        )
    ]
    return tuple(part for _ in range(options.rounds) for part in order.sample(kinds, len(kinds)))


def _facts(figures: Mapping[str, Any], options: Options) -> str:
    decision, told = figures["decision"], ""
    if decision is not None:
        p50, p99 = (with_range(decision["ms"][key]) for key in ("p50", "p99"))
        told = f"Text to decision: p50 {p50} ms, p99 {p99} ms ({decision['count']} texts). "
    named = "".join(f"{name} {of}; " for name, of in figures["versions"].items())
    return (
        f"{told}{named}answers of {options.tokens} tokens; seed {options.seed}, {options.passes} "
        f"passes of {options.rounds} rounds of {options.seconds:g} s; figures are medians of the "
        "rounds, ranges in brackets."
    )
