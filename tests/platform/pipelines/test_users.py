import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from waypost.cli import command
from waypost.contracts.errors import SchemaError
from waypost.contracts.families import family_of
from waypost.contracts.feedback import events_path, read_events
from waypost.contracts.routing_data import read_routing_data, write_routing_data
from waypost.pipelines.data.tastes import Scale, seconds
from waypost.pipelines.data.users import make_world, noise_scale
from waypost.testing.synthetic import planted

SMALL = {"users": 20, "events": 12, "visible": 6, "targets": 8}


@pytest.fixture(scope="module")
def world():
    return make_world(planted(120), planted(60, seed=1), seed=3, **SMALL)


def test_families():
    names = ("codegemma-7b", "google/gemma-2-9b-it", "Mixtral-8x7B", "mistral-7b", "qwen1.5-7b")
    assert [family_of(name) for name in names] == ["gemma", "gemma", "mistral", "mistral", "qwen"]


def test_satisfaction_falls_with_the_logarithm_of_amounts():
    scale = Scale(("right", "cheap"), np.array([[0.0, 0.0], [np.log(1.0), np.log(100.0)]]))
    found = scale.of_amounts([np.array([0.3, 1.0]), np.array([10.0, 1000.0])])
    assert found == pytest.approx(np.array([[0.3, 0.5], [1.0, 0.0]]))


def test_waiting_grows_with_tokens_and_size():
    waiting = seconds(np.array([[10.0, 10.0, 20.0]]), planted(1).llms)
    assert waiting[0] == pytest.approx([70.0, 560.0, 10.0])  # 7B, 8x7B, .5B


def test_without_recorded_tokens_brevity_is_no_want():
    data = planted(20)
    bare = replace(data, output_tokens=np.full(data.quality.shape, np.nan))
    assert Scale.of(bare).wants == ("right", "cheap", "quick")
    assert Scale.of(data).wants == ("right", "cheap", "short", "quick")


def test_the_noise_gives_the_true_utilities_their_auc(world):
    from sklearn.metrics import roc_auc_score

    assert world.oracle_auc == pytest.approx(0.9, abs=1e-6)
    draw = np.random.default_rng(8)
    utility = np.random.default_rng(9).normal(size=(5, 40, 4))
    beta, _ = noise_scale(utility, 0.8, draw)
    user, query = draw.integers(5, size=20_000), draw.integers(40, size=20_000)
    difference = utility[user, query, 0] - utility[user, query, 1]
    won = draw.random(20_000) < 1 / (1 + np.exp(-beta * difference))
    assert roc_auc_score(won, difference) == pytest.approx(0.8, abs=0.015)


def test_hidden_wants_are_those_of_the_issue(world):
    people = world.users
    assert people.weights.sum(axis=1) == pytest.approx(np.ones(20))
    assert people.families == ("cook", "prover", "tiny")
    one = world.utility["test"][4, 7]
    data = world.data["test"]
    by_hand = (world.scale.satisfaction(data)[7] * people.weights[4]).sum(axis=1) + people.taste[4]
    assert one == pytest.approx(by_hand)


def test_new_users_targets_are_about_unseen_questions(world):
    groups = {split: set(np.flatnonzero(world.role == i)) for i, split in enumerate(world.said)}
    assert {k: len(v) for k, v in groups.items()} == {"train": 12, "validation": 3, "test": 5}
    for split, said in world.said.items():
        assert set(said.user) == groups[split]
        of_one = said.user == said.user[0]
        wanted = (12, 0) if split == "train" else (6, 8)
        assert (int((of_one & ~said.target).sum()), int((of_one & said.target).sum())) == wanted
        assert (said.other[said.target] >= 0).all()
    texts = [set(data.queries) for data in world.data.values()]
    assert len(set.union(*texts)) == sum(map(len, texts))


def test_sessions_have_turns_about_one_subject(world):
    said, data = world.said["train"], world.data["train"]
    mine = said.user == said.user[0]
    for number in set(said.session[mine]):
        one = mine & (said.session == number)
        assert said.turn[one].tolist() == list(range(one.sum()))
        assert len({data.task_names[i] for i in said.query[one]}) == 1


def test_preferences_follow_the_true_utility(world):
    said, utility = world.said["train"], world.utility["train"]
    pair = said.other >= 0
    gain = utility[said.user, said.query, said.llm] - utility[said.user, said.query, said.other]
    assert gain[pair & (said.value == 1)].mean() > gain[pair & (said.value == 0)].mean() + 0.1
    rated = utility[said.user, said.query, said.llm][~pair]
    assert np.corrcoef(rated, said.value[~pair])[0, 1] > 0.2
    assert set(said.value[~pair]) <= {0, 0.25, 0.5, 0.75, 1}


def test_answers_without_a_score_are_refused():
    data = planted(20)
    data.quality[0, 0] = np.nan
    with pytest.raises(SchemaError, match="without a score"):
        make_world(data, planted(10, seed=1), **SMALL)


def test_the_command_writes_routing_data_with_feedback(tmp_path):
    for split, n in (("train", 120), ("test", 60)):
        write_routing_data(tmp_path / "source", planted(n, seed=n), split)
    given = [f"--{key}={value}" for key, value in SMALL.items()]
    arguments = ["data", "users", str(tmp_path / "source"), str(tmp_path / "new"), *given]
    result = CliRunner().invoke(command, [*arguments, "--seed=2", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["users"] == {"train": 12, "validation": 3, "test": 5}
    assert found["events"] == {"train": 144, "validation": 42, "test": 70}
    data = read_routing_data(tmp_path / "new")
    assert len(data.events) == 144
    assert len(data) == found["queries"]["train"]
    table = read_events(events_path(tmp_path / "new", "test"))
    test_ids = set(read_routing_data(tmp_path / "new", "test").query_ids)
    for line in table.to_pylist():
        assert (line["query_id"] in test_ids) == (line["role"] == "target")
    hidden = pq.read_table(tmp_path / "new" / "users.parquet").to_pylist()
    assert sum(v for k, v in hidden[0].items() if k.startswith("weight_")) == pytest.approx(1)
    again = CliRunner().invoke(command, arguments)
    assert again.exit_code == 2
    assert "exists" in again.output


def test_a_seed_repeats():
    one, two = (make_world(planted(60), planted(30, seed=1), seed=5, **SMALL) for _ in range(2))
    assert np.array_equal(one.users.weights, two.users.weights)
    for name, said in one.said.items():
        assert np.array_equal(said.value, two.said[name].value)
