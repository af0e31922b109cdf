import numpy as np
import pytest

from waypost.testing.synthetic import planted, repeated
from waypost.testing.tables import outcomes
from waypost_routers._shared import sample


def test_a_text_stands_once_with_the_means_of_what_was_measured():
    once = outcomes({"a": [1.0, 0.0, None], "b": [None, 0.4, 0.2]})
    data = repeated(once, [0, 1, 2])
    data.quality[2] = [0.5, 0.3]
    twice = repeated(data, [0, 1, 2, 1])
    twice.quality[3] = [1.0, np.nan]
    found = sample(twice, None, seed=0)
    assert sorted(found.queries) == sorted(once.queries)
    row = found.queries.index(once.queries[1])
    assert found.quality[row] == pytest.approx([0.5, 0.4])
    row = found.queries.index(once.queries[0])
    assert found.quality[row] == pytest.approx([1.0, np.nan], nan_ok=True)


def test_the_order_of_the_rows_is_nothing_and_the_seed_decides():
    data = planted(30)
    found = sample(data, 10, seed=4)
    assert len(found) == 10
    assert found.queries == sample(data.select(np.arange(30)[::-1]), 10, seed=4).queries
    assert found.queries == sample(data, 20, seed=4).queries[:10]
    assert found.queries != sample(data, 10, seed=5).queries
