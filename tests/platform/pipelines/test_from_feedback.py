"""From feedback and votes to routing data that routers are trained on, and back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from support.outcomes import DECISION, outcome
from waypost.cli import command
from waypost.contracts.errors import SchemaError
from waypost.contracts.feedback import FeedbackEvent, read_events
from waypost.contracts.routing_data import read_routing_data
from waypost.contracts.splits import leaks
from waypost.feedback import FeedbackStore
from waypost.pipelines.data.from_feedback import from_feedback
from waypost.pipelines.data.votes import export_votes, import_votes
from waypost.testing.synthetic import ENCODER_ID, planted


def rated(folder: Path, *, keep_queries: bool = True) -> None:
    """Have every LLM answer planted questions, and rate each answer with its score."""

    async def run() -> None:
        store = FeedbackStore(folder, keep_queries=keep_queries, most=10_000, max_age_s=1e6)
        await store.start()
        data = planted()
        events = []
        for i, text in enumerate(data.queries[:40]):
            for j, model in enumerate(data.names):
                request_id = f"{i}-{j}"
                store.remember(outcome(request_id, text, f"u{i % 3}", model=model))
                score = float(data.quality[i, j])
                events.append(FeedbackEvent(kind="rating", request_id=request_id, rating=score))
        store.remember(outcome("again", f"  {data.queries[0].upper()}!", "v", model="cook"))
        events.append(FeedbackEvent(kind="verdict", request_id="again", verdict="wrong"))
        pair = {"request_id": "1-0", "other_request_id": "1-1", "preference": "right"}
        events.append(FeedbackEvent(kind="preference", user_id="w", **pair))
        await store.add(events)
        await store.close()

    asyncio.run(run())


def test_ratings_become_routing_data_that_a_router_learns_from(tmp_path):
    rated(tmp_path / "feedback")
    run = CliRunner().invoke
    made = run(command, ["data", "from-feedback", str(tmp_path / "feedback"), str(tmp_path / "d")])
    assert made.exit_code == 0, made.output
    train, test = (read_routing_data(tmp_path / "d", split) for split in ("train", "test"))
    known = planted()
    assert len(train) + len(test) == 40  # the repeated question is one question
    assert not leaks(train.queries, test.queries).any()
    assert set(train.names) == set(known.names)
    scores = {}
    for data in (train, test):
        for i, text in enumerate(data.queries):
            for j, name in enumerate(data.names):
                scores[text, name] = data.quality[i, j]
    first, second = known.queries[:2]
    column = known.names.index("cook")
    # the mean of a rating and the verdict "wrong"; of a rating and a lost or won preference
    assert scores[first, "cook"] == pytest.approx(known.quality[0, column] / 2)
    assert scores[second, known.names[0]] == pytest.approx(known.quality[1, 0] / 2)
    assert scores[second, known.names[1]] == pytest.approx((known.quality[1, 1] + 1) / 2)
    rows = pq.read_table(tmp_path / "d" / "routing_train.parquet").to_pylist()
    for row in rows:
        assert row["propensity"] == (0.75 if row["model_name"] == DECISION.model else None)
        assert (row["input_tokens"], row["cost_usd"]) == (10, 0.001)
    events = [
        event
        for split in ("train", "test")
        for event in read_events(tmp_path / "d" / f"feedback_{split}.parquet").to_pylist()
    ]
    assert len(events) == 122
    assert {event["user_id"] for event in events} == {"u0", "u1", "u2", "v", "w"}
    (pair,) = (event for event in events if event["kind"] == "preference")
    assert [pair["model_name"], pair["other_model_name"]] == list(known.names[:2])
    assert {"propensity", "router", "lambda"} <= set(events[0])
    trained = run(
        command,
        [
            "train", "--data", str(tmp_path / "d"), "--router", "knnrouter", "--encoder",
            ENCODER_ID, "--out", str(tmp_path / "artifact"),
        ],
    )  # fmt: skip
    assert trained.exit_code == 0, trained.output


def test_without_texts_or_events_there_is_nothing_to_learn(tmp_path):
    rated(tmp_path / "feedback", keep_queries=False)
    with pytest.raises(SchemaError, match="log_queries: true"):
        from_feedback(tmp_path / "feedback", tmp_path / "d")
    assert not (tmp_path / "d").exists()
    (tmp_path / "empty").mkdir()
    given = ["data", "from-feedback", str(tmp_path / "empty"), str(tmp_path / "d")]
    bad = CliRunner().invoke(command, given)
    assert bad.exit_code != 0
    assert "feedback_dir" in bad.output


def test_forgetting_by_the_command_line(tmp_path):
    rated(tmp_path / "feedback")
    done = CliRunner().invoke(
        command, ["data", "forget", "--user", "u0", "--json", str(tmp_path / "feedback")]
    )
    found = json.loads(done.output)
    assert found["events"] >= 40
    assert found["requests"] > 0
    again = from_feedback(tmp_path / "feedback", tmp_path / "d")
    users = {
        event["user_id"]
        for split in again["splits"]
        for event in read_events(tmp_path / "d" / f"feedback_{split}.parquet").to_pylist()
    }
    assert users == {"u1", "u2", "v", "w"}


def line(kind: str, left: str, right: str, question: str, ip: str, *, named: bool = True) -> str:
    states = [
        {
            "template_name": model, "system_message": "", "roles": ["USER", "ASSISTANT"],
            "messages": [["USER", "hello"], ["ASSISTANT", "hi"], ["USER", question],
                         ["ASSISTANT", f"{model} says"]],
            "offset": 0, "conv_id": f"c-{model}-{question}", "model_name": model,
        }
        for model in (left, right)
    ]  # fmt: skip
    models = [left, right] if named else ["", ""]
    return json.dumps({"tstamp": 1.7e9, "type": kind, "models": models, "states": states, "ip": ip})


def test_votes_go_in_and_out_again(tmp_path):
    log = tmp_path / "conv.json"
    log.write_text(
        "\n".join(
            [
                line("leftvote", "a", "b", "how to bake bread at home?", "1.1.1.1"),
                line("rightvote", "a", "b", "prove that two is a prime", "2.2.2.2", named=False),
                line("tievote", "b", "c", "name the planets in order", "1.1.1.1"),
                line("bothbad_vote", "a", "c", "write a song on the sea", "3.3.3.3"),
                json.dumps({"type": "chat", "model": "a"}),
                line("leftvote", "a", "b", "", "1.1.1.1"),
            ]
        )
    )
    found = import_votes([log], tmp_path / "data", test=0.25)
    assert (found["votes"], found["left_out"]) == (5, 1)
    rows = {
        (row["query"], row["model_name"]): row
        for split in found["splits"]
        for row in pq.read_table(tmp_path / "data" / f"routing_{split}.parquet").to_pylist()
    }
    assert len(rows) == 8
    assert rows["prove that two is a prime", "b"]["performance"] == 1.0
    assert rows["prove that two is a prime", "a"]["performance"] == 0.0
    assert rows["name the planets in order", "c"]["performance"] == 0.5
    assert rows["write a song on the sea", "a"]["performance"] == 0.0
    assert rows["name the planets in order", "b"]["response"] == "b says"
    for path in (tmp_path / "data").iterdir():
        assert b"1.1.1.1" not in path.read_bytes()
    out = tmp_path / "votes.jsonl"
    assert export_votes(tmp_path / "data", out) == {"votes": 4, "left_out": 0}
    again = import_votes([out], tmp_path / "again", test=0.25)
    assert again["splits"] == found["splits"]
    votes = [json.loads(text) for text in out.read_text().splitlines()]
    assert {vote["user_id"] for vote in votes} == {"arena_user_0", "arena_user_1", "arena_user_2"}
    by_type = {vote["type"]: vote for vote in votes}
    assert set(by_type) == {"leftvote", "rightvote", "tievote", "bothbad_vote"}
    state = by_type["leftvote"]["states"][0]
    assert state["messages"] == [["user", "how to bake bread at home?"], ["assistant", "a says"]]


def test_wrong_vote_files_are_told(tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{}\nnot json\n")
    with pytest.raises(SchemaError, match="line 2"):
        import_votes([bad], tmp_path / "data")
    bad.write_text("{}\n")
    with pytest.raises(SchemaError, match="no usable vote"):
        import_votes([bad], tmp_path / "data")
    with pytest.raises(SchemaError, match="no votes in it"):
        export_votes(tmp_path, tmp_path / "out.jsonl")
