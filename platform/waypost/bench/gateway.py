"""Measure the latency that the gateway adds, beside LiteLLM's proxy and a bare forwarder.

Each target runs between one client and one local upstream that answers at once. Added latency is
the latency of a request through the target less that of a request directly to the upstream, sent in
turn by the same worker. The forwarder (uvicorn, uvloop, httptools, aiohttp, one worker) passes
requests on and decides nothing: the bound of a gateway in Python. LiteLLM is installed into its
own environment in Waypost's cache. All targets together take a quarter of an hour.

Example: waypost bench gateway --quick --target inline --target litellm --out out.json
"""

from __future__ import annotations

import gc
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import DirectoryPath, Field

from waypost.bench import _targets, harness
from waypost.bench._client import Endpoint, Job, Pair, Sample, Slice
from waypost.bench._processes import measure, upstream
from waypost.bench._targets import DECISION, FORWARDER, LITELLM, Scene, chosen, started
from waypost.bench._upstream import prompts
from waypost.bench.harness import (
    Aim,
    BenchError,
    Result,
    Table,
    Tell,
    at_least,
    at_most,
    figure,
    milliseconds,
    over_rounds,
    spread,
    with_range,
)
from waypost.config import resolve_path
from waypost.loading import load_router

ARTIFACT = "serve_configs/starter/artifact"
DIRECT = "direct"
"""The upstream without a gateway: the upper bound that client and upstream set."""

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
        description="inline or deployments, each also with /direct, /serve or /haproxy; "
        "litellm; forwarder; decision. May be given many times.  [default: all]",
    )
    artifact: DirectoryPath | None = Field(
        None,
        description=f"Artifact of the router.  [default: {ARTIFACT}]",
    )
    tokens: int = Field(64, ge=1, description="Tokens of every answer.")
    passes: int = Field(2, ge=1, description="How often every target is started and measured.")
    seed: int = Field(0, ge=0, description="Seed of the prompts and of the order of measurements.")
    rounds: int = 2
    seconds: float = 2.0
    concurrency: tuple[int, ...] = (1, 8, 32, 64)
    saturation: tuple[int, ...] = (32, 64)
    decisions: int = 1000


QUICK = {"passes": 1, "rounds": 1, "seconds": 0.5, "decisions": 300}


