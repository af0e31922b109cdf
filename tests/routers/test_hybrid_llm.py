import numpy as np
import pytest

from waypost.contracts.errors import ConfigError, SchemaError
from waypost.testing.synthetic import planted
from waypost.testing.tables import outcomes
from waypost_routers._shared import distinct
from waypost_routers._wins import (
    Wins,
    all_pairs,
    choose_pair,
    learn_wins,
    quality_from_wins,
    sweep_of,
    widest,
)
from waypost_routers.hybrid_llm import HybridLLM

QUICK = {"hidden": 0, "members": 1}
NAN = np.nan


def labels_of(data, kind, large="b"):
    known = distinct(data)
    column = [data.names[j] for j in known.columns].index(large)
    return learn_wins(data.quality[:, known.columns], known, column, kind)


# -- S and L --------------------------------------------------------------------------------


def test_small_is_the_cheapest_and_large_the_best_never_by_size():
    mean, usd = np.array([0.5, 0.9, 0.7]), np.array([3.0, 2.0, 1.0])
    assert choose_pair("abc", mean, usd, None, None) == ("c", "b")
    assert choose_pair("abc", mean, usd, "a", None) == ("a", "b")
    assert choose_pair("abc", mean, usd, None, "c") == ("b", "c")
    assert choose_pair("abc", mean, usd, "b", None) == ("b", "c")


def test_of_equally_good_ones_large_is_the_cheapest():
    assert choose_pair("abc", np.full(3, 0.5), np.array([3.0, 1.0, 2.0]), None, None) == ("c", "b")


def test_unknown_costs_are_the_dearest():
    mean = np.array([0.5, 0.9, 0.7])
    assert choose_pair("abc", mean, np.array([NAN, 2.0, 1.0]), None, None) == ("c", "b")
    assert choose_pair("abc", mean, np.full(3, NAN), None, None) == ("c", "b")


# -- labels ---------------------------------------------------------------------------------


def test_one_answer_each_wins_or_loses():
    data = outcomes(
        {"a": [1.0, 0.0, 0.5, None], "b": [1.0, 1.0, 0.2, 0.3]},
        vectors=[[1, 0], [3, 4], [4, 3], [0, 1]],
    )
    labels, weights, wins = labels_of(data, "deterministic")
    order = distinct(data).row_of
    assert labels[order, 0].tolist() == [1.0, 0.0, 1.0, 0.0]
    np.testing.assert_allclose(weights[order, 0], [1 / 3, 1 / 3, 1 / 3, 0])
    # wins: gaps 0 and .3; the loss: -1
    assert (wins.won[0], wins.lost[0]) == pytest.approx((0.15, -1.0))
    np.testing.assert_allclose(labels[order, 1], [1.0, 1.0, 0.2, 0.3])


def test_several_answers_are_compared_pair_by_pair():
    # one question, asked three times: a 1, 0, -; b 1, 0, 0 -> of six pairs a loses one
    data = outcomes({"a": [1.0, 0.0, None], "b": [1.0, 0.0, 0.0]}, vectors=[[1, 0]] * 3)
    assert labels_of(data, "probabilistic")[0][0, 0] == pytest.approx(5 / 6)
    assert labels_of(data, "deterministic")[0][0, 0] == 1.0


def test_pairs_by_hand():
    row_of = np.array([1, 0, 1, 1])
    pairs = all_pairs(np.array([0.5, 0.9, NAN, 0.1]), np.array([1.0, NAN, 0.0, NAN]), row_of)
    assert sorted(np.round(pairs.gap, 6).tolist()) == [-0.9, -0.5, 0.1, 0.5]
    assert set(pairs.question.tolist()) == {1}
    assert pairs.weight.sum() == pytest.approx(2.0)


def test_the_margin_is_where_labels_differ_most():
    # a loses by .3 on half of the questions and by .6 on the other half
    first, second = np.array([0.5, 0.2, 0.5, 0.2]), np.full(4, 0.8)
    pairs = all_pairs(first, second, np.arange(4))
    assert widest(pairs, 4) == pytest.approx(0.3)
    data = outcomes({"a": list(first), "b": list(second)}, vectors=[[1, 0], [4, 3], [3, 4], [0, 1]])
    labels, _, wins = labels_of(data, "transformed")
    assert labels[distinct(data).row_of, 0].tolist() == [1.0, 0.0, 1.0, 0.0]
    assert (wins.margin[0], wins.won[0], wins.lost[0]) == pytest.approx((0.3, -0.3, -0.6))


