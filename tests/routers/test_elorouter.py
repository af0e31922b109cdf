import numpy as np
import pytest

from waypost.contracts.errors import ConfigError, SchemaError
from waypost.testing.synthetic import doubled, planted
from waypost.testing.tables import outcomes
from waypost_routers.elorouter import (
    POINTS,
    PRIOR_SIGMA,
    EloRouter,
    _spread,
    beats_average,
    fit_strengths,
    wins,
)


def draws(n=400, seed=0):
    """Three LLMs right with chances .8, .5 and .3, whatever the question."""
    draw = np.random.default_rng(seed)
    right = (draw.random((n, 3)) < [0.8, 0.5, 0.3]).astype(float)
    scores = {name: list(right[:, j]) for j, name in enumerate(("good", "fair", "poor"))}
    return outcomes(scores, vectors=draw.normal(size=(n, 12)))


# -- battles --------------------------------------------------------------------------------


def test_a_tie_is_half_a_win_each_way_and_unmeasured_is_no_battle():
    won = wins(np.array([[1.0, 0.0, 1.0], [0.5, np.nan, 0.2]]))
    assert won[0].tolist() == [[0, 1, 0.5], [0, 0, 0], [0.5, 1, 0]]
    assert won[1].tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_two_llms_have_the_odds_of_their_wins():
    # of 1000 battles 750 won: the prior (one battle is 1/5 or so of its weight) moves it little
    strength = fit_strengths(np.array([[0.0, 750.0], [250.0, 0.0]]), np.zeros(2))
    assert strength[0] - strength[1] == pytest.approx(np.log(3), abs=1e-3)


def test_an_llm_that_never_won_has_the_strength_of_highest_density():
    won = np.array([[0.0, 20.0], [0.0, 0.0]])
    one, other = fit_strengths(won, np.zeros(2))
    assert one == pytest.approx(-other)
    # where the gradient is 0: 20 (1 - p) = one / sigma^2
    p = 1 / (1 + np.exp(other - one))
    assert 20 * (1 - p) == pytest.approx(one / PRIOR_SIGMA**2, rel=1e-6)


def test_many_fits_at_once_are_each_alone():
    won = np.random.default_rng(0).random((5, 4, 4)) * 30
    together = fit_strengths(won, np.zeros(4))
    for one, strength in zip(won, together, strict=True):
        np.testing.assert_allclose(fit_strengths(one, np.zeros(4)), strength, atol=1e-12)


def test_the_chance_to_beat_the_others():
    strength = np.array([np.log(3), 0.0, 0.0])
    assert beats_average(strength) == pytest.approx([0.75, 0.375, 0.375])
    assert beats_average(np.zeros(1)).tolist() == [0.5]


# -- ratings --------------------------------------------------------------------------------


def test_plain_ratings_are_bradley_terry_s():
    data = outcomes({"a": [1.0, 1.0, 1.0, 0.0], "b": [0.0, 0.0, 1.0, 1.0]}, vectors=np.eye(4))
    router = EloRouter(weighting="plain").fit(data)
    # a: two wins, one tie, one loss; the prior holds it back a little
    won = np.array([[0.0, 2.5], [1.5, 0.0]])
    expected = 1000 + POINTS * fit_strengths(won, np.zeros(2))
    assert router.ratings_ == pytest.approx(expected)
    assert 0 < router.ratings_[0] - router.ratings_[1] < 400 * np.log10(2.5 / 1.5)


def test_intervals_hold_the_ratings_and_narrow_with_questions():
    few, many = (EloRouter(weighting="plain").fit(draws(n)) for n in (100, 1600))
    for router in (few, many):
        assert (router.rating_low_ < router.ratings_).all()
        assert (router.ratings_ < router.rating_high_).all()
    ratio = (few.rating_high_ - few.rating_low_) / (many.rating_high_ - many.rating_low_)
    assert ratio == pytest.approx(np.full(3, 4.0), rel=0.35)


