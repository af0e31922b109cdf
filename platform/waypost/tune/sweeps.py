"""Run several sweeps, each into its own folder, and write one report over all of them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from waypost.config import StrictModel, apply_overrides, parse, read_yaml
from waypost.contracts.errors import ConfigError, Fault, WaypostError
from waypost.pipelines.evaluation.inputs import reason
from waypost.ray_session import ray_session
from waypost.registry import router_class
from waypost.report.folder import write_json
from waypost.report.numbers import table
from waypost.storage import Place, local_copy, mirrored
from waypost.tune.config import TuneConfig, check_sweep
from waypost.tune.sweep import BEST, SweepCallbacks, run_sweep

logger = logging.getLogger(__name__)

Report = dict[str, Any]


class ManySweeps(StrictModel):
    """A config file that names the files of several sweeps.

    Attributes:
        sweeps: Files of one sweep each, relative to this file; each router once. ``all`` is every
            other YAML file of the folder, routers that fine-tune a model last.
        common: Keys that override those of every file, such as ``metric`` or ``budget``; mappings
            are merged.
    """

    sweeps: Literal["all"] | Annotated[tuple[str, ...], Field(min_length=1)]
    common: dict[str, Any] = Field(default_factory=dict)


def is_many(path: str | Path) -> bool:
    """Return whether a config file names several sweeps."""
    return "sweeps" in read_yaml(path)


def read_many(path: str | Path, overrides: Sequence[str] = ()) -> list[TuneConfig]:
    """Read a file of several sweeps, and the files it names.

    Args:
        path: The file.
        overrides: ``key=value`` settings of ``common``.

    Raises:
        ConfigError: With all faults of all files.
    """
    path = Path(path)
    data = apply_overrides(read_yaml(path), [f"common.{item}" for item in overrides])
    many = parse(ManySweeps, data, str(path))
    found: list[TuneConfig] = []
    faults: list[Fault] = []
    for name in _beside(path) if many.sweeps == "all" else many.sweeps:
        try:
            found.append(check_sweep(_merged(read_yaml(path.parent / name), many.common), name))
        except ConfigError as error:
            faults += error.faults
    routers = [config.router for config in found]
    faults += [Fault(str(path), f"{r} occurs twice") for r in set(routers) if routers.count(r) > 1]
    if faults:
        raise ConfigError(faults)
    if many.sweeps == "all":  # a fit that takes hours must not delay the others
        found.sort(key=lambda one: getattr(router_class(one.router), "needs_weights", None) or "")
    return found


def _beside(path: Path) -> list[str]:
    return sorted(other.name for other in path.parent.glob("*.yaml") if other.name != path.name)


def _merged(data: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    both = {**data, **common}
    for key, value in common.items():
        if isinstance(value, Mapping) and isinstance(data.get(key), Mapping):
            both[key] = {**data[key], **value}
    return both


def run_many(
    configs: Sequence[TuneConfig],
    data_folder: str | Place,
    out: str | Place,
    *,
    fresh: bool = False,
    dashboard: bool = False,
    command: str = "",
    callbacks: SweepCallbacks | None = None,
) -> Report:
    """Run sweeps one after another; a failing sweep does not end the others.

    If all sweeps have the same metric, copy the artifact of the router with the best
    cross-validated score to ``best``.

    Args:
        configs: Checked configs; see `read_many`.
        data_folder: Routing data; a path or URI.
        out: Parent of the result folders, each named after its router; a path or URI.
        fresh: Delete earlier results.
        dashboard: Whether a Ray started here has a dashboard.
        command: Command line, for the report.
        callbacks: Progress callbacks.

    Returns:
        The content of report.json: ``sweeps`` and ``failed`` by router, ``best``.
    """
    callbacks = callbacks or SweepCallbacks()
    reports: dict[str, Report] = {}
    failed: dict[str, str] = {}
    with mirrored(out) as folder, local_copy(data_folder) as data, ExitStack() as stack:
        stack.enter_context(ray_session(dashboard=dashboard, threads=1, tell=callbacks.step))
        for place, config in enumerate(configs):
            callbacks.step(f"{config.router} ({place + 1} of {len(configs)})")
            own = folder / config.router
            try:
                reports[config.router] = run_sweep(
                    config, data, own, fresh=fresh, command=command, callbacks=callbacks
                )
            except WaypostError as error:
                failed[config.router] = reason(error)
                callbacks.step(f"{config.router} failed: {failed[config.router]}")
        best = _best(reports, configs)
        if best is not None:
            shutil.rmtree(folder / BEST, ignore_errors=True)
            shutil.copytree(folder / best / BEST, folder / BEST)
        found = {"sweeps": reports, "failed": failed, "best": best, "command": command}
        written = write_json(folder, found)
        (folder / "report.md").write_text(render(written), encoding="utf-8")
        return written


def _best(reports: Mapping[str, Report], configs: Sequence[TuneConfig]) -> str | None:
    """Return the router with the best score; None if the sweeps have different metrics."""
    done = [config for config in configs if config.router in reports]
    if not done or any(config.metric != done[0].metric for config in done):
        return None
    sign = 1.0 if done[0].mode == "max" else -1.0
    return max(reports, key=lambda name: sign * float(reports[name]["taken"]["score"]))


def render(report: Report) -> str:
    """Return report.md of all sweeps."""
    rows = [_row(name, one) for name, one in report["sweeps"].items()]
    rows += [[name, why, *[""] * 6] for name, why in report["failed"].items()]
    heads = (
        "router", "trials", "metric", "default", "taken", "test: default", "test: tuned",
        "tuned less default",
    )  # fmt: skip
    lines = ["# Sweeps", "", *table(heads, rows), ""]
    if report["best"]:
        lines += [f"Best in cross-validation: {report['best']}; its artifact is in `best`.", ""]
    lines += [
        "Default and taken: the metric, cross-validated in the training split. Test: quality at "
        "lambda 0, with paired 95 % intervals. Each sweep has its own report.",
    ]
    if report.get("command"):
        lines += ["", f"    {report['command']}"]
    return "\n".join(lines) + "\n"


def _row(name: str, one: Report) -> list[str]:
    taken, test = one["taken"], one.get("test") or {}
    quality = test.get("quality") or {}
    difference = "same settings" if taken["is_default"] else "n/a"
    if test.get("difference") is not None:
        difference = f"{test['difference']:+.4f} [{test['low']:+.4f}, {test['high']:+.4f}]"
    tuned = quality.get("tuned")
    return [
        f"[{name}]({name}/report.md)",
        str(one["trials"]["tried"]),
        one["metric"]["label"],
        _number(taken["default_score"]),
        _number(taken["score"]),
        _number(tuned if taken["is_default"] else quality.get("default")),
        _number(tuned),
        difference,
    ]


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"
