"""What is kept of one user is deleted: from decision log, feedback store and parquet files."""

from __future__ import annotations

import time
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from support.outcomes import outcome
from waypost.cli import command
from waypost.contracts.errors import StorageError
from waypost.contracts.feedback import FeedbackEvent
from waypost.contracts.user_state import UserState
from waypost.feedback import DecisionLog, FeedbackStore, forget_user, read_rated
from waypost.feedback.log_folder import FORGOTTEN, forgotten_with, read_forgotten
from waypost.feedback.outcome import QuestionVector
from waypost.learning.user_states import UserStates
from waypost.learning.user_turns import turns_path

SECRET = "a question of ann alone"


def users(folder: Path) -> list[str | None]:
    found = [pq.ParquetFile(path).read()["user_id"] for path in folder.rglob("*.parquet")]
    return [user for column in found for user in column.to_pylist()]


async def test_texts_and_events_of_one_user_leave_the_store(tmp_path):
    store = FeedbackStore(tmp_path, keep_queries=True, most=100, max_age_s=1e6)
    await store.start()
    for request_id, user in (("r1", "ann"), ("r2", "bob"), ("r3", "ann")):
        store.remember(outcome(request_id, SECRET if user == "ann" else "hello", user))

    def rating(request_id: str, user: str) -> FeedbackEvent:
        return FeedbackEvent(
            kind="rating", request_id=request_id, rating=1, user_id=user, reason=f"{user} says"
        )

    await store.add([rating("r1", "bob"), rating("r2", "ann"), rating("r2", "bob")])
    found = forget_user(tmp_path, "ann")
    # both of her requests, one of which bob rated; her own event
    assert (found.events, found.requests) == (2, 2 + 1)
    left = read_rated(tmp_path)
    assert [(e["request_id"], e["user_id"]) for e in left.events] == [("r2", "bob")]
    assert set(left.requests) == {"r2"}
    # nothing is left in free pages of the file either
    assert not any(SECRET.encode() in path.read_bytes() for path in tmp_path.iterdir())
    assert [taken.status for taken in await store.add([rating("r3", "bob")])] == ["unknown"]
    await store.close()
    assert forget_user(tmp_path, "ann").events == 0


async def test_what_others_said_of_a_users_questions_leaves_their_turns(tmp_path):
    store = FeedbackStore(tmp_path, keep_queries=False, most=100, max_age_s=1e6)
    await store.start()
    for request_id, user in (("r1", "ann"), ("r2", "bob")):
        data = np.full(4, float(request_id[1]), "<f4").tobytes()
        store.remember(outcome(request_id, user=user, vector=QuestionVector("tiny", data)))
    said = {"kind": "rating", "user_id": "bob", "rating": 1}
    await store.add([FeedbackEvent(request_id=one, **said) for one in ("r1", "r2")])
    with UserStates(turns_path(tmp_path, "tiny"), made, "tiny") as states:
        assert states.get("bob").events == 2
        assert forget_user(tmp_path, "ann").turns == 1
        assert states.get("bob").events == 1
        assert states.history("bob").embeddings.tolist() == [[2.0] * 4]
        await store.add([FeedbackEvent(request_id="r2", **said | {"user_id": "cid"})])
        assert states.get("cid").events == 1
        assert forget_user(tmp_path, "bob").turns == 2
        assert [states.get(user) for user in ("bob", "cid")] == [None, None]
        assert states.in_memory == 0
    await store.close()


def made(history):
    assert len(history)
    return UserState(len(history), history.embeddings.sum(0))


async def test_the_folder_above_log_and_store_forgets_in_both(tmp_path):
    store = FeedbackStore(tmp_path / "feedback", keep_queries=True, most=100, max_age_s=1e6)
    log = DecisionLog(str(tmp_path / "decisions"), keep_queries=True)
    for part in (store, log):
        await part.start()
    store.remember(outcome("r1", SECRET, "ann"))
    log.add(outcome("r1", SECRET, "ann"))
    event = FeedbackEvent(kind="rating", request_id="r1", rating=1, user_id="ann")
    await store.add([event])
    for part in (store, log):
        await part.close()
    found = forget_user(tmp_path, "ann")
    assert (found.events, found.requests, found.rows) == (1, 2, 1)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(SECRET.encode() in path.read_bytes() for path in files)
    assert (tmp_path / "decisions" / FORGOTTEN).is_file()