def test_copies_of_the_questions_do_not_narrow_the_intervals():
    once, twice = (EloRouter(weighting="plain").fit(d) for d in (draws(100), doubled(draws(100))))
    width = [r.rating_high_ - r.rating_low_ for r in (once, twice)]
    assert width[1] == pytest.approx(width[0], rel=0.05)


def test_uneven_coverage_misleads_means_but_not_ratings():
    # "late" was measured on the hard half only: a lower mean than "weak", but it wins there
    draw = np.random.default_rng(1)
    hard = np.arange(400) >= 200
    weak = (draw.random(400) < np.where(hard, 0.1, 0.9)).astype(float)
    late = [float(draw.random() < 0.4) if h else None for h in hard]
    data = outcomes({"weak": list(weak), "late": late}, vectors=draw.normal(size=(400, 8)))
    router = EloRouter(weighting="plain").fit(data)
    assert router.mean_quality_[0] > router.mean_quality_[1]
    assert router.ratings_[1] > router.ratings_[0]


def test_plain_predicts_means_in_the_order_of_the_ratings():
    data = draws()
    router = EloRouter(weighting="plain").fit(data)
    quality = router.predict(data.batch()).quality
    assert (quality == quality[0]).all()
    assert quality[0] == pytest.approx(data.quality.mean(axis=0), abs=0.03)


def test_the_spread_of_the_means_by_hand():
    assert _spread(np.array([0.2, 0.4, 0.6]), np.array([0.55, 0.6, 0.65])) == pytest.approx(0.25)
    assert _spread(np.array([0.2, 0.4, 0.6]), np.array([0.7, 0.6, 0.5])) == 0.0
    assert _spread(np.array([0.4, 0.4]), np.array([0.7, 0.5])) == 0.0


# -- similarity, feedback -------------------------------------------------------------------


def test_similar_questions_decide():
    data, other = planted(160), planted(60, seed=4)
    plain, similar = (EloRouter(weighting=w).fit(data) for w in ("plain", "similarity"))
    chosen = [r.predict(other.batch()).quality.argmax(axis=1) for r in (plain, similar)]
    assert len(set(chosen[0].tolist())) == 1
    assert (chosen[1] == np.arange(60) % 2).mean() > 0.95


def test_much_of_the_average_question_is_the_plain_order():
    data = planted(160)
    plain = EloRouter(weighting="plain").fit(data)
    similar = EloRouter(kappa=1e6, k=10).fit(data)
    raw = similar._raw(data.select([0, 1]).batch())
    expected = plain._raw(data.select([0, 1]).batch())
    assert raw == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("weighting", ["plain", "similarity"])
def test_an_online_update_moves_ratings_and_choices(weighting):
    data = draws(100)
    router = EloRouter(weighting=weighting).fit(data)
    before, quality = router.ratings_.copy(), router.predict(data.batch()).quality
    router.update("poor", "good", k_factor=32)
    expected = 1 / (1 + 10 ** ((before[0] - before[2]) / 400))
    assert router.ratings_[2] - before[2] == pytest.approx(32 * (1 - expected))
    assert router.ratings_.sum() == pytest.approx(before.sum())
    for _ in range(200):
        router.update("poor", "good")
    after = router.predict(data.batch()).quality
    assert (after[:, 2] - after[:, 0] > quality[:, 2] - quality[:, 0]).all()
    assert (router.fitted_ratings_ == before).all()


def test_a_tie_brings_equals_nothing():
    data = outcomes({"a": [1.0, 0.0], "b": [0.0, 1.0]}, vectors=np.eye(2))
    router = EloRouter().fit(data)
    router.update("a", "b", tie=True)
    assert router.ratings_ == pytest.approx([1000, 1000])


def test_wrong_feedback_is_refused():
    router = EloRouter(weighting="plain").fit(draws(20))
    with pytest.raises(SchemaError, match="nobody"):
        router.update("good", "nobody")
    with pytest.raises(SchemaError, match="itself"):
        router.update("good", "good")
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ConfigError, match="k_factor"):
            router.update("good", "poor", wrong)