def run(options: Options, tell: Tell) -> Result:
    """Measure every target against one upstream, pass after pass, in random order.

    Returns:
        Figures: ``decision``, ``direct`` (the upstream alone), ``targets`` (see `summary`),
        ``ratios`` (see `ratios`), ``ratios_forwarder`` (the same over the forwarder).

    Raises:
        ConfigError: A target is unknown.
        BenchError: The upstream or the client fails.
        ArtifactError, WeightsError: The router cannot be loaded.
    """
    targets = chosen(options.target)
    artifact = options.artifact or resolve_path(ARTIFACT)
    decision = _decision(artifact, options, tell) if DECISION in targets else None
    samples: dict[str, list[Sample]] = {}
    failed: dict[str, str] = {}
    servers = [name for name in targets if name != DECISION]
    if LITELLM in servers:
        try:
            _targets.litellm_environment(tell)
        except BenchError as error:
            failed[LITELLM] = str(error)
    with (
        tempfile.TemporaryDirectory(prefix="waypost-bench-") as folder,
        upstream("--tokens", str(options.tokens)) as port,
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
    direct = summary(samples.pop(DIRECT, []))["throughput"]
    found = {name: summary(samples[name]) for name in servers if samples.get(name)}
    figures = {
        "decision": decision,
        DIRECT: direct,
        "targets": found,
        "ratios": ratios(found),
        "ratios_forwarder": ratios(found, FORWARDER),
        "litellm": _litellm(),
    }
    return result(figures, options, failed)


def result(figures: Mapping[str, Any], options: Options, failed: Mapping[str, str]) -> Result:
    """Return the result of these figures."""
    aimed = aims(figures["decision"], figures["targets"])
    return Result(list(_tables(figures, options)), _facts(figures, options), aimed, figures, failed)


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


def _one(name: str, scene: Scene, options: Options, order: random.Random) -> list[Sample]:
    """Measure one target for one pass; the upstream alone is measured at saturation only."""
    there = Endpoint(scene.upstream, "echo")
    parts = slices(options, order)
    if name == DIRECT:
        loaded = tuple(part for part in parts if part.kind == "saturation")
        return measure(Job(there, there, loaded, order.randrange(2**32)))
    with started(name, scene) as target:
        return measure(Job(target, there, parts, order.randrange(2**32), 4 * options.seconds))


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


def _litellm() -> str | None:
    try:
        return _targets.litellm_version(resolve_path(_targets.LOCK))
    except BenchError:
        return None


# -- figures --------------------------------------------------------------------------------------


def latency(rounds: Sequence[Sequence[Pair]], *, stream: bool) -> dict[str, Any]:
    """Return the latencies of rounds of pairs.

    ``added_ms`` is ``through_ms`` minus ``direct_ms`` of each pair. Streams also have
    ``added_first_ms``, the same for the time to the first token.
    """
    found: dict[str, Any] = {
        "pairs": sum(map(len, rounds)),
        "added_ms": over_rounds([[p.through_ms - p.direct_ms for p in one] for one in rounds]),
        "through_ms": over_rounds([[p.through_ms for p in one] for one in rounds]),
        "direct_ms": over_rounds([[p.direct_ms for p in one] for one in rounds]),
    }
    if stream:
        firsts = [[p.through_first_ms - p.direct_first_ms for p in one] for one in rounds]
        found["added_first_ms"] = over_rounds(firsts)
    return found


def summary(samples: Sequence[Sample]) -> dict[str, list[dict[str, Any]]]:
    """Return ``latency`` and ``throughput`` of one target, with one entry for each kind of slice.

    A kind of pairs without any answer has ``errors`` but no latencies.
    """
    by_slice: Mapping[Slice, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_slice[sample.slice].append(sample)
    found: dict[str, list[dict[str, Any]]] = {"latency": [], "throughput": []}
    for part in sorted(by_slice, key=lambda part: (part.stream, part.concurrency)):
        rounds = by_slice[part]
        entry: dict[str, Any] = {
            "concurrency": part.concurrency,
            "stream": part.stream,
            "rounds": len(rounds),
            "errors": sum(sample.errors for sample in rounds),
            "client_busy": max(sample.client_busy for sample in rounds),
        }
        if part.kind == "pairs":
            if with_pairs := [sample.pairs for sample in rounds if sample.pairs]:
                entry |= latency(with_pairs, stream=part.stream)
            found["latency"].append(entry)
        else:
            rates = [sample.answered / sample.seconds for sample in rounds]
            found["throughput"].append(entry | {"requests_per_s": spread(rates)})
    return found


Target = Mapping[str, Any]


def _added_p50(target: Target, *, stream: bool) -> float | None:
    """Return the median added p50 in milliseconds at 1 in flight."""
    for entry in target.get("latency", ()):
        if (entry["concurrency"], entry["stream"]) == (1, stream) and "added_ms" in entry:
            return float(entry["added_ms"]["p50"]["median"])
    return None


def _saturation(target: Target, *, stream: bool) -> float | None:
    """Return the highest number of requests per second over the concurrencies."""
    entries = [one for one in target.get("throughput", ()) if one["stream"] == stream]
    return max((one["requests_per_s"]["median"] for one in entries), default=None)


RATIOS = {
    "added_p50": ("added p50", _added_p50, False),
    "added_p50_stream": ("added p50, streams", _added_p50, True),
    "throughput": ("throughput", _saturation, False),
    "throughput_stream": ("throughput, streams", _saturation, True),
}
"""Ratio to another target -> head, function, whether it is for streams."""

PEERS = (LITELLM, FORWARDER)


def ratios(
    targets: Mapping[str, Target], peer: str = LITELLM
) -> dict[str, dict[str, float | None]]:
    """Return `RATIOS` of each Waypost target to a peer; None where a figure is missing."""
    other = targets.get(peer, {})

    def over(target: Target, key: str) -> float | None:
        _, of, stream = RATIOS[key]
        ours, theirs = of(target, stream=stream), of(other, stream=stream)
        return None if ours is None or not theirs else ours / theirs

    return {
        name: {key: over(target, key) for key in RATIOS}
        for name, target in targets.items()
        if name not in PEERS
    }


def aims(decision: Mapping[str, Any] | None, targets: Mapping[str, Target]) -> list[Aim]:
    """Compare the figures with the project's aims, for each measured mode."""
    found: list[Aim] = []
    if decision is not None:
        value = decision["ms"]["p50"]["median"]
        found.append(at_most(f"{DECISION}: text to decision p50, ms", value, 1))
    bare = ratios(targets, FORWARDER)
    for name, over in ratios(targets).items():
        if name == "inline/direct" and FORWARDER in targets:
            of = f"{name}: %s / the forwarder's"
            found.append(at_most(of % "added p50", bare[name]["added_p50"], 3))
            found.append(at_least(of % "throughput", bare[name]["throughput"], 0.4))
            found.append(at_least(of % "streams", bare[name]["throughput_stream"], 0.4))
        times = f"{name}: throughput / LiteLLM's"
        if name.startswith("inline"):
            added = _added_p50(targets[name], stream=False)
            found.append(at_most(f"{name}: added p50, ms", added, 3))
            found.append(at_least(times, over["throughput"], 10))
        else:
            found.append(at_most(f"{name}: added p50 / LiteLLM's", over["added_p50"], 0.6))
            found.append(at_least(times, over["throughput"], 4))
    return found


# -- tables ---------------------------------------------------------------------------------------


def _facts(figures: Mapping[str, Any], options: Options) -> str:
    decision, told = figures["decision"], ""
    if decision is not None:
        p50, p99 = (with_range(decision["ms"][key]) for key in ("p50", "p99"))
        told = f"Text to decision: p50 {p50} ms, p99 {p99} ms ({decision['count']} texts). "
    return (
        f"{told}LiteLLM {figures['litellm']}; answers of {options.tokens} tokens; seed "
        f"{options.seed}, {options.passes} passes of {options.rounds} rounds of "
        f"{options.seconds:g} s; figures are medians of the rounds, ranges in brackets."
    )


def _tables(figures: Mapping[str, Any], options: Options) -> Iterator[Table]:
    targets = figures["targets"]
    if not targets:
        return
    heads = ("target", *(f"{step} in flight" for step in options.concurrency))
    for title, key, stream in (
        ("Whole answers", "added_ms", False),
        ("Streams, to the first token", "added_first_ms", True),
        ("Streams, to the end", "added_ms", True),
    ):
        rows = []
        for name, target in targets.items():
            by_step = {e["concurrency"]: e for e in target["latency"] if e["stream"] == stream}
            cells = [_cell(by_step.get(step, {}), key) for step in options.concurrency]
            rows.append([name, *cells])
        yield Table(f"{title}: added ms, p50 [range] / p95 / p99", heads, rows)
    cases = [(stream, step) for stream in (False, True) for step in options.saturation]
    names = [f"{'streams' if stream else 'whole'}, {step} in flight" for stream, step in cases]
    everyone = {**targets, "the upstream alone": {"throughput": figures[DIRECT]}}
    rows = []
    for name, target in everyone.items():
        by_case = {(e["stream"], e["concurrency"]): e for e in target["throughput"]}
        rows.append([name, *(_cell(by_case.get(case, {}), "requests_per_s") for case in cases)])
    yield Table("Throughput: answers a second [range]", ("target", *names), rows)
    for peer, whose, key in (
        (LITELLM, "LiteLLM's", "ratios"),
        (FORWARDER, "the bare forwarder's", "ratios_forwarder"),
    ):
        if peer not in targets or not figures[key]:
            continue
        title = f"Over {whose}: added latency at 1 in flight (less is better), throughput (more is)"
        rows = [
            [name, *("-" if value is None else f"{value:.2f} x" for value in over.values())]
            for name, over in figures[key].items()
        ]
        yield Table(title, ("target", *(head for head, _, _ in RATIOS.values())), rows)


def _cell(entry: Mapping[str, Any], key: str) -> str:
    """Return percentiles of rounds, or one figure, as text with the number of failed requests."""
    if key not in entry:
        return "-"
    errors = f" ({entry['errors']} errors)" if entry["errors"] else ""
    found = entry[key]
    if "p50" not in found:
        return with_range(found) + errors
    rest = " / ".join(figure(found[p]["median"]) for p in ("p95", "p99"))
    return f"{with_range(found['p50'])} / {rest}{errors}"
