import pytest
from click.testing import CliRunner

from waypost.cli import command
from waypost.cli.new_router import class_name, write_plugin
from waypost.contracts.errors import ConfigError
from waypost.registry import find_router, make_router, make_trainable
from waypost.testing.synthetic import planted


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments, code=0):
    result = CliRunner().invoke(command, ["new-router", *arguments])
    assert result.exit_code == code, result.output
    return result


def test_a_score_router_is_written_and_said_where(tmp_path):
    said = run("mine").stdout
    folder = tmp_path / "custom_routers" / "mine"
    names = ["config.yaml", "router.py", "test_mine.py"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]
    assert "wrote custom_routers/mine/router.py" in said
    assert "waypost train --router mine" in said
    assert "WAYPOST_PLUGINS" not in said
    router = make_router("mine")
    assert (type(router).__name__, router.get_params()) == ("MineRouter", {"alpha": 1.0})
    assert find_router("mine").summary.startswith("Ridge regression")


def test_the_score_router_is_ridge_regression(tmp_path):
    import numpy as np

    run("mine")
    data = planted(30)
    router = make_trainable("mine", {"alpha": 2.0}).fit(data)
    x = np.c_[data.embeddings, np.ones(30)].astype(np.float64)
    penalty = np.diag([2.0] * data.embeddings.shape[1] + [0.0])  # the offset is not pulled
    expected = np.linalg.solve(x.T @ x + penalty, x.T @ data.quality)
    np.testing.assert_allclose(router.weights_, expected[:-1], atol=1e-8)
    np.testing.assert_allclose(router.offsets_, expected[-1], atol=1e-8)


def test_another_folder_is_said_to_need_naming(tmp_path):
    said = run("mine", "--dir", "plugs").stdout
    assert f"export WAYPOST_PLUGINS={tmp_path / 'plugs'}" in said
    assert (tmp_path / "plugs" / "mine" / "router.py").is_file()


@pytest.mark.parametrize("name", ["my-router", "2fast", "class", "_mine", "", "né", "a/b", "../a"])
def test_a_name_that_cannot_be_one(tmp_path, name):
    said = run("--", name, code=2).stderr
    assert "expected a letter, then letters, digits and _" in said
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken(tmp_path):
    assert "a router of that name exists: built-in" in run("knnrouter", code=2).stderr
    run("mine")
    assert "a router of that name exists: folder" in run("mine", "--dir", "other", code=2).stderr
    assert not (tmp_path / "other").exists()


def test_a_folder_that_exists_is_left_alone(tmp_path):
    (tmp_path / "plugs" / "mine").mkdir(parents=True)
    (tmp_path / "plugs" / "mine" / "thesis.txt").write_text("precious")
    assert "exists; choose another name" in run("mine", "--dir", "plugs", code=2).stderr
    assert [path.name for path in (tmp_path / "plugs" / "mine").iterdir()] == ["thesis.txt"]


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="cannot be made"):
        write_plugin("mine", "score", tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mine", "MineRouter"),
        ("my_router", "MyRouter"),
        ("score_router", "MyScoreRouter"),
        ("prediction", "PredictionRouter"),
        ("knn2", "Knn2Router"),
    ],
)
def test_the_class_has_a_name_that_hides_no_import(name, expected):
    assert class_name(name) == expected
