"""The feedback store: each event counted once, wherever it lands, and across restarts."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.outcomes import DECISION, outcome
from waypost.contracts.errors import StorageError, StorageMissingError
from waypost.contracts.feedback import FeedbackEvent
from waypost.feedback import FeedbackStore, forget_user, read_rated
from waypost.feedback.database import DATABASE

DAY_S = 86_400.0


@asynccontextmanager
async def store(folder: Path, **changes: Any) -> AsyncIterator[FeedbackStore]:
    known = {"keep_queries": True, "most": 1_000, "max_age_s": DAY_S}
    found = FeedbackStore(folder, **(known | changes))
    await found.start()
    try:
        yield found
    finally:
        await found.close()


def rating(request_id: str, value: float, **fields: Any) -> FeedbackEvent:
    return FeedbackEvent(kind="rating", request_id=request_id, rating=value, **fields)


async def test_a_rating_is_kept_with_the_request_that_it_is_about(tmp_path):
    async with store(tmp_path) as one:
        one.remember(outcome("r1"))
        (taken,) = await one.add([rating("r1", 0.75, reason="good", source="judge")])
        assert (taken.status, taken.model, taken.replaced) == ("kept", "cook", False)
    found = read_rated(tmp_path)
    (event,) = found.events
    assert (event["rating"], event["reason"], event["source"]) == (0.75, "good", "judge")
    assert event["user_id"] == "ann"  # who asked, where the event names nobody
    request = found.requests["r1"]
    assert (request["query"], request["session_id"]) == ("boil an egg", "s1")
    assert (request["propensity"], request["lambda"]) == (0.75, 0.25)
    assert (request["input_tokens"], request["cost_usd"]) == (10, 0.001)
    assert request["ranking"] == ["cook", "prover"]
    assert request["predicted_quality"] == DECISION.quality["cook"]


async def test_the_text_is_kept_only_where_it_is_wanted(tmp_path):
    async with store(tmp_path, keep_queries=False) as one:
        one.remember(outcome("r1", "a secret"))
        await one.add([rating("r1", 1)])
    assert read_rated(tmp_path).requests["r1"]["query"] is None
    assert not any(b"a secret" in path.read_bytes() for path in tmp_path.iterdir())


async def test_another_replica_and_a_restarted_one_find_the_request(tmp_path):
    async with store(tmp_path) as one, store(tmp_path) as other:
        one.remember(outcome("r1"))
        # not yet on disk: the other one waits for it
        assert [taken.status for taken in await other.add([rating("r1", 0.5)])] == ["kept"]
        one.remember(outcome("r2"))
    async with store(tmp_path) as again:
        assert [taken.status for taken in await again.add([rating("r2", 0.5)])] == ["kept"]
    assert len(read_rated(tmp_path).events) == 2


async def test_one_key_is_one_event_at_all_replicas_and_after_a_restart(tmp_path):
    said = rating("r1", 0.5, idempotency_key="k")
    async with store(tmp_path) as one, store(tmp_path) as other:
        one.remember(outcome("r1"))
        # what is predicted comes with an event once: that counts events
        first = replace((await one.add([said]))[0], predicted_quality=None)
        await one.add([rating("r1", 1.0)])
        assert (await other.add([said]))[0] == first  # the first answer again
        differs = rating("r1", 0.25, idempotency_key="k")
        assert (await other.add([differs]))[0].status == "conflict"
    async with store(tmp_path) as again:
        assert (await again.add([said]))[0] == first
    found = read_rated(tmp_path)
    assert [event["rating"] for event in found.events] == [1.0]
    assert found.replaced == 1


async def test_a_later_rating_of_one_user_replaces_the_earlier(tmp_path):
    async with store(tmp_path) as one:
        one.remember(outcome("r1"))
        now = time.time()
        taken = await one.add(
            [
                rating("r1", 0.1, user_id="ann", time=now - 10),
                rating("r1", 0.2, user_id="bob"),
                rating("r1", 0.3, user_id="ann", time=now + 1e6),  # a clock that is ahead
                rating("r1", 0.4, user_id="ann", time=now - 20),  # said earlier, sent later
                FeedbackEvent(kind="verdict", request_id="r1", verdict="wrong", user_id="ann"),
            ]
        )
        assert [each.replaced for each in taken] == [False, False, True, True, False]
        await asyncio.sleep(0.01)
        await one.add([rating("r1", 0.5, user_id="ann")])
    found = read_rated(tmp_path)
    ratings = {e["user_id"]: e["rating"] for e in found.events if e["kind"] == "rating"}
    assert ratings == {"ann": 0.5, "bob": 0.2}
    assert [event["verdict"] for event in found.events if event["verdict"]] == ["wrong"]
    assert found.replaced == 3


async def test_a_preference_replaces_that_of_the_same_pair_in_either_order(tmp_path):
    async with store(tmp_path) as one:
        one.remember(outcome("r1"))
        one.remember(outcome("r2", model="prover"))
        left, right = (
            FeedbackEvent(kind="preference", request_id=a, other_request_id=b, preference="left")
            for a, b in (("r1", "r2"), ("r2", "r1"))
        )
        assert [taken.replaced for taken in await one.add([left, right])] == [False, True]
    found = read_rated(tmp_path)
    assert [event["request_id"] for event in found.events] == ["r2"]
    assert set(found.requests) == {"r1", "r2"}


async def test_what_cannot_be_rated_is_told_apart(tmp_path):
    async with store(tmp_path, max_age_s=100.0, most=3) as one:
        one.remember(outcome("old", at=time.time() - 150))
        one.remember(outcome("r1"))
        one.remember(outcome("r2"))
        pair = FeedbackEvent(
            kind="preference", request_id="r1", other_request_id="never", preference="tie"
        )
        taken = await one.add([rating("old", 1), rating("never", 1), pair, rating("r1", 1)])
        told = [(each.status, each.request_id) for each in taken]
        assert told == [
            ("too_old", "old"), ("unknown", "never"), ("unknown", "never"), ("kept", "r1")
        ]  # fmt: skip
        for name in ("r3", "r4", "r5"):
            one.remember(outcome(name))
        taken = await one.add([rating("r2", 1), rating("r1", 0), rating("r5", 0)])
        # r1 is among the rated ones, which stay
        assert [each.status for each in taken] == ["unknown", "kept", "kept"]
    assert len(read_rated(tmp_path).events) == 2


async def test_requests_of_twice_the_age_are_deleted(tmp_path):
    async with store(tmp_path, max_age_s=100.0) as one:
        one.remember(outcome("old", at=time.time() - 201))
        one.remember(outcome("new"))
    with sqlite3.connect(tmp_path / DATABASE) as db:
        assert [row[0] for row in db.execute("SELECT request_id FROM recent")] == ["new"]
    db.close()


async def test_events_at_the_same_time_are_each_kept_once(tmp_path):
    async with store(tmp_path) as one, store(tmp_path) as other:
        for i in range(200):
            one.remember(outcome(f"r{i}"))
        sent = [
            asyncio.create_task(
                (one if turn else other).add([rating(f"r{i}", 0.5, idempotency_key=f"k{i}")])
            )
            for i in range(200)
            for turn in (0, 1)
        ]
        sent[7].cancel()  # a client that goes away takes nobody along
        answers = await asyncio.gather(*sent, return_exceptions=True)
        statuses = [each[0].status for each in answers if not isinstance(each, BaseException)]
        assert statuses == ["kept"] * 399
    assert len(read_rated(tmp_path).events) == 200


async def test_a_database_that_cannot_be_written_fails_events_and_keeps_requests(tmp_path):
    async with store(tmp_path) as one:
        one.remember(outcome("r1"))
        await one.add([])
        with sqlite3.connect(tmp_path / DATABASE, isolation_level=None) as db:
            db.execute("ALTER TABLE recent RENAME TO away")
            one.remember(outcome("r2"))
            with pytest.raises(StorageError, match=DATABASE):
                await one.add([rating("r1", 1)])
            db.execute("ALTER TABLE away RENAME TO recent")
        db.close()
        taken = await one.add([rating("r1", 1), rating("r2", 1)])
        assert [each.status for each in taken] == ["kept", "kept"]


async def test_a_folder_that_is_none_and_another_version_are_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        async with store(tmp_path / "file"):
            pass
    with pytest.raises(StorageMissingError, match="feedback_dir"):
        read_rated(tmp_path)
    with sqlite3.connect(tmp_path / DATABASE) as db:
        db.execute("PRAGMA user_version=9")
    db.close()
    with pytest.raises(StorageError, match="version 9"):
        async with store(tmp_path):
            pass


async def test_what_waits_of_a_forgotten_user_is_not_written(tmp_path):
    async with store(tmp_path) as one:
        one.remember(outcome("r1", user="bob"))
        await one.add([])
        for name in ("ann", "bob"):
            one.remember(outcome(f"waits-{name}", user=name))
        forget_user(tmp_path, "ann")
        one.remember(outcome("later", user="ann", at=time.time() + 1))
        wanted = ("waits-ann", "waits-bob", "later")
        taken = await one.add([rating(request_id, 1) for request_id in wanted])
        assert [each.status for each in taken] == ["unknown", "kept", "kept"]
