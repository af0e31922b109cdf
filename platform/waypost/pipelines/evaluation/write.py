"""From a comparison to the folder of its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from waypost.pipelines.embed import Progress
from waypost.pipelines.evaluate import EvaluateConfig, Told, evaluate
from waypost.pipelines.evaluation.decision_log import write_decisions
from waypost.pipelines.evaluation.resplit import evaluate_resplit
from waypost.report.drawing import require_matplotlib
from waypost.report.folder import check_place, report_folder, write_json, write_report
from waypost.storage import Place, local_copy, mirrored

DECISIONS = "decisions.parquet"


def evaluate_to(
    config: EvaluateConfig,
    data_folder: str | Place,
    out: str | Place,
    command: str = "",
    progress: Progress | None = None,
    told: Told | None = None,
) -> dict[str, Any]:
    """Compare routers and write report.json, report.md, the plots and the decision log.

    With ``config.resplit`` each seed's report.json and log stand in ``seed-N``.

    Args:
        config: What to compare.
        data_folder: Routing data; a path or URI.
        out: Folder of the report, a path or URI; an earlier report there is replaced, in one step.
        command: What was asked, for the report.
        progress: Told (done, total) embedded texts.
        told: Told (done, total) routers.

    Returns:
        What report.json holds.

    Raises:
        ConfigError: a wrong argument, or ``out`` holds something else than a report.
        MissingExtraError: matplotlib is not installed.
        SchemaError, WeightsError: as `evaluate`.
        StorageError: a URI cannot be read or written.
    """
    require_matplotlib()
    with mirrored(out) as target:
        check_place(target)
        with local_copy(data_folder) as data:
            return _evaluate_to(config, data, target, command, progress, told)


def _evaluate_to(
    config: EvaluateConfig,
    data_folder: Path,
    out: Path,
    command: str,
    progress: Progress | None,
    told: Told | None,
) -> dict[str, Any]:
    if config.resplit is None:
        done = evaluate(config, data_folder, progress, told)
        with report_folder(out) as folder:
            write_decisions(folder / DECISIONS, done)
            return write_report(folder, {**done.report, "command": command})
    mean, by_seed = evaluate_resplit(config, data_folder, progress, told)
    with report_folder(out) as folder:
        for seed, one in by_seed.items():
            write_json(folder / f"seed-{seed}", {**one.report, "command": command})
            write_decisions(folder / f"seed-{seed}" / DECISIONS, one)
        return write_report(folder, {**mean, "command": command})