def test_where_no_question_measured_both_the_means_speak():
    data = outcomes({"a": [0.4, None], "b": [None, 0.9]}, vectors=[[1, 0], [0, 1]])
    for kind in ("deterministic", "transformed"):
        _, weights, wins = labels_of(data, kind)
        assert weights[:, 0].tolist() == [0.0, 0.0]
        assert (wins.won[0], wins.lost[0]) == pytest.approx((-0.5, -0.5))


def test_quality_follows_from_the_probability_of_a_win():
    wins = Wins(np.zeros(2), np.array([0.1, 0.0]), np.array([-0.9, 0.0]))
    found = quality_from_wins(np.array([[0.8, 0.7]]), wins, 1)
    assert found[0] == pytest.approx([0.7 + 0.8 * 0.1 - 0.2 * 0.9, 0.7])


# -- thresholds -----------------------------------------------------------------------------


def test_a_sweep_by_hand():
    found = sweep_of(np.array([0.9, 0.2, 0.9]), np.array([[1.0, 0.5], [0.0, 1.0], [1.0, 0.0]]))
    assert found.tau[:2].tolist() == [0.2, 0.9]
    assert found.share == pytest.approx([1.0, 2 / 3, 0.0])
    assert found.quality == pytest.approx([2 / 3, 1.0, 0.5])


@pytest.fixture(scope="module")
def pair():
    # tiny scores .3 everywhere; prover 1 on algebra, 0 on cooking
    data = planted(160).select_llms(["prover", "tiny"])
    return HybridLLM(**QUICK).fit(data), planted(60, seed=5).select_llms(["prover", "tiny"])


def test_tau_for_a_share(pair):
    router, other = pair
    probability = router.win_probability(other.batch())
    for asked in (0.0, 0.3, 0.5, 1.0):
        tau = router.threshold(other, small_share=asked)
        assert (probability >= tau).mean() <= asked
    assert router.threshold(other, small_share=0.0) > 1
    assert (probability >= router.threshold(other, small_share=1.0)).all()
    assert (probability >= router.threshold(other, small_share=0.5)).mean() > 0.4


def test_tau_for_a_quality(pair):
    router, other = pair
    curve = router.sweep(other)
    floor = float(curve.quality.max()) - 0.05
    tau = router.threshold(other, quality=floor)
    to_small = router.win_probability(other.batch()) >= tau
    columns = [other.names.index(name) for name in (router.small_, router.large_)]
    scores = other.quality[:, columns]
    assert np.where(to_small, scores[:, 0], scores[:, 1]).mean() >= floor
    assert to_small.mean() > 0.3
    with pytest.raises(ConfigError, match="any threshold reaches"):
        router.threshold(other, quality=1.5)


def test_threshold_takes_one_of_the_two(pair):
    router, other = pair
    for asked in ({}, {"small_share": 0.5, "quality": 0.5}):
        with pytest.raises(ConfigError, match="small_share or quality"):
            router.threshold(other, **asked)
    with pytest.raises(SchemaError, match="tiny"):
        router.sweep(other.select_llms(["prover"]))


# -- the router -----------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["deterministic", "probabilistic", "transformed"])
def test_every_label_learns_the_rule(label):
    router = HybridLLM(label=label, **QUICK).fit(planted(160))
    other = planted(60, seed=5)
    assert (router.small_, router.large_) == ("tiny", "prover")
    best = router.predict_quality(other.batch())[:, :2].argmax(axis=1)
    right = np.array([0 if task == "cooking" else 1 for task in other.task_names])
    assert (best == right).mean() > 0.95


def test_named_models_are_taken_and_unknown_ones_refused():
    data = planted(40)
    router = HybridLLM(small="cook", large="tiny", **QUICK).fit(data)
    assert (router.small_, router.large_) == ("cook", "tiny")
    with pytest.raises(ConfigError) as error:
        HybridLLM(small="nobody", large="nothing").fit(data)
    assert len(error.value.faults) == 2
    with pytest.raises(ConfigError, match="both"):
        HybridLLM(small="cook", large="cook").fit(data)
