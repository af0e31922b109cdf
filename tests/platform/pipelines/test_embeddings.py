import sqlite3

import numpy as np
import pytest

from waypost.config import settings
from waypost.contracts.errors import SchemaError
from waypost.encoders import make_encoder
from waypost.pipelines.data import embedding_cache
from waypost.pipelines.data.embedding_cache import EmbeddingCache, query_embeddings
from waypost.pipelines.data.embeddings import embeddings_path, keep_embeddings, text_digest
from waypost.testing.synthetic import ENCODER_ID

TEXTS = ("one two", "three", "one two", "")


class Counting:
    """The hashing encoder, counting the texts it is asked for; ``turned`` reverses its columns."""

    id = ENCODER_ID
    dimension = 64

    def __init__(self, turned=False):
        self.turned = turned
        self.seen = []

    def encode(self, texts):
        self.seen += texts
        rows = make_encoder(ENCODER_ID).encode(texts)
        return rows[:, ::-1].copy() if self.turned else rows


@pytest.fixture(params=["folder", "cache"])
def embed(request, tmp_path, monkeypatch):
    """Embed texts where the data's folder keeps vectors, or where the cache does."""
    monkeypatch.setenv("WAYPOST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedding_cache, "WORTH_S", 0.0)
    settings.cache_clear()
    folder = tmp_path / "data"
    folder.mkdir()

    def run(texts=TEXTS, **options):
        encoder = Counting(**options)
        if request.param == "folder":
            keep_embeddings(texts, encoder, folder)
        return query_embeddings(texts, encoder, folder), encoder

    yield run
    settings.cache_clear()


def test_each_text_is_embedded_once():
    reports = []
    encoder = Counting()
    rows = query_embeddings(TEXTS, encoder, None, lambda *report: reports.append(report))
    np.testing.assert_array_equal(rows, make_encoder(ENCODER_ID).encode(TEXTS))
    assert encoder.seen == ["one two", "three", ""]
    assert reports == [(3, 3)]


def test_what_was_embedded_before_is_not_computed_again(embed):
    first, _ = embed()
    again, encoder = embed(texts=(*TEXTS, "new"))
    np.testing.assert_array_equal(again[:4], first)
    assert [text for text in encoder.seen if text in TEXTS] == []
    assert "new" in encoder.seen


def test_vectors_of_a_rebuilt_encoder_are_not_mixed(embed):
    embed()
    rows, encoder = embed(turned=True)
    assert set(TEXTS) <= set(encoder.seen)
    np.testing.assert_array_equal(rows, make_encoder(ENCODER_ID).encode(TEXTS)[:, ::-1])


def test_nothing_is_written_beside_the_data(tmp_path):
    encoder = Counting()
    query_embeddings(TEXTS, encoder, tmp_path)
    query_embeddings(TEXTS, encoder, tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


def test_what_is_computed_fast_takes_no_place_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WAYPOST_CACHE", str(tmp_path))
    settings.cache_clear()
    query_embeddings(TEXTS, Counting())
    settings.cache_clear()
    assert list(tmp_path.iterdir()) == []


def test_an_unreadable_file_of_the_data_is_named(tmp_path):
    keep_embeddings(TEXTS, Counting(), tmp_path)
    path = embeddings_path(tmp_path, ENCODER_ID)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SchemaError, match=r"not readable .* delete it"):
        query_embeddings(TEXTS, Counting(), tmp_path)


def keys(*texts):
    return [text_digest(text) for text in texts]


def test_a_full_cache_drops_what_was_used_longest_ago(tmp_path):
    cache = EmbeddingCache(tmp_path, Counting(), limit_bytes=3 * 4 * 64)
    rows = Counting().encode(["a", "b", "c"])
    cache.store(keys("a", "b", "c"), rows)
    with sqlite3.connect(cache.path) as base:
        base.execute("UPDATE vectors SET used = 1 WHERE key != ?", keys("b"))
    assert list(cache.find(keys("a"))) == keys("a")  # used today
    cache.store(keys("d"), rows[:1])
    assert set(cache.find(keys("a", "b", "c", "d"))) == set(keys("a", "b", "d"))


@pytest.mark.parametrize("spoil", ["text", "folder"])
def test_a_cache_that_cannot_be_used_is_an_empty_one(tmp_path, spoil):
    cache = EmbeddingCache(tmp_path, Counting())
    if spoil == "text":
        cache.path.write_bytes(b"no database at all, and long enough to be one " * 99)
    else:
        cache.path.mkdir()
    cache.store(keys("a"), Counting().encode(["a"]))
    assert cache.find(keys("a")) == {}


def test_no_text_gives_no_row():
    assert query_embeddings((), Counting()).shape == (0, 64)
