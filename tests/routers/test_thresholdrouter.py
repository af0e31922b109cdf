import numpy as np
import pytest

from waypost.contracts.errors import SchemaError
from waypost.contracts.records import Query
from waypost.contracts.router import QueryBatch
from waypost.testing.synthetic import planted
from waypost.testing.tables import outcomes
from waypost_routers.thresholdrouter import ThresholdRouter, _curves, _difficulty


def on_a_line(n=400, seed=0):
    """Questions on an arc from easy to hard: weak falls early, strong late, flat not at all."""
    draw = np.random.default_rng(seed)
    t = np.linspace(-1, 1, n)
    vectors = np.stack([np.cos(t), np.sin(t)], axis=1)
    weak, strong = 1 / (1 + np.exp(8 * t)), 1 / (1 + np.exp(3 * (t - 0.6)))
    scores = {
        "weak": list((draw.random(n) < weak).astype(float)),
        "strong": list((draw.random(n) < strong * 0.9).astype(float)),
    }
    return outcomes(scores, vectors=vectors)


def batch_at(*t):
    rows = np.stack([np.cos(t), np.sin(t)], axis=1).astype(np.float32)
    return QueryBatch(tuple(Query(f"q{i}") for i in range(len(rows))), rows)


def test_difficulty_is_one_less_the_mean_score():
    quality = np.array([[1.0, 0.5], [0.0, 0.0]])
    assert _difficulty(quality, quality.mean(axis=0)).tolist() == [0.25, 1.0]


def test_an_unmeasured_cell_follows_the_measured_ones():
    # b scores .25 on average; on the second question a is .5 below its mean, so b counts likewise
    quality = np.array([[1.0, 0.25], [0.0, np.nan]])
    mean = np.array([0.5, 0.25])
    assert _difficulty(quality, mean).tolist() == pytest.approx([1 - 0.625, 1 - (0.375 - 0.5)])


def test_curves_find_the_slopes_that_made_the_scores():
    difficulty = np.linspace(0, 1, 4000)
    inner = np.stack([2 - 5 * difficulty, 1 - difficulty, -1 + 2 * difficulty], axis=1)
    level, slope = _curves(difficulty, 1 / (1 + np.exp(-inner)), np.ones(4000))
    assert level == pytest.approx([2, 1, -1], abs=0.1)
    assert slope == pytest.approx([5, 1, -2], abs=0.2)


def test_easy_goes_to_the_weak_and_hard_to_the_strong():
    data = on_a_line()
    router = ThresholdRouter().fit(data)
    batch = batch_at(-1.0, 1.0)
    easy, hard = router.predict_quality(batch)
    assert easy[0] > easy[1]
    assert hard[1] > hard[0]
    assert easy[0] > hard[0]


def test_the_threshold_is_where_the_two_are_predicted_alike():
    router = ThresholdRouter().fit(on_a_line())
    threshold = router.threshold("weak", "strong")
    t = np.linspace(-1, 1, 4001)
    batch = batch_at(*t)
    difficulty = router.ridge_.predict(batch.embeddings)[:, 0]
    nearest = int(np.abs(difficulty - threshold).argmin())
    weak, strong = router.predict(batch).quality[nearest]
    assert weak == pytest.approx(strong, abs=1e-3)
    assert router.threshold("strong", "weak") == pytest.approx(threshold)


def test_parallel_curves_have_no_threshold():
    router = ThresholdRouter().fit(on_a_line())
    assert router.threshold("weak", "weak") is None


def test_an_unknown_name_is_named():
    with pytest.raises(SchemaError, match="nobody"):
        ThresholdRouter().fit(planted(20)).threshold("cook", "nobody")


@pytest.mark.parametrize(("holds", "parallel"), [(True, False), (False, True)])
def test_curves_that_do_not_hold_out_of_sample_are_drawn_together(holds, parallel):
    class Router(ThresholdRouter):
        def _holds(self, outside, quality, weight):
            return holds

    slopes = Router().fit(planted(120)).slope_
    assert (np.ptp(slopes) < 1e-9) == parallel
