"""The bench of off-policy estimators: a small run over routing data."""

from waypost.bench import ope
from waypost.bench._logged_world import draw_log, made_up_world, recorded_world
from waypost.bench.harness import Tell
from waypost.contracts.routing_data import write_routing_data
from waypost.testing.synthetic import ENCODER_ID, planted


def test_a_run_tells_each_estimator_for_each_share(tmp_path):
    for split, seed in (("train", 0), ("test", 5)):
        write_routing_data(tmp_path, planted(60, seed=seed), split)
    options = ope.Options(data=tmp_path, encoder=ENCODER_ID, seeds=2, rows=300, draws=100)
    found = ope.run(options, Tell())
    assert found.figures["agreement"] == 0.5  # best single answers one of the two topics
    assert found.figures["value"] > 0.9
    assert set(found.figures["rows"]) == {"0.05", "0.2"}
    titles = [*ope.TITLES.values(), ope.BY_ROW]
    for table in found.tables:
        assert [row[0] for row in table.rows] == titles
    assert len(found.aims) == 4


def test_a_world_of_recorded_scores_knows_the_true_value(tmp_path):
    data = planted(60, seed=5)
    write_routing_data(tmp_path, planted(60), "train")
    write_routing_data(tmp_path, data, "test")
    world = recorded_world(tmp_path, "best_single", "knnrouter", ENCODER_ID)
    assert world.value == data.quality.max(axis=1).mean()


def test_a_log_has_the_exploration_that_it_says():
    log = draw_log(made_up_world(), rows=4000, users=50, exploration=0.2, taste=0.0)
    logged = log.logged
    assert abs((logged.propensity < 0.5).mean() - 0.2 * 3 / 4) < 0.02
    assert set(logged.rewards[:, 0]) == {0.0, 1.0}
    assert (log.policy.sum(axis=1) == 1).all()
