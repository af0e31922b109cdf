"""A data run that is killed, or ended by Ctrl-C: what is left of it, and what is asked again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import yaml

from support.counting_upstream import CountingUpstream, counting_upstream

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

LLMS, QUESTIONS, IN_FLIGHT = 2, 675, 16
PATIENT = {"max_retries": 0, "connect_timeout_s": 90.0, "first_token_timeout_s": 90.0}
"""On a machine that is busy no call fails, and so none is tried again for another reason."""

LATE_S = 2.0
"""Between the last byte of an answer and its line in the log, on a machine that is busy."""


def write_run(folder: Path, url: str) -> Path:
    (folder / "data").mkdir()
    with (folder / "data" / "queries_train.jsonl").open("w") as file:
        for n in range(QUESTIONS):
            question = {
                "query_id": f"q{n}",
                "task_name": "sums",
                "query": f"What is {n} + 0?",
                "ground_truth": str(n),
                "metric": "number",
                "max_tokens": 8,
            }
            file.write(json.dumps(question) + "\n")
    llms = {
        f"llm{n}": {
            "engine": "openai",
            "concurrency": IN_FLIGHT,
            "config": {"base_url": url, "model": f"m{n}"} | PATIENT,
        }
        for n in range(LLMS)
    }
    encoder = {"kind": "hashing", "dimension": 32}
    config = folder / "data.yaml"
    config.write_text(yaml.safe_dump({"out": "data", "encoder": encoder, "llms": llms}))
    return config


def start(config: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "waypost.cli", "data", "responses", "--config", str(config)],
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def kill_after(
    calls: int, upstream: CountingUpstream, run: subprocess.Popen[bytes], group: bool
) -> float:
    deadline = time.monotonic() + 120
    while len(upstream.calls) < calls:
        assert run.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline, f"{len(upstream.calls)} calls in two minutes"
        time.sleep(0.01)
    started = psutil.Process(run.pid).children(recursive=True)
    now = time.monotonic()
    # the driver alone, or all of its group at once: nothing outlives it
    (os.killpg if group else os.kill)(run.pid, signal.SIGKILL)
    run.wait()
    _, alive = psutil.wait_procs(started, timeout=60)
    assert alive == []
    return now


def test_every_cell_is_there_once_and_only_calls_in_flight_were_made_again(tmp_path):
    seed = random.randrange(10**6)
    draw = random.Random(seed)
    cells = LLMS * QUESTIONS
    with counting_upstream(delay_s=0.2) as upstream:
        config = write_run(tmp_path, upstream.url)
        log, kills = tmp_path / "log", []
        for nth in range(2):
            left = cells - len(upstream.calls)
            if left < 4 * LLMS * IN_FLIGHT:  # workers without a driver ask for a moment more
                break
            at = len(upstream.calls) + draw.randint(1, left // 3)
            kills.append(kill_after(at, upstream, start(config, log), group=nth % 2 == 1))
        assert kills, seed
        last = start(config, log)
        assert last.wait(timeout=300) == 0, (seed, log.read_text()[-3000:])
        again = start(config, log)
        before = len(upstream.calls)
        assert again.wait(timeout=120) == 0
        assert len(upstream.calls) == before
    rows = pq.read_table(tmp_path / "data" / "routing_train.parquet").to_pylist()
    keys = Counter((row["model_name"], row["query_id"]) for row in rows)
    assert len(keys) == len(rows) == cells, seed
    assert all(row["error"] is None and row["performance"] is not None for row in rows)
    made = Counter((call.model, call.text) for call in upstream.calls)
    assert len(made) == cells
    assert len(upstream.calls) - cells <= len(kills) * LLMS * IN_FLIGHT, seed
    first_end: dict[tuple[str, str], float] = {}
    for call in upstream.calls:
        first_end.setdefault((call.model, call.text), call.end)
    for key, count in made.items():
        # made again: its first answer came shortly before a kill, or never
        assert count == 1 or any(first_end[key] - kill + LATE_S >= 0 for kill in kills), (seed, key)
        assert count <= 1 + len(kills)


def test_ctrl_c_ends_a_run_with_all_that_it_started_and_its_logs_are_whole(tmp_path):
    log = tmp_path / "log"
    with counting_upstream(delay_s=0.2) as upstream:
        run = start(write_run(tmp_path, upstream.url), log)
        deadline = time.monotonic() + 120
        while len(upstream.calls) < 100:
            assert run.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        started = psutil.Process(run.pid).children(recursive=True)
        run.send_signal(signal.SIGINT)
        assert run.wait(timeout=120) == 130
        _, alive = psutil.wait_procs(started, timeout=60)
        assert alive == []
    said = log.read_text()
    assert "interrupted; the same command continues the run" in said
    assert "Traceback" not in said
    assert not (tmp_path / "data" / ".lock").exists()
    for path in (tmp_path / "data" / ".cells").rglob("*.jsonl"):
        for line in path.read_bytes().splitlines(keepends=True):
            assert line.endswith(b"}\n")
            assert json.loads(line)["key"]
