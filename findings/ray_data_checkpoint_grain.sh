#!/usr/bin/env bash
# Ray Data writes the checkpoint of a job on many small files only once, at the end.
#
# Versions:  ray 2.60.0 (ray.data.checkpoint, beta)
# Expected:  a job that reads 20 files of one row, computes an answer for each and writes it can
#            continue after an interruption: the checkpoint has most of the finished rows.
# Happens:   Ray Data joins small files into one block and writes a checkpoint per block, so all 20
#            answers are computed before the first checkpoint. After a repartition into blocks of 2
#            rows, the checkpoint grows with the answers.
# Here:      data runs write a log with one line per answer (DECISIONS.md, 34).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet "ray[data]==2.60.0"
export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=disabled
"$work/venv/bin/python" - "$work" 2> >(grep -vE "INFO|WARNING|gcs_" >&2) <<'PYTHON'
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.data.checkpoint import CheckpointConfig

ROWS = 20
work = Path(sys.argv[1])
(work / "in").mkdir()
for i in range(ROWS):
    pq.write_table(pa.table({"id": [f"q{i}"]}), work / "in" / f"{i:02}.parquet")
ray.init(num_cpus=4, include_dashboard=False, logging_level="ERROR")


def answers_before_the_first_checkpoint(name: str, rows_a_block: int | None) -> int:
    """Run the job; return how many answers there were when the first checkpoint was."""
    made, checkpoint = work / f"{name}-made", work / f"{name}-checkpoint"
    made.mkdir()
    context = ray.data.DataContext.get_current()
    context.checkpoint_config = CheckpointConfig(id_column="id", checkpoint_path=str(checkpoint))

    def answer(row: dict) -> dict:
        time.sleep(0.3)
        (made / row["id"]).touch()
        return {"id": row["id"], "answer": "x"}

    seen: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not seen and not done.wait(0.02):
            if any(checkpoint.rglob("*.parquet")):
                seen.append(len(list(made.iterdir())))

    watcher = threading.Thread(target=watch)
    watcher.start()
    data = ray.data.read_parquet(str(work / "in"))
    if rows_a_block is not None:
        data = data.repartition(target_num_rows_per_block=rows_a_block)
    data.map(answer).write_parquet(str(work / f"{name}-out"))
    done.set()
    watcher.join()
    return seen[0] if seen else ROWS


whole = answers_before_the_first_checkpoint("whole", None)
parts = answers_before_the_first_checkpoint("parts", 2)
print(f"as read: {whole} of {ROWS} answers made before the first checkpoint")
print(f"in blocks of 2 rows: {parts} of {ROWS}")
if whole != ROWS or parts >= ROWS:
    raise SystemExit("changed: look at this finding anew")
PYTHON
