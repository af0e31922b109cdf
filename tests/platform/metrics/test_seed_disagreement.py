import numpy as np
import pytest

from waypost.contracts.routing_data import write_routing_data
from waypost.pipelines.evaluation.run import EvaluateConfig, evaluate
from waypost.registry import make_trainable
from waypost.report.markdown import render
from waypost.report.numbers import plain
from waypost.testing.synthetic import ENCODER_ID, planted

ROUTERS = ("randomrouter:seed=3", "best_single", "knnrouter")
TRAIN, TEST = planted(12), planted(40, seed=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_routing_data(folder, TRAIN, "train")
    write_routing_data(folder, TEST, "test")
    return folder


def report_of(folder, *metrics):
    config = EvaluateConfig(routers=ROUTERS, encoder=ENCODER_ID, lambdas=(0,), metrics=metrics)
    return evaluate(config, folder).report


def test_it_is_the_share_of_questions_that_two_seeds_route_apart(folder):
    report = report_of(folder, "seed_disagreement")
    found = {name: row["seed_disagreement"] for name, row in report["routers"].items()}
    three, four = (
        [router.route_single(text)["model_name"] for text in TEST.queries]
        for router in (make_trainable("randomrouter", {"seed": n}).fit(TRAIN) for n in (3, 4))
    )
    assert found[ROUTERS[0]] == np.mean([a != b for a, b in zip(three, four, strict=True)])
    assert 0.2 < found[ROUTERS[0]] < 1
    assert np.isnan(found["best_single"])  # its fit has no seed
    heads = next(line for line in render(plain(report)).splitlines() if "| flips |" in line)
    assert "| seeds apart |" in heads


def test_it_is_computed_on_request_only(folder):
    report = report_of(folder)
    assert all(np.isnan(row["seed_disagreement"]) for row in report["routers"].values())
    heads = next(line for line in render(plain(report)).splitlines() if "| flips |" in line)
    assert "seeds apart" not in heads
