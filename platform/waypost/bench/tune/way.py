"""One way of measuring all settings of a case, as a process of its own.

``python -m waypost.bench.tune.way --case JSON --workers N``; 0 workers is a plain loop.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from waypost.config import set_default_environment

if TYPE_CHECKING:
    from waypost.bench.tune.case import Case


def main(case: str, workers: int) -> dict[str, Any]:
    """Measure.

    Returns:
        Monotonic seconds: ``ready``, data and settings are there; ``first``, when workers began
        to fit, their mean; ``last``, the last row was known; ``end``, Ray is gone.
        ``fit_seconds`` of all trials, ``trials`` done, ``scores`` by setting.
    """
    set_default_environment({"OMP_NUM_THREADS": "1"})  # before numpy is imported, here and by Ray
    from waypost.bench.tune.case import Case

    with tempfile.TemporaryDirectory(prefix="waypost-bench-") as folder:
        return _measure(Case(**json.loads(case)), workers, Path(folder))


def _measure(case: Case, workers: int, folder: Path) -> dict[str, Any]:
    from waypost.bench.tune.timed_desk import timed_desk
    from waypost.tune.journal import Journal

    problem, tasks = case.problem(), case.tasks(folder)
    journal = Journal(folder / "trials.jsonl", {})
    ready = time.monotonic()
    desk, began = timed_desk(journal, max(workers, 1), tasks)
    if workers:
        last = _on_ray(problem, desk, case, folder)
    else:
        from waypost.tune.trial import measure_here

        measure_here(problem, desk)
        last = time.monotonic()
    end = time.monotonic()
    rows = journal.search()
    journal.close()
    if failed := [row.error for row in rows if row.status != "done"]:
        raise SystemExit(f"{len(failed)} trials failed; the first: {failed[0]}")
    return {
        "ready": ready,
        "first": sum(began) / len(began),
        "last": last,
        "end": end,
        "trials": len(rows),
        "fit_seconds": sum(row.seconds for row in rows),
        "scores": {row.key: row.score for row in rows},
    }


def _on_ray(problem: Any, desk: Any, case: Case, folder: Path) -> float:
    """Return when the last row was known."""
    from waypost.pipelines.ray_session import ray_session
    from waypost.tune.ray_tune import measure_packed

    with ray_session(threads=1):
        measure_packed(problem, desk, case.config().resources, folder / "ray")
        return time.monotonic()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", required=True)
    parser.add_argument("--workers", type=int, required=True)
    json.dump(main(**vars(parser.parse_args())), sys.stdout)
