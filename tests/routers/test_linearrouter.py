import numpy as np
import pytest

from waypost.contracts.records import Query
from waypost.contracts.router import QueryBatch
from waypost.testing.synthetic import planted
from waypost.testing.tables import outcomes
from waypost_routers._linear.text import DIMENSION, form_features, word_features
from waypost_routers.linearrouter import LinearRouter


def test_follows_a_line():
    draw = np.random.default_rng(0)
    angle = draw.uniform(0, np.pi / 2, 200)
    vectors = np.column_stack([np.cos(angle), np.sin(angle)])
    data = outcomes({"a": list(vectors[:, 0]), "b": list(vectors[:, 1])}, vectors=vectors)
    router = LinearRouter(penalty=0.001).fit(data)
    asked = np.array([[0.6, 0.8]], np.float32)
    found = router.predict(QueryBatch((Query("q"),), asked)).quality[0]
    assert found == pytest.approx([0.6, 0.8], abs=0.02)


@pytest.mark.parametrize("features", ["embedding", "words", "form", "all"])
def test_every_kind_of_feature_tells_topics_apart_where_it_can(features):
    router = LinearRouter(features=features).fit(planted(160))
    other = planted(60, seed=7)
    batch = QueryBatch(tuple(map(Query, other.queries)), other.embeddings)
    right = router.predict_quality(batch).argmax(axis=1) == other.quality.argmax(axis=1)
    # the form of the planted questions is the same in both topics
    assert right.mean() > (0.4 if features == "form" else 0.95)


def test_the_form_tells_code_from_prose():
    code = [f"def f{i}(x):\n    return x + {i}" for i in range(40)]
    prose = [f"who was the {i}th king of spain and why" for i in range(40)]
    data = outcomes({"coder": [1.0] * 40 + [0.0] * 40, "talker": [0.0] * 40 + [1.0] * 40})
    data = data.__class__(**{**vars_of(data), "queries": tuple(code + prose)})
    data = data.with_embeddings(np.ones((80, 2), np.float32) / np.sqrt(2), "none")
    router = LinearRouter(features="form").fit(data)
    asked = ("def g(y):\n    return y * 3", "when did the war of the roses end")
    batch = QueryBatch(tuple(map(Query, asked)), np.ones((2, 2), np.float32))
    assert router.predict_quality(batch).argmax(axis=1).tolist() == [0, 1]


def vars_of(data):
    return {name: getattr(data, name) for name in data.__dataclass_fields__}


def test_text_features_have_unit_rows_and_depend_on_their_text_alone():
    texts = ["Hello, hello world", "", "x = f(3)", "東京"]
    for features in (word_features, form_features):
        rows = features(texts)
        assert rows.shape == (4, DIMENSION)
        assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 0, 1, 1])
        np.testing.assert_array_equal(features(texts[2:3])[0], rows[2])


def test_words_ignore_case_and_form_ignores_words():
    words, form = word_features(["Red Fish", "red fish"]), form_features(["red fish", "blue bird"])
    np.testing.assert_array_equal(words[0], words[1])
    np.testing.assert_array_equal(form[0], form[1])
