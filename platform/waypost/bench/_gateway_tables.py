"""From the samples of the gateway bench to its figures, ratios, aims and tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from waypost.bench._client import Pair, Sample, Slice
from waypost.bench._targets import DECISION, FORWARDER, LITELLM, OLD, OTHERS, PORTKEY
from waypost.bench.harness import (
    Aim,
    Table,
    at_least,
    at_most,
    figure,
    over_rounds,
    spread,
    with_range,
)

CONCURRENCY = (1, 64)
"""In flight: alone, and at saturation."""

Target = Mapping[str, Any]
"""The `summary` of a target."""

NAMES = {FORWARDER: "the forwarder", PORTKEY: "Portkey", LITELLM: "LiteLLM"}


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

    A kind of pairs without any answer has ``errors`` but no latencies. ``cpu_ms`` is the CPU time
    of the target's processes for each answer, where it was measured.
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
        if costs := [sample.cpu_ms for sample in rounds if sample.cpu_ms is not None]:
            entry["cpu_ms"] = spread(costs)
        if part.kind == "pairs":
            if with_pairs := [sample.pairs for sample in rounds if sample.pairs]:
                entry |= latency(with_pairs, stream=part.stream)
            found["latency"].append(entry)
        else:
            rates = [sample.answered / sample.seconds for sample in rounds]
            found["throughput"].append(entry | {"requests_per_s": spread(rates)})
    return found


# -- ratios and aims ------------------------------------------------------------------------------


def added_p50(target: Target, *, stream: bool) -> float | None:
    """Return the median added p50 in milliseconds at 1 in flight; None if not measured."""
    found = _entry(target, "latency", stream, 1).get("added_ms")
    return None if found is None else float(found["p50"]["median"])


def throughput(target: Target, *, stream: bool) -> float | None:
    """Return the most answers a second over the concurrencies; None if not measured."""
    entries = [one for one in target.get("throughput", ()) if one["stream"] == stream]
    return max((one["requests_per_s"]["median"] for one in entries), default=None)


def cpu_ms(target: Target, *, stream: bool) -> float | None:
    """Return the CPU milliseconds an answer at the highest throughput; None if not measured."""
    entries = [one for one in target.get("throughput", ()) if one["stream"] == stream]
    best = sorted(entries, key=lambda one: float(one["requests_per_s"]["median"]))[-1:]
    return next((float(one["cpu_ms"]["median"]) for one in best if "cpu_ms" in one), None)


RATIOS: dict[str, tuple[str, Callable[..., float | None], bool]] = {
    "added_p50": ("added p50, 1 in flight", added_p50, False),
    "added_p50_stream": ("the same, streams", added_p50, True),
    "throughput": ("answers a second", throughput, False),
    "throughput_stream": ("the same, streams", throughput, True),
    "cpu": ("CPU an answer", cpu_ms, False),
    "cpu_stream": ("the same, streams", cpu_ms, True),
}
"""Key of a ratio -> head of its column, figure, whether it is that of streams."""


def over_others(
    targets: Mapping[str, Target],
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return `RATIOS` of each of Waypost's targets over each other measured one.

    Returns:
        Other -> target -> key of the ratio -> ratio; None where a figure is missing.
    """

    def over(ours: Target, theirs: Target, key: str) -> float | None:
        _, of, stream = RATIOS[key]
        mine, other = of(ours, stream=stream), of(theirs, stream=stream)
        return None if mine is None or not other else mine / other

    ours = {name: target for name, target in targets.items() if name not in OTHERS}
    return {
        other: {
            name: {key: over(target, targets[other], key) for key in RATIOS}
            for name, target in ours.items()
        }
        for other in OTHERS
        if other in targets and ours
    }


