"""The decision log: a row for every decision, in parquet files of a folder or a store."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.outcomes import DECISION, outcome
from waypost.contracts.errors import StorageError
from waypost.contracts.generation import Usage
from waypost.contracts.records import Decision
from waypost.feedback import DECISION_SCHEMA, Arm, DecisionLog, decision_log, query_digest
from waypost.feedback.spool import Spool


async def written(target: str, *outcomes: Any, **changes: Any) -> None:
    log = DecisionLog(target, **({"keep_queries": True} | changes))
    await log.start()
    for each in outcomes:
        log.add(each)
    await log.close()


def rows(folder: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted(folder.rglob("*.parquet")):
        assert pq.read_schema(path).equals(DECISION_SCHEMA)
        found += pq.ParquetFile(path).read().to_pylist()
    return found


async def test_a_row_has_what_was_known_decided_asked_and_answered(tmp_path):
    one = outcome("r1", "wie?", decision_s=0.002, attempts=2, failed=("prover",))
    await written(str(tmp_path), one, exploration=0.125)
    (row,) = rows(tmp_path)
    assert abs(row.pop("time").timestamp() - time.time()) < 60
    for name in ("decision_s", "latency_s"):
        row[name] = round(row[name], 4)
    assert row == {
        "request_id": "r1", "router": "knnrouter", "router_version": "1",
        "query_id": query_digest("wie?"), "query": "wie?", "characters": 4, "routed_tokens": None,
        "user_id": "ann", "session_id": "s1", "session": None, "lambda": 0.25, "max_cost_usd": None,
        "exploration": 0.125, "decided_model": "cook", "propensity": 0.75, "confidence": 0.5,
        "ranking": ["cook", "prover"], "quality": [0.75, 0.5], "predicted_usd": [0.002, None],
        "decision_s": 0.002, "attempts": 2, "failed": ["prover"], "model_name": "cook",
        "input_tokens": 10, "output_tokens": 20, "cached_tokens": 0, "reasoning_tokens": 0,
        "cost_usd": 0.001, "latency_s": 1.5, "finish_reason": "stop", "error": None,
        "experiment": None, "arm": None, "arm_share": None, "shadow_router": None,
        "shadow_router_version": None, "shadow_share": None, "shadow_model": None,
        "shadow_propensity": None, "shadow_ranking": None, "shadow_quality": None,
        "shadow_predicted_usd": None,
    }  # fmt: skip
    (path,) = tmp_path.rglob("*.parquet")
    assert path.parent.name == f"date={time.strftime('%Y-%m-%d', time.gmtime())}"


async def test_of_a_session_it_says_what_became_of_its_llm(tmp_path):
    def one(id_: str, last: str | None, **changes: Any) -> Any:
        return outcome(id_, decision=replace(DECISION, session="new", last_model=last), **changes)

    failed_over = one("r3", "cook", model="prover")
    await written(str(tmp_path), one("r1", None), one("r2", "cook"), failed_over)
    assert [row["session"] for row in rows(tmp_path)] == ["new", "kept", "moved"]


async def test_arm_and_shadows_have_columns_of_their_own(tmp_path):
    alone = Decision("tiny", ("tiny",), router="best_single", router_version="3")
    shadows = {"next": replace(DECISION, propensity=0.5).to_dict(), "alone": alone.to_dict()}
    one = outcome("r1", arm=Arm("trial", "knn", {"knn": 0.3, "next": 0.7}), shadows=shadows)
    await written(str(tmp_path), one, outcome("r2", shadows={}))
    row, without = rows(tmp_path)
    assert [row[name] for name in ("experiment", "arm", "arm_share")] == ["trial", "knn", 0.3]
    assert {name: row[name] for name in row if name.startswith("shadow_")} == {
        "shadow_router": ["next", "alone"],
        "shadow_router_version": ["1", "3"],
        "shadow_share": [0.7, None],
        "shadow_model": ["cook", "tiny"],
        "shadow_propensity": [0.5, 1.0],
        "shadow_ranking": [["cook", "prover"], ["tiny"]],
        "shadow_quality": [[0.75, 0.5], [None]],
        "shadow_predicted_usd": [[0.002, None], [None]],
    }
    assert (row["propensity"], without["shadow_model"]) == (0.75, None)


async def test_a_request_without_answer_has_a_row_and_texts_only_where_wanted(tmp_path):
    none = outcome(
        "r1", "secret \ud800", None, model=None, usage=None, cost_usd=None, finish_reason=None,
        error="no model answered", decision=Decision("a", ("a",)),
    )  # fmt: skip
    await written(str(tmp_path), none, keep_queries=False)
    (row,) = rows(tmp_path)
    assert (row["model_name"], row["error"], row["query"]) == (None, "no model answered", None)
    assert row["input_tokens"] is row["user_id"] is None
    assert (row["ranking"], row["quality"]) == (["a"], [None])


async def test_a_row_that_no_column_can_hold_is_lost_alone(tmp_path):
    log = DecisionLog(str(tmp_path), keep_queries=True)
    await log.start()
    for each in (outcome("r1"), outcome("r2", usage=Usage(2**40, 1)), outcome("r3")):
        log.add(each)
    await log.close()
    assert [row["request_id"] for row in rows(tmp_path)] == ["r1", "r3"]
    assert log.lost == 1


async def test_long_texts_that_wait_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(decision_log, "MOST_SIZE", 10)
    log = DecisionLog(str(tmp_path), keep_queries=True)
    for i in range(3):
        log.add(outcome(f"r{i}", "12345"))
    assert log.lost == 1
    await log.start()
    await log.close()
    assert [row["request_id"] for row in rows(tmp_path)] == ["r0", "r1"]
    assert log._added == log._written


async def test_old_and_long_spools_become_parquet_while_the_log_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(decision_log, "FLUSH_S", 0.01)
    monkeypatch.setattr(decision_log, "SEAL_ROWS", 5)
    log = DecisionLog(str(tmp_path), keep_queries=True)
    await log.start()
    deadline = time.monotonic() + 60
    for i in range(200):
        log.add(outcome(f"r{i}"))
        while i == 100 and not rows(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert rows(tmp_path)
    await log.close()
    # files of one second have no order
    found = sorted(row["request_id"] for row in rows(tmp_path))
    assert found == sorted(f"r{i}" for i in range(200))
    assert len(list(tmp_path.rglob("*.parquet"))) > 1


async def test_a_store_is_a_place_for_logs(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    await written("memory://logs/decisions", outcome("r1"), outcome("r2"))
    store = fsspec.filesystem("memory")
    (path,) = (name for name in store.find("/logs/decisions"))
    with store.open(path) as file:
        assert pq.read_table(file)["request_id"].to_pylist() == ["r1", "r2"]
    store.rm("/logs", recursive=True)
    (spool,) = tmp_path.iterdir()
    assert spool.stat().st_mode & 0o777 == 0o700
    assert list(spool.iterdir()) == []


async def test_a_store_that_is_away_gets_the_rows_later(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    target = "memory://later/decisions"
    log = DecisionLog(target, keep_queries=True)
    await log.start()
    log.add(outcome("r1"))
    store = fsspec.filesystem("memory")
    with monkeypatch.context() as away:

        def fails(*_: Any) -> None:
            raise OSError("the store is away")

        away.setattr(type(store), "cp_file", fails)
        await log.close()
    await written(target, outcome("r2"))
    found = set()
    for path in store.find("/later/decisions"):
        if path.endswith(".parquet"):
            with store.open(path) as file:
                found |= set(pq.read_table(file)["request_id"].to_pylist())
    store.rm("/later", recursive=True)
    assert found == {"r1", "r2"}


async def test_the_spool_of_a_process_that_runs_is_left_alone(tmp_path):
    (tmp_path / ".spool").mkdir()
    running = Spool(tmp_path / ".spool", DECISION_SCHEMA)
    running.write(decision_log.decision_batch([outcome("r1")], keep_queries=True))
    await written(str(tmp_path), outcome("r2"))
    assert [row["request_id"] for row in rows(tmp_path)] == ["r2"]
    running.release()  # as at the end of its process
    await written(str(tmp_path))
    assert sorted(row["request_id"] for row in rows(tmp_path)) == ["r1", "r2"]


async def test_a_batch_that_was_cut_off_does_not_hide_those_before_it(tmp_path):
    (tmp_path / ".spool").mkdir()
    spool = Spool(tmp_path / ".spool", DECISION_SCHEMA)
    for name in ("r1", "r2"):
        spool.write(decision_log.decision_batch([outcome(name)], keep_queries=True))
    spool.release()
    (path,) = (tmp_path / ".spool").iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    (tmp_path / ".spool" / "empty.arrows").write_bytes(b"")
    await written(str(tmp_path))
    assert [row["request_id"] for row in rows(tmp_path)] == ["r1"]
    assert list((tmp_path / ".spool").iterdir()) == []


async def test_a_folder_that_cannot_be_made_is_told_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    log = DecisionLog(str(tmp_path / "file"), keep_queries=True)
    with pytest.raises(StorageError, match="file"):
        await log.start()
    await log.close()


def test_a_batch_of_no_rows_has_the_schema():
    batch = decision_log.decision_batch([], keep_queries=True)
    assert pa.Table.from_batches([batch]).schema.equals(DECISION_SCHEMA)
