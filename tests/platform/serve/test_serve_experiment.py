"""Experiments: shares of users whose requests different routers decide."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from support.gateway import ALGEBRA, chat, running
from waypost.contracts.errors import ConfigError
from waypost.serve.comparing import ExperimentArgs

CHAT = "/v1/chat/completions"
USERS = [f"user-{i}" for i in range(6000)]


def experiment(arms: dict[str, float], **changes: Any) -> ExperimentArgs:
    return ExperimentArgs(**({"name": "trial", "arms": arms} | changes))


def arms_of(given: ExperimentArgs) -> list[str]:
    return [given.arm({"user_id": user}, "r").router for user in USERS]


def moved(before: list[str], after: list[str]) -> Counter[tuple[str, str]]:
    pairs = zip(before, after, strict=True)
    return Counter((one, other) for one, other in pairs if one != other)


def test_each_arm_has_its_share_and_an_order_of_arms_changes_nothing():
    found = arms_of(experiment({"a": 0.5, "b": 0.3, "c": 0.2}))
    for arm, share in {"a": 0.5, "b": 0.3, "c": 0.2}.items():
        assert abs(found.count(arm) / len(USERS) - share) < 4 * 0.0065
    assert arms_of(experiment({"c": 0.2, "b": 0.3, "a": 0.5})) == found


def test_other_shares_move_as_few_users_as_they_must_between_two_arms():
    half = arms_of(experiment({"a": 0.5, "b": 0.5}))
    changed = moved(half, arms_of(experiment({"a": 0.6, "b": 0.4})))
    assert set(changed) == {("b", "a")}
    assert abs(changed["b", "a"] / len(USERS) - 0.1) < 4 * 0.004
    ended = moved(half, arms_of(experiment({"a": 1.0})))
    assert set(ended) == {("b", "a")}


def test_with_three_arms_users_move_only_to_arms_that_grew_against_theirs():
    before = arms_of(experiment({"a": 0.4, "b": 0.3, "c": 0.3}))
    changed = moved(before, arms_of(experiment({"a": 0.5, "b": 0.3, "c": 0.2})))
    assert set(changed) == {("b", "a"), ("c", "a"), ("c", "b")}
    # a tenth must move; the bound is 2 d / (1 + d), and cut points would move a fifth
    assert 0.09 < changed.total() / len(USERS) < 2 * 0.1 / 1.1


def test_another_salt_divides_users_anew_and_independently():
    one = arms_of(experiment({"a": 0.5, "b": 0.5}))
    assert arms_of(experiment({"a": 0.5, "b": 0.5}, name="other", salt="trial")) == one
    other = arms_of(experiment({"a": 0.5, "b": 0.5}, name="other"))
    together = sum(x == y for x, y in zip(one, other, strict=True))
    assert abs(together / len(USERS) - 0.5) < 4 * 0.0065


def test_the_unit_is_the_user_else_the_session_else_the_request():
    arms = {"a": 0.5, "b": 0.5}

    def stays(by: str, *queries: dict[str, str]) -> bool:
        given = experiment(arms, by=by)
        found = {
            tuple(given.arm(query, f"{i}-{turn}").router for turn in range(20))
            for i in range(10)
            for query in queries
        }
        return all(len(set(turns)) == 1 for turns in found)

    known = {"user_id": "u", "session_id": "s"}
    assert stays("user", known, {"session_id": "s"})
    assert not stays("user", {})
    assert stays("session", known)
    assert not stays("session", {"user_id": "u"})
    assert not stays("request", known)
    same = {experiment(arms).arm({**known, "session_id": str(i)}, "r").router for i in range(20)}
    assert len(same) == 1


@pytest.mark.parametrize(
    ("arms", "why"),
    [({"a": 0.5, "b": 0.4}, "sum to 0.9; expected 1"), ({"a": 1.5}, "less than or equal to 1"),
     ({"a": 1.0, "b": 0.0}, "greater than 0"), ({}, "at least 1")],
)  # fmt: skip
def test_shares_that_cannot_be_are_refused(arms, why):
    with pytest.raises(ValidationError, match=why):
        experiment(arms)


async def test_a_user_has_one_router_in_every_gateway_and_the_log_says_which(routers, tmp_path):
    trial = {"name": "trial", "arms": {"first": 0.5, "second": 0.5}}
    told: dict[str, set[str]] = {}
    for gateway in range(2):
        log = str(tmp_path / str(gateway))
        async with running(Path(), routers=routers, experiment=trial, decision_log=log) as up:
            for user in USERS[:20]:
                body = chat(ALGEBRA, waypost={"user_id": user})
                reply = await up.client.post(CHAT, body)
                told.setdefault(user, set()).add(reply.headers["x-waypost-router"])
            named = await up.client.post(CHAT, chat(model="first", user=USERS[0]))
            assert named.headers["x-waypost-router"] == "knnrouter"
    assert {len(names) for names in told.values()} == {1}
    assert {name for names in told.values() for name in names} == {"knnrouter", "best_single"}
    found = [row for path in tmp_path.rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    routed = [row for row in found if row["arm"] is not None]
    assert len(routed) == 40
    kind = {"first": "knnrouter", "second": "best_single"}
    for row in routed:
        assert (row["experiment"], row["arm_share"], row["propensity"]) == ("trial", 0.5, 1.0)
        assert kind[row["arm"]] == row["router"]


async def test_the_arm_that_acts_is_no_shadow_of_itself(routers, tmp_path):
    changes = {
        "experiment": {"name": "trial", "arms": {"first": 0.5, "second": 0.5}, "by": "request"},
        "shadow": ["first", "second"],
        "decision_log": str(tmp_path),
    }
    async with running(Path(), routers=routers, **changes) as up:
        for _ in range(20):
            await up.client.post("/v1/route", {"query": ALGEBRA})
    (path,) = tmp_path.rglob("*.parquet")
    found = pq.read_table(path).to_pylist()
    assert {row["arm"] for row in found} == {"first", "second"}
    assert all({row["arm"], *row["shadow_router"]} == {"first", "second"} for row in found)
    assert all(len(row["shadow_router"]) == 1 for row in found)


async def test_arms_that_are_no_routers_are_told(routers):
    trial = {"name": "trial", "arms": {"first": 0.5, "third": 0.5}}
    with pytest.raises(ConfigError, match=r"experiment.arms: 'third' is not a router"):
        async with running(Path(), routers=routers, experiment=trial):
            pass
