import pytest

from waypost.contracts.records import report, watching
from waypost.contracts.routing_data import write_routing_data
from waypost.pipelines.train import TrainConfig, train
from waypost.testing.synthetic import ENCODER_ID, planted


def test_reports_reach_the_innermost_watcher_and_nobody_where_there_is_none():
    heard, inner = [], []
    report("unheard", 0, 1)
    with watching(lambda *said: heard.append(said)):
        report("a", 1, 2)
        with watching(lambda *said: inner.append(said)):
            report("b", 2, 2)
        with watching(None):
            report("unheard", 0, 1)
        report("c", 2, 2)
    report("unheard", 0, 1)
    assert heard == [("a", 1, 2), ("c", 2, 2)]
    assert inner == [("b", 2, 2)]


def test_a_failure_ends_the_watching():
    with pytest.raises(ValueError, match="x"), watching(lambda *said: None):
        raise ValueError("x")
    report("unheard", 0, 1)


def test_training_tells_of_its_folds(tmp_path):
    write_routing_data(tmp_path / "data", planted(40))
    heard = []
    with watching(lambda *said: heard.append(said)):
        config = TrainConfig(router="knnrouter", encoder=ENCODER_ID, folds=3)
        train(config, tmp_path / "data", tmp_path / "a")
    assert heard == [("cross-validation", fold, 3) for fold in range(3)]
