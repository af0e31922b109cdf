import pytest

from waypost.cli import output
from waypost.contracts.records import report, watching
from waypost.contracts.routing_data import write_routing_data
from waypost.pipelines.train import TrainConfig, train
from waypost.registry import make_router
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


def test_a_fit_of_auto_tells_of_its_members():
    data = planted(40)
    members = ["knnrouter", "linearrouter"]
    heard = []
    with watching(lambda *said: heard.append(said)):
        make_router("auto", {"members": members, "folds": 2}).fit(data)
    names = [name for _ in range(2) for name in members]
    assert heard[:4] == [
        (f"fits of members, now {name}", done, 4) for done, name in enumerate(names)
    ]
    assert heard[4][0].startswith("final fits, now ")


def test_without_a_terminal_progress_is_a_line_every_ten_seconds(monkeypatch, capsys):
    now = iter([0.0, 1.0, 3.0, 12.0, 14.0, 60.0])
    monkeypatch.setattr(output.time, "monotonic", lambda: next(now))
    with output.progress_bar("routers") as progress:
        for done in range(4):
            progress(done, 4)
        progress(4, 4)  # the result follows
    assert capsys.readouterr().err == "routers: 1 of 4\nrouters: 3 of 4\n"


def test_training_tells_of_its_folds(tmp_path):
    write_routing_data(tmp_path / "data", planted(40))
    heard = []
    with watching(lambda *said: heard.append(said)):
        config = TrainConfig(router="knnrouter", encoder=ENCODER_ID, folds=3)
        train(config, tmp_path / "data", tmp_path / "a")
    assert heard == [("cross-validation", fold, 3) for fold in range(3)]
