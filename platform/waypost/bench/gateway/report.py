"""The result of a run as tables, which are Markdown, so that they can be kept as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from waypost.bench.gateway.targets import LITELLM

Result = Mapping[str, Any]


def render(result: Result, console: Any) -> None:
    """Print a result of `run.run`.

    Args:
        result: What it returned.
        console: A ``rich.console.Console``.
    """
    _introduce(result, console)
    if result["targets"]:
        _latency(result, console, "Whole answers", "added_ms", stream=False)
        _latency(result, console, "Streams, to the first token", "added_first_ms", stream=True)
        _latency(result, console, "Streams, to the end", "added_ms", stream=True)
        _throughput(result, console)
    _ratios(result, console)
    _aims(result, console)
    for name, problem in result["failed"].items():
        console.print(f"{name} was not measured to the end: {problem}", style="red", markup=False)


def _introduce(result: Result, console: Any) -> None:
    machine, options = result["machine"], result["options"]
    console.print(
        f"{machine['cores']} cores, Python {machine['python']}, Ray {machine['ray']}, "
        f"LiteLLM {machine['litellm']}; answers of {options['tokens']} tokens; seed "
        f"{options['seed']}, {options['passes']} passes of {options['rounds']} rounds of "
        f"{options['seconds']:g} s; figures are medians of the rounds, ranges in brackets"
    )
    decision = result["decision"]
    if decision is not None:
        p50, p99 = (decision["ms"][key] for key in ("p50", "p99"))
        console.print(
            f"text to decision: p50 {_range(p50)} ms, p99 {_range(p99)} ms "
            f"({decision['count']} texts)",
            markup=False,
        )


def _table(console: Any, title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.MARKDOWN)
    table.add_column(heads[0], no_wrap=True)
    for head in heads[1:]:
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(f"\n{title}\n", markup=False)
    console.print(table)


def _latency(result: Result, console: Any, title: str, key: str, *, stream: bool) -> None:
    steps = result["options"]["concurrency"]
    rows = []
    for name, target in result["targets"].items():
        by_step = {e["concurrency"]: e for e in target["latency"] if e["stream"] == stream}
        rows.append([name, *(_percentiles(by_step.get(step, {}), key) for step in steps)])
    heads = ["target", *(f"{step} in flight" for step in steps)]
    _table(console, f"{title}: added ms, p50 [range] / p95 / p99", heads, rows)


def _percentiles(entry: Mapping[str, Any], key: str) -> str:
    if key not in entry:
        return "-"
    found = entry[key]
    shown = " / ".join(_short(found[p]["median"]) for p in ("p95", "p99"))
    return f"{_range(found['p50'])} / {shown}{_errors(entry)}"


def _throughput(result: Result, console: Any) -> None:
    steps = result["options"]["saturation"]
    cases = [(stream, step) for stream in (False, True) for step in steps]
    heads = [f"{'streams' if stream else 'whole'}, {step} in flight" for stream, step in cases]
    everyone = {**result["targets"], "the upstream alone": {"throughput": result["direct"]}}
    rows = []
    for name, target in everyone.items():
        by_case = {(e["stream"], e["concurrency"]): e for e in target["throughput"]}
        rows.append([name, *(_rate(by_case.get(case)) for case in cases)])
    _table(console, "Throughput: answers a second [range]", ["target", *heads], rows)


def _rate(entry: Mapping[str, Any] | None) -> str:
    return "-" if entry is None else f"{_range(entry['requests_per_s'])}{_errors(entry)}"


def _ratios(result: Result, console: Any) -> None:
    if LITELLM not in result["targets"] or not result["ratios"]:
        return
    keys = ("added_p50", "added_p50_stream", "throughput", "throughput_stream")
    heads = ("target", "added p50", "added p50, streams", "throughput", "throughput, streams")
    rows = [
        [item["target"], *("-" if item[key] is None else f"{item[key]:.2f} x" for key in keys)]
        for item in result["ratios"]
    ]
    title = "Over LiteLLM's: added latency at 1 in flight (less is better), throughput (more is)"
    _table(console, title, heads, rows)


def _aims(result: Result, console: Any) -> None:
    told = {True: "reached", False: "not reached", None: "not measured"}
    rows = [
        [
            aim["target"],
            aim["aim"],
            "-" if aim["value"] is None else _short(aim["value"]),
            told[aim["reached"]],
        ]
        for aim in result["aims"]
    ]
    if rows:
        _table(console, "Aims", ("target", "aim", "value", ""), rows)


def _range(spread: Mapping[str, float]) -> str:
    least, most = _short(spread["least"]), _short(spread["most"])
    return f"{_short(spread['median'])} [{least}, {most}]"


def _short(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _errors(entry: Mapping[str, Any]) -> str:
    return f" ({entry['errors']} errors)" if entry["errors"] else ""
