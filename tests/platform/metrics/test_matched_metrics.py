import numpy as np
import pytest

from waypost.metrics.curves import arena_score, hypervolume


def test_hypervolume_by_hand():
    # Above quality .5 and up to cost 10: .2 from 2 to 6, .4 from 6 on, of a box of 10 * .5.
    found = hypervolume([6, 2, 8], [0.9, 0.7, 0.8], most=10, least=0.5)
    assert found == pytest.approx((4 * 0.2 + 4 * 0.4) / 5)


def test_settings_that_dominate_nothing_of_the_box():
    assert hypervolume([20, 2], [0.9, 0.4], most=10, least=0.5) == 0
    assert np.isnan(hypervolume([np.nan], [0.9], most=10, least=0.5))
    assert np.isnan(hypervolume([1], [0.9], most=np.nan, least=0.5))
    assert np.isnan(hypervolume([1], [1], most=10, least=1))


@pytest.mark.parametrize(
    ("quality", "usd", "published"), [(0.797, 0.27, 0.7763), (0.798, 0.70, 0.7621)]
)
def test_arena_scores_as_published(quality, usd, published):
    assert arena_score(quality, usd) == pytest.approx(published, abs=0.003)


def test_arena_scores_at_the_ends():
    assert arena_score(0.5, 0.0044) == arena_score(0.5, 0.001) == pytest.approx(0.55 / 1.05)
    assert arena_score(0.5, 300) == arena_score(0, 1) == 0
    assert np.isnan(arena_score(0.5, 0))
    assert np.isnan(arena_score(np.nan, 1))
