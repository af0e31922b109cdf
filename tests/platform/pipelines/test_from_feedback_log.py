"""Routing data of feedback with its decision log: what the log adds, and that routers take it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from support.outcomes import DECISION, outcome
from waypost.cli import command
from waypost.contracts.errors import StorageMissingError
from waypost.contracts.feedback import FeedbackEvent
from waypost.contracts.generation import Usage
from waypost.contracts.routing_data import RoutingData, read_routing_data
from waypost.contracts.splits import leaks
from waypost.encoders import make_encoder
from waypost.feedback import DecisionLog, FeedbackStore
from waypost.pipelines.data.from_feedback import from_feedback
from waypost.pipelines.evaluation.run import EvaluateConfig, evaluate
from waypost.pipelines.train import TrainConfig, train
from waypost.testing.synthetic import ENCODER_ID, planted
from waypost.tune.config import check_sweep
from waypost.tune.folds import CrossValidation
from waypost.tune.journal import Task
from waypost.tune.trial import measure

N = 40


def serve(folder: Path, *, texts: bool = True, texts_in_log: bool = True) -> None:
    """Answer planted questions by every LLM, rate some answers, and log all."""
    data, draw = planted(), np.random.default_rng(0)

    async def run() -> None:
        store = FeedbackStore(folder / "fb", keep_queries=texts, most=10_000, max_age_s=1e6)
        log = DecisionLog(str(folder / "log"), keep_queries=texts_in_log)
        await store.start()
        await log.start()
        events = []
        for i, text in enumerate(data.queries[:N]):
            for j, model in enumerate(data.names):
                made = replace(DECISION, model=model, ranking=data.names, cost_usd={model: 0.003})
                usd = float(data.cost_usd[i, j])
                told = {"model": model, "decision": made, "cost_usd": usd, "usage": Usage(9, 30)}
                one = outcome(f"{i}-{j}", text, f"u{i % 3}", **told)
                store.remember(one)
                log.add(one)
                if j == i % 3 or draw.random() < 0.7:
                    score = float(data.quality[i, j])
                    event = FeedbackEvent(kind="rating", request_id=f"{i}-{j}", rating=score)
                    events.append(event)
        # nobody rated these: one asks the first question again, of an LLM that was rated on it
        again = {"model": data.names[0], "cost_usd": 0.5, "usage": Usage(19, 50)}
        log.add(outcome("again", data.queries[0].upper(), "v", **again))
        log.add(outcome("other", "who has not been rated by anybody?", "v"))
        log.add(outcome("failed", data.queries[0], "v", model=None, usage=None, cost_usd=None))
        log.add(outcome("stranger", data.queries[0], "v", model="another LLM"))
        pinned = replace(DECISION, model="tiny", router="pinned", propensity=1.0)
        log.add(outcome("pinned", data.queries[1], "v", model="tiny", decision=pinned))
        await store.add(events)
        await store.close()
        await log.close()

    asyncio.run(run())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logged")
    serve(folder)
    told = from_feedback(folder, folder / "data")
    return folder, told


def rows_of(folder: Path) -> dict[tuple[str, str], dict]:
    return {
        (row["query"], row["model_name"]): row
        for path in folder.glob("routing_*.parquet")
        for row in pq.read_table(path).to_pylist()
    }


def test_the_log_adds_what_nobody_rated(made):
    folder, told = made
    data, rows = planted(), rows_of(folder / "data")
    assert told["missing"] == []
    assert told["logged"] == 3 * N + 3  # all but the failed one and that about another question
    assert told["llms"] == sorted(data.names)
    assert len(rows) == 3 * N
    unrated = [row for row in rows.values() if row["ratings"] == 0]
    assert unrated
    assert all(row["performance"] is None and row["cost_usd"] > 0 for row in unrated)
    row = rows[data.queries[0], data.names[0]]
    assert (row["requests"], row["ratings"]) == (2, 1)
    assert row["cost_usd"] == pytest.approx((data.cost_usd[0, 0] + 0.5) / 2)
    assert (row["input_tokens"], row["output_tokens"]) == (14, 40)
    assert row["predicted_usd"] == pytest.approx((0.003 + 0.002) / 2)
    assert row["predicted_quality"] == 0.75
    assert row["characters"] == len(data.queries[0])
    # who is asked by name was not chosen by a router
    assert rows[data.queries[1], "tiny"]["propensity"] == 0.75
    assert rows[data.queries[1], "tiny"]["requests"] == 2


def test_train_tune_and_evaluate_take_it(made, tmp_path):
    folder, _ = made
    data = folder / "data"
    training, test = (read_routing_data(data, split) for split in ("train", "test"))
    assert not leaks(training.queries, test.queries).any()
    assert np.isnan(training.quality).any()
    config = TrainConfig(router="knnrouter", encoder=ENCODER_ID, folds=0)
    train(config, data, tmp_path / "artifact")
    assert (tmp_path / "artifact" / "manifest.json").is_file()
    found = evaluate(EvaluateConfig(routers=("knnrouter",), encoder=ENCODER_ID), data).report
    assert found["routers"]
    sweep = {
        "router": "knnrouter",
        "space": {"k": {"type": "choice", "values": [1, 3]}},
        "encoder": ENCODER_ID,
        "folds": 2,
        "budget": {"trials": 1},
    }
    checked = check_sweep(sweep, "sweep.yaml")
    # one trial as `waypost tune` runs it, in this process
    trial = measure(
        CrossValidation.of(checked, embedded(training), ()), Task(1, "a", {"k": 3}, {"k": 3})
    )
    assert trial.status == "done"
    assert trial.score > 0.6


def embedded(data: RoutingData) -> RoutingData:
    encoder = make_encoder(ENCODER_ID)
    return data.with_embeddings(encoder.encode(data.queries), encoder.id)


def test_texts_that_one_side_lacks_are_those_of_the_other(tmp_path):
    for name, kept in (("a", {"texts": False}), ("b", {"texts_in_log": False})):
        serve(tmp_path / name, **kept)
        told = from_feedback(tmp_path / name, tmp_path / name / "data")
        assert told["without_text"] == 0
        assert told["missing"] == []
        assert len(rows_of(tmp_path / name / "data")) == 3 * N


def test_what_is_missing_is_said(made, tmp_path):
    folder, _ = made
    run = CliRunner().invoke
    source, out = str(folder / "fb"), str(tmp_path / "data")
    alone = run(command, ["data", "from-feedback", source, out])
    assert alone.exit_code == 0
    assert "set decision_log in the Serve file, or give --decisions" in alone.output
    out = str(tmp_path / "both")
    both = run(command, ["data", "from-feedback", source, "--decisions", str(folder / "log"), out])
    assert both.exit_code == 0
    assert "decision_log" not in both.output
    with pytest.raises(StorageMissingError, match="says nothing of how good"):
        from_feedback(folder / "log", tmp_path / "none")