def aims(decision: Mapping[str, Any] | None, targets: Mapping[str, Target]) -> list[Aim]:
    """Compare the figures with the project's aims, for each measured part of an aim.

    Those of the gateway's own server, all at once: .4 of the bare forwarder's throughput and three
    times its added latency; above Portkey in both; 15 times LiteLLM's throughput; three tenths of
    the old build's CPU. LLMs as deployments: Portkey's throughput.
    """
    found: list[Aim] = []
    if decision is not None:
        value = decision["ms"]["p50"]["median"]
        found.append(at_most(f"{DECISION}: text to decision p50, ms", value, 1))
    over = over_others(targets)

    def aim(
        name: str, key: str, what: str, other: str, bound: Callable[..., Aim], least: float
    ) -> None:
        if name in targets and other in targets:
            whose = NAMES.get(other, other)
            found.append(bound(f"{name}: {what} / {whose}'s", over[other][name][key], least))

    inside, outside = "inline/direct", "deployments/direct"
    aim(inside, "throughput", "throughput", FORWARDER, at_least, 0.4)
    aim(inside, "added_p50", "added p50", FORWARDER, at_most, 3)
    aim(inside, "throughput_stream", "streams", FORWARDER, at_least, 0.4)
    aim(inside, "throughput", "throughput", PORTKEY, at_least, 1)
    aim(inside, "added_p50", "added p50", PORTKEY, at_most, 1)
    aim(outside, "throughput", "throughput", PORTKEY, at_least, 1)
    aim(inside, "throughput", "throughput", LITELLM, at_least, 15)
    for old in OLD:
        aim(inside, "cpu", "CPU a whole answer", old, at_most, 0.3)
    return found


# -- tables ---------------------------------------------------------------------------------------


def tables(
    targets: Mapping[str, Target], alone: Sequence[Mapping[str, Any]], steps: Sequence[int]
) -> Iterator[Table]:
    """Yield a table of whole answers, one of streams, and one of ratios for each other target.

    Args:
        targets: Summaries by name.
        alone: ``throughput`` of the upstream without a gateway.
        steps: Concurrencies of the latencies.
    """
    if not targets:
        return
    for title, stream in (("Whole answers", False), ("Streams", True)):
        yield Table(title, *_measured(targets, alone, steps, stream=stream))
    for other, found in over_others(targets).items():
        rows = [
            [name, *("-" if value is None else f"{value:.2f} x" for value in ratios.values())]
            for name, ratios in found.items()
        ]
        heads = ("target", *(head for head, _, _ in RATIOS.values()))
        yield Table(f"Over those of {NAMES.get(other, other)}", heads, rows)


def _measured(
    targets: Mapping[str, Target],
    alone: Sequence[Mapping[str, Any]],
    steps: Sequence[int],
    *,
    stream: bool,
) -> tuple[list[str], list[list[str]]]:
    """Return the heads and rows of the table of whole answers or of streams."""
    loads = [one["concurrency"] for one in alone if one["stream"] == stream]
    heads = ["target"]
    for step in steps:
        heads.append(f"added ms, {step} in flight: p50 / p99")
        if stream:
            heads.append(f"to the first token, {step}")
    for load in loads:
        heads += [f"answers a second, {load} in flight", f"CPU ms an answer, {load}"]
    rows = []
    for name, target in targets.items():
        row = [name]
        for step in steps:
            entry = _entry(target, "latency", stream, step)
            row.append(_cell(entry, "added_ms"))
            if stream:
                row.append(_cell(entry, "added_first_ms"))
        for load in loads:
            entry = _entry(target, "throughput", stream, load)
            row += [_cell(entry, "requests_per_s"), _cell(entry | {"errors": 0}, "cpu_ms")]
        rows.append(row)
    blank = ["-"] * (len(steps) * (2 if stream else 1))
    rates = [_entry({"throughput": alone}, "throughput", stream, load) for load in loads]
    cells = [cell for entry in rates for cell in (_cell(entry, "requests_per_s"), "-")]
    return heads, [*rows, ["the upstream alone", *blank, *cells]]


def _entry(target: Target, kind: str, stream: bool, step: int) -> dict[str, Any]:
    """Return the entry of a kind of slice; an empty one if it was not measured."""
    for entry in target.get(kind, ()):
        if (entry["stream"], entry["concurrency"]) == (stream, step):
            return dict(entry)
    return {}


def _cell(entry: Mapping[str, Any], key: str) -> str:
    """Return percentiles of rounds, or one figure, as text with the number of failed requests."""
    if key not in entry:
        return "-"
    errors = f" ({entry['errors']} errors)" if entry["errors"] else ""
    found = entry[key]
    if "p50" not in found:
        return with_range(found) + errors
    return f"{with_range(found['p50'])} / {figure(found['p99']['median'])}{errors}"
