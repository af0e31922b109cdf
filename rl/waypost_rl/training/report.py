"""The report of a run: report.md with its curves, from the numbers of the steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from waypost.contracts.atomic import write_text
from waypost.contracts.errors import MissingExtraError
from waypost.report.drawing import GREY, LIGHT, figure, literal, look
from waypost.report.numbers import table
from waypost_rl.training.logs import read_metrics

REPORT, CURVES = "report.md", "curves.png"
WINDOW = 10

_ROWS = {
    "reward": "mean reward of an episode",
    "well_formed": "share of well-formed episodes",
    "outcome": "mean outcome, malformed episodes included",
    "cost_reward": "mean cost reward, 1 is cheap",
    "cost_usd": "mean cost of the candidates' answers, USD an episode",
    "searches": "mean searches of an episode",
    "route_entropy": "entropy of the candidates asked, normalised to [0, 1]",
    "kl": "divergence from the start policy, nats an episode",
    "entropy": "entropy of the policy, nats a token",
    "skipped": "mini-batches left out, of a step",
    "tokens_per_s": "sampled tokens a second, while sampling",
    "step_s": "seconds of a step",
}


def write_report(run: Path, command: str) -> None:
    """Write report.md and, where matplotlib is installed, curves.png into a run's folder."""
    steps = read_metrics(run)
    if not steps:
        return
    settings = json.loads((run / "run.json").read_text(encoding="utf-8"))
    drawn = True
    try:
        draw_curves(steps, run / CURVES)
    except MissingExtraError:
        drawn = False
    ends = min(WINDOW, max(1, len(steps) // 2))
    first, last = steps[:ends], steps[-ends:]
    rows = [
        [what, _mean(first, name), _mean(last, name)]
        for name, what in _ROWS.items()
        if any(name in step for step in steps)
    ]
    rows += [
        [f"share of searches: {name.removeprefix('route/')}", _mean(first, name), _mean(last, name)]
        for name in _routes(steps)
    ]
    lines = [
        "# Training of Router-R1",
        "",
        f"- start policy `{settings['base']}`, {len(steps)} steps",
        f"- cost scale: root of the cost in millionths of a dollar, 1 at "
        f"{settings['cost_scale']['low']:.4g}, 0 at {settings['cost_scale']['high']:.4g}",
        *([f"- ended early: {settings['ended']}"] if settings.get("ended") else []),
        f"- `{command}`",
        "",
        *table(["", f"first {ends} steps", f"last {ends} steps"], rows),
        *(["", f"![Curves]({CURVES})"] if drawn else []),
        "",
        "Lines are means of up to "
        f"{WINDOW} steps, dots single steps. Episodes of training are sampled at its temperature; "
        "`waypost rl evaluate` measures the policy on held-out questions.",
    ]
    write_text(run / REPORT, "\n".join(lines) + "\n")


def _mean(steps: Sequence[Mapping[str, Any]], name: str) -> str:
    values = [step[name] for step in steps if step.get(name) is not None]
    return f"{np.mean(values):.4g}" if values else "-"


def _routes(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({name for step in steps for name in step if name.startswith("route/")})


def moving_mean(values: Sequence[float], window: int = WINDOW) -> list[float]:
    """Return the mean of each value and of up to ``window`` - 1 before it; NaN is left out."""
    means = []
    for at in range(len(values)):
        seen = [one for one in values[max(0, at - window + 1) : at + 1] if not np.isnan(one)]
        means.append(float(np.mean(seen)) if seen else float("nan"))
    return means


def draw_curves(
    steps: Sequence[Mapping[str, Any]],
    path: Path,
    control: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Draw reward, its parts, divergence and routes by step.

    Args:
        steps: Numbers of the steps, as `waypost_rl.training.logs.read_metrics` returns them.
        path: PNG file.
        control: Steps of a run without learning, drawn in grey beside the reward.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    made = figure(10, 6.4)
    reward, parts, routes, policy = made.subplots(2, 2).ravel()
    if control:
        _curve(reward, control, "reward", "no learning", {"color": GREY, "linestyle": "--"})
    _curve(reward, steps, "reward", "reward", look(0))
    reward.set_title("Reward")
    for place, (name, label) in enumerate(
        [("well_formed", "well formed"), ("outcome", "outcome"), ("cost_reward", "cost reward")]
    ):
        _curve(parts, steps, name, label, look(place))
    parts.set_title("Parts of the reward")
    for place, name in enumerate(_routes(steps)):
        _curve(routes, steps, name, literal(name.removeprefix("route/")), look(place))
    routes.set_title("Share of searches by candidate")
    for place, (name, label) in enumerate(
        [("kl", "divergence, nats an episode"), ("entropy", "entropy, nats a token")]
    ):
        _curve(policy, steps, name, label, look(place))
    policy.set_title("Policy")
    for axis in (reward, parts, routes, policy):
        axis.grid(color=LIGHT)
        axis.set_xlabel("step")
        if axis.get_legend_handles_labels()[1]:
            axis.legend(fontsize=8)
    made.savefig(path, dpi=120)


def _curve(
    axis: Any, steps: Sequence[Mapping[str, Any]], name: str, label: str, style: dict[str, Any]
) -> None:
    found = [(step["step"], step[name]) for step in steps if step.get(name) is not None]
    if not found:
        return
    at, values = zip(*found, strict=True)
    axis.plot(at, values, ".", color=style["color"], markersize=3, alpha=0.4)
    axis.plot(at, moving_mean(values), label=label, **style)
