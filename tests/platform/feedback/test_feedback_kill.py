"""Killed processes: no acknowledged event is lost, none is there twice; a log loses one second."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from support.outcomes import outcome
from waypost.contracts.feedback import FeedbackEvent
from waypost.feedback import DecisionLog, FeedbackStore, read_rated

ROUNDS = 3

STORE = """
import asyncio, sys
from pathlib import Path
from support.outcomes import outcome
from waypost.contracts.feedback import FeedbackEvent
from waypost.feedback import FeedbackStore

async def rate(store, i):
    event = FeedbackEvent(kind="rating", request_id=f"r{i}", rating=0.5, idempotency_key=f"k{i}")
    if (await store.add([event]))[0].status == "kept":
        print(i, flush=True)

async def main(folder, begin):
    store = FeedbackStore(Path(folder), keep_queries=True, most=1_000_000, max_age_s=1e6)
    await store.start()
    print("started", flush=True)
    # the last ones of the killed process are sent again, as a client does that got no answer
    for start in range(max(begin - 40, 0), begin + 100_000, 10):
        for i in range(start, start + 10):
            store.remember(outcome(f"r{i}"))
        await asyncio.gather(*(rate(store, i) for i in range(start, start + 10)))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""

LOG = """
import asyncio, sys, time
from support.outcomes import outcome
from waypost.feedback import DecisionLog

async def main(folder):
    log = DecisionLog(folder, keep_queries=True)
    await log.start()
    for i in range(100_000):
        log.add(outcome(f"r{i}"))
        print(i, time.time(), flush=True)
        await asyncio.sleep(0.002)

asyncio.run(main(sys.argv[1]))
"""


def started(code: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *arguments]
    paths = [path for path in sys.path if path]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": ":".join(paths)}
    )


def killed(process: subprocess.Popen[str], after_s: float) -> list[str]:
    """Kill a process some time after its first line; return its complete lines."""
    assert process.stdout is not None
    lines = [process.stdout.readline()]
    time.sleep(after_s)
    process.kill()
    lines += process.stdout.readlines()
    process.wait()
    process.stdout.close()
    return [line.strip() for line in lines if line.endswith("\n")]


def test_acknowledged_events_outlive_kills_and_none_is_there_twice(tmp_path):
    drawn = random.Random(0)
    acknowledged: set[int] = set()
    for _ in range(ROUNDS):
        begin = max(acknowledged, default=0)
        first, *lines = killed(started(STORE, str(tmp_path), str(begin)), drawn.uniform(0.1, 0.5))
        assert first == "started"
        acknowledged |= set(map(int, lines))
    found = Counter(event["request_id"] for event in read_rated(tmp_path).events)
    assert len(acknowledged) > 10 * ROUNDS
    assert {f"r{i}" for i in acknowledged} <= set(found)
    assert set(found.values()) == {1}
    assert read_rated(tmp_path).replaced == 0  # a repeated event did not even enter the history


def test_an_event_sent_again_to_another_replica_after_the_kill_gets_the_first_answer(tmp_path):
    _, *lines = killed(started(STORE, str(tmp_path), "0"), 0.3)
    last = max(map(int, lines))
    event = FeedbackEvent(
        kind="rating", request_id=f"r{last}", rating=0.5, idempotency_key=f"k{last}"
    )

    async def again() -> None:
        store = FeedbackStore(tmp_path, keep_queries=True, most=10_000, max_age_s=1e6)
        await store.start()
        (taken,) = await store.add([event])
        assert (taken.status, taken.model, taken.replaced) == ("kept", "cook", False)
        await store.close()

    before = len(read_rated(tmp_path).events)
    asyncio.run(again())
    assert len(read_rated(tmp_path).events) == before


def logged(folder: Path) -> list[str]:
    return [
        request_id
        for path in sorted(folder.rglob("*.parquet"))
        for request_id in pq.read_table(path)["request_id"].to_pylist()
    ]


def test_the_next_process_finishes_the_log_of_a_killed_one(tmp_path):
    process = started(LOG, str(tmp_path))
    lines = killed(process, 2.5)
    end = time.time()
    assert logged(tmp_path) == []

    async def restart() -> None:
        log = DecisionLog(str(tmp_path), keep_queries=True)
        await log.start()
        log.add(outcome("after"))
        await log.close()

    asyncio.run(restart())
    found = logged(tmp_path)
    assert len(found) == len(set(found))
    assert "after" in found
    written = [line.split() for line in lines]
    # the log writes every second; a busy machine may be late
    safe = [f"r{i}" for i, at in written if float(at) < end - 2.0]
    assert len(safe) > 10
    assert set(safe) <= set(found)
    assert list((tmp_path / ".spool").iterdir()) == []
