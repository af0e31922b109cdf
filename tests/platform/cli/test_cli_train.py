import json

import pytest
from click.testing import CliRunner

from waypost import load_router
from waypost.cli import command
from waypost.contracts.routing_data import write_routing_data
from waypost.testing.synthetic import planted

ENCODER = "hashing+d64+t512"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_routing_data(folder, planted(60))
    return folder


def train(data, out, *arguments, router="knnrouter"):
    start = ["train", "--data", str(data), "--out", str(out), "--encoder", ENCODER]
    if router:
        start += ["--router", router]
    return CliRunner().invoke(command, [*start, *arguments])


def test_train_writes_an_artifact_and_says_how_good_it_is(data, tmp_path):
    result = train(data, tmp_path / "a", "k=7", "tau=0.2", "--seed", "5")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("knnrouter ")
    assert "fitted on 60 queries, 3 LLMs" in result.stdout
    assert "5-fold cross-validation of the training split, 60 queries" in result.stdout
    assert "quality      1.0000" in result.stdout
    assert result.stderr == ""
    router = load_router(tmp_path / "a")
    assert (router.k_, router.tau) == (7, 0.2)
    assert not list(data.glob("*embeddings*"))  # it is only read


def test_json(data, tmp_path):
    result = train(data, tmp_path / "a", "--json", router="best_single")
    found = json.loads(result.stdout)
    assert found["router"] == "best_single"
    assert found["artifact"] == str(tmp_path / "a")
    validation = found["metrics"]["validation"]
    assert validation["queries"] == 60
    assert validation["gain"] == 0
    assert validation["quality"] == validation["best_single"] < validation["oracle"]


def test_seed_reaches_the_router(data, tmp_path):
    train(data, tmp_path / "a", "--seed", "5", "--folds", "0", router="randomrouter")
    assert load_router(tmp_path / "a").seed == 5


def test_no_folds_is_not_validated(data, tmp_path):
    assert "not validated" in train(data, tmp_path / "a", "--folds", "0").stdout


def test_where_nothing_can_be_written(data, tmp_path):
    (tmp_path / "file").write_text("x")
    result = train(data, tmp_path / "file" / "a", "--folds", "0", router="best_single")
    assert result.exit_code == 1
    assert f"{tmp_path / 'file' / 'a'}: cannot be written" in result.stderr


def test_a_config_file_and_what_wins_over_it(data, tmp_path):
    config = tmp_path / "train.yaml"
    config.write_text("router: knnrouter\nparameters: {k: 9, kappa: 2}\nfolds: 0\n")
    result = train(data, tmp_path / "a", "--config", str(config), "k=4", router=None)
    assert result.exit_code == 0, result.output
    router = load_router(tmp_path / "a")
    assert (router.k, router.kappa) == (4, 2)


def test_every_wrong_parameter_is_listed_before_data_is_read(tmp_path):
    result = train(tmp_path, tmp_path / "a", "k=0", "speed=1")
    assert result.exit_code == 2
    assert "2 things are wrong:" in result.stderr
    assert "k: is 0; expected a whole number from 1 or null" in result.stderr
    assert "speed: unknown parameter" in result.stderr


def test_every_wrong_key_of_the_file_is_listed(data, tmp_path):
    config = tmp_path / "train.yaml"
    config.write_text("folds: -1\ncolor: red\n")
    result = train(data, tmp_path / "a", "--config", str(config))
    assert result.exit_code == 2
    assert f"{config}: color: unknown key" in result.stderr
    assert f"{config}: folds: " in result.stderr


def test_faults_of_file_command_router_and_encoder_are_listed_together(data, tmp_path):
    config = tmp_path / "train.yaml"
    text = "router: knnrouter\nfolds: -1\ncolor: red\nparameters: {k: 0, tau: 1}\n"
    config.write_text(text)
    given = ("--config", str(config), "--encoder", "psychic", "kappa=-1", "speed", "tau=0.5")
    result = train(data, tmp_path / "a", *given, router=None)
    assert result.exit_code == 2
    assert result.stderr.startswith("6 things are wrong:")
    for said in (
        "option 'parameters.speed': expected key=value",
        f"{config}: folds: ",
        f"{config}: color: unknown key",
        "knnrouter: k: is 0",
        "knnrouter: kappa: is -1",
        f"{config}: no encoder 'psychic'",
    ):
        assert said in result.stderr


@pytest.mark.parametrize(
    ("arguments", "router", "said"),
    [
        (["k"], "knnrouter", "expected key=value"),
        ([], "nonsense", "no router is named 'nonsense'"),
        ([], None, "name a router"),
        (["--encoder", "psychic"], "knnrouter", "no encoder 'psychic'"),
        (["--seed", "-1"], "knnrouter", "--seed"),
    ],
)
def test_wrong_input_ends_with_2(data, tmp_path, arguments, router, said):
    result = train(data, tmp_path / "a", *arguments, router=router)
    assert result.exit_code == 2
    assert said in result.output
    assert not (tmp_path / "a").exists()


def test_data_that_is_no_routing_data_ends_with_1(tmp_path):
    (tmp_path / "empty").mkdir()
    result = train(tmp_path / "empty", tmp_path / "a")
    assert result.exit_code == 1
    assert "routing_train.parquet: no such file" in result.stderr


@pytest.mark.parametrize("name", ["mine", "mine/notes.txt"])
def test_what_is_no_artifact_is_not_overwritten_and_said_before_data_is_read(tmp_path, name):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    result = train(tmp_path, tmp_path / name)
    assert result.exit_code == 1
    assert f"{tmp_path / name}: exists and is not an artifact" in result.stderr
    assert (tmp_path / "mine" / "notes.txt").read_text() == "x"