async def test_rows_of_one_user_leave_the_log_also_those_not_yet_in_parquet(tmp_path):
    first = DecisionLog(str(tmp_path), keep_queries=True)
    await first.start()
    for i, user in enumerate(("ann", "bob", None, "ann")):
        first.add(outcome(f"r{i}", SECRET, user))
    await first.close()
    second = DecisionLog(str(tmp_path), keep_queries=True)
    await second.start()
    second.add(outcome("r4", SECRET, "ann"))
    found = forget_user(tmp_path, "ann")
    assert (found.rows, found.files) == (2, 1)
    assert sorted(map(str, users(tmp_path))) == ["None", "bob"]
    second.add(outcome("r5", user="ann", at=time.time() + 5))  # she is welcome again
    await second.close()
    assert sorted(map(str, users(tmp_path))) == ["None", "ann", "bob"]
    assert forget_user(tmp_path, "ann").rows == 1
    assert sorted(map(str, users(tmp_path))) == ["None", "bob"]


async def test_rows_leave_a_log_in_a_store_also_those_that_arrive_there_later(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    target, store = "memory://forget/log", fsspec.filesystem("memory")
    first = DecisionLog(target, keep_queries=True)
    await first.start()
    for i, user in enumerate(("ann", "bob")):
        first.add(outcome(f"r{i}", SECRET, user))
    await first.close()
    second = DecisionLog(target, keep_queries=True)
    await second.start()
    second.add(outcome("r2", SECRET, "ann"))
    second.add(outcome("r3", SECRET, "cy"))
    done = CliRunner().invoke(command, ["data", "forget", "--user", "ann", target])
    assert done.exit_code == 0, done.output
    assert "1 rows of 1 parquet files" in done.output
    await second.close()
    found = []
    for path in store.find("/forget/log"):
        if path.endswith(".parquet"):
            with store.open(path) as file:
                found += pq.read_table(file)["user_id"].to_pylist()
    store.rm("/forget", recursive=True)
    assert sorted(found) == ["bob", "cy"]


def test_other_tables_keep_their_columns_and_a_file_of_one_user_goes(tmp_path):
    table = pa.table({"user_id": ["ann", "bob"], "more": [[1], [2]]})
    (tmp_path / "below").mkdir()
    pq.write_table(table, tmp_path / "below" / "both.parquet")
    pq.write_table(table.slice(0, 1), tmp_path / "hers.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    found = forget_user(tmp_path, "ann")
    assert (found.rows, found.files) == (2, 2)
    assert pq.read_table(tmp_path / "below" / "both.parquet").to_pylist() == [
        {"user_id": "bob", "more": [2]}
    ]
    assert not (tmp_path / "hers.parquet").exists()
    assert not (tmp_path / FORGOTTEN).exists()  # no log is here


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(StorageError, match="no such folder"):
        forget_user(tmp_path / "none", "ann")
    (tmp_path / "bad.parquet").write_bytes(b"not parquet")
    with pytest.raises(StorageError, match=r"bad\.parquet"):
        forget_user(tmp_path, "ann")


def test_the_list_of_the_forgotten_does_not_grow_for_ever():
    content = forgotten_with(b"", "one", 0.0)
    content = forgotten_with(content, "two", 6 * 86_400.0)
    assert read_forgotten(content) == {"one": 0.0, "two": 6 * 86_400.0}
    assert read_forgotten(forgotten_with(content, "three", 8 * 86_400.0)) == {
        "two": 6 * 86_400.0, "three": 8 * 86_400.0
    }  # fmt: skip
    with pytest.raises(StorageError, match="digests"):
        read_forgotten(b"[1]")
