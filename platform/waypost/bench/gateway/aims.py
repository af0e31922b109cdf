"""Ratios against LiteLLM in the same run, and what the project aims at: reached or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from waypost.bench.gateway.targets import DECISION, LITELLM

DECISION_MS = 1.0
INLINE_MS = 3.0
INLINE_TIMES = 10.0
DEPLOYMENTS_SHARE = 0.6
DEPLOYMENTS_TIMES = 4.0

Targets = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Aim:
    """One thing aimed at.

    Attributes:
        target: Of which target.
        aim: In words, with its bound.
        value: The figure reached; None where it was not measured.
        reached: None where it was not measured.
    """

    target: str
    aim: str
    value: float | None
    reached: bool | None


def added_ms(target: Mapping[str, Any], concurrency: int = 1, *, stream: bool = False) -> Any:
    """Return the median added p50 in milliseconds; None where it was not measured."""
    for entry in target.get("latency", ()):
        if (entry["concurrency"], entry["stream"]) == (concurrency, stream):
            return entry["added_ms"]["p50"]["median"] if "added_ms" in entry else None
    return None


def saturation(target: Mapping[str, Any], *, stream: bool = False) -> Any:
    """Return the most requests a second, over the concurrencies; None where not measured."""
    rates = [
        entry["requests_per_s"]["median"]
        for entry in target.get("throughput", ())
        if entry["stream"] == stream
    ]
    return max(rates, default=None)


def _over(value: float | None, other: float | None) -> float | None:
    return None if value is None or not other else value / other


def ratios(targets: Targets) -> list[dict[str, Any]]:
    """Return, for each Waypost target, its figures over LiteLLM's; null where one is missing.

    ``added_p50`` is that of whole answers at concurrency 1, ``added_p50_stream`` that of whole
    streams; ``throughput`` and ``throughput_stream`` are the saturations.
    """
    other = targets.get(LITELLM, {})
    return [
        {
            "target": name,
            "added_p50": _over(added_ms(target), added_ms(other)),
            "added_p50_stream": _over(added_ms(target, stream=True), added_ms(other, stream=True)),
            "throughput": _over(saturation(target), saturation(other)),
            "throughput_stream": _over(
                saturation(target, stream=True), saturation(other, stream=True)
            ),
        }
        for name, target in targets.items()
        if name != LITELLM
    ]


def aims(decision: Mapping[str, Any] | None, targets: Targets) -> list[dict[str, Any]]:
    """Return every `Aim` as plain data, for each mode that was measured."""
    over = {item["target"]: item for item in ratios(targets)}
    found: list[Aim] = []
    if decision is not None:
        value = decision["ms"]["p50"]["median"]
        found.append(_below(DECISION, "text to decision p50, ms", value, DECISION_MS))
    for name, target in targets.items():
        if name.startswith("inline"):
            found += [
                _below(name, "added p50, ms", added_ms(target), INLINE_MS),
                _at_least(name, "throughput / LiteLLM's", over[name]["throughput"], INLINE_TIMES),
            ]
        elif name.startswith("deployments"):
            share, times = over[name]["added_p50"], over[name]["throughput"]
            found += [
                _below(name, "added p50 / LiteLLM's", share, DEPLOYMENTS_SHARE),
                _at_least(name, "throughput / LiteLLM's", times, DEPLOYMENTS_TIMES),
            ]
    return [asdict(aim) for aim in found]


def _below(target: str, what: str, value: float | None, bound: float) -> Aim:
    reached = None if value is None else value <= bound
    return Aim(target, f"{what}, at most {bound:g}", value, reached)


def _at_least(target: str, what: str, value: float | None, bound: float) -> Aim:
    reached = None if value is None else value >= bound
    return Aim(target, f"{what}, at least {bound:g}", value, reached)
