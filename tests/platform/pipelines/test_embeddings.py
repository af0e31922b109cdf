import numpy as np
import pytest

from waypost.contracts.errors import SchemaError
from waypost.encoders import make_encoder
from waypost.pipelines.data.embeddings import embeddings_path, query_embeddings
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


def embed(folder, texts=TEXTS, **options):
    encoder = Counting(**options)
    return query_embeddings(texts, encoder, folder), encoder


def test_each_text_is_embedded_once(tmp_path):
    reports = []
    encoder = Counting()
    rows = query_embeddings(TEXTS, encoder, None, lambda *report: reports.append(report))
    np.testing.assert_array_equal(rows, make_encoder(ENCODER_ID).encode(TEXTS))
    assert encoder.seen == ["one two", "three", ""]
    assert reports == [(3, 3)]


def test_what_was_embedded_before_is_taken_from_the_folder(tmp_path):
    first, _ = embed(tmp_path)
    again, encoder = embed(tmp_path, texts=(*TEXTS, "new"))
    np.testing.assert_array_equal(again[:4], first)
    assert [text for text in encoder.seen if text in TEXTS] == []
    assert "new" in encoder.seen
    assert [path.name for path in tmp_path.iterdir()] == [
        f"query_embeddings-{ENCODER_ID}.safetensors"
    ]


def test_vectors_of_a_rebuilt_encoder_are_not_mixed(tmp_path, caplog):
    embed(tmp_path)
    rows, encoder = embed(tmp_path, turned=True)
    assert set(TEXTS) <= set(encoder.seen)
    assert "built differently" in caplog.text
    np.testing.assert_array_equal(rows, make_encoder(ENCODER_ID).encode(TEXTS)[:, ::-1])


def test_an_unreadable_file_is_named(tmp_path):
    embed(tmp_path)
    path = embeddings_path(tmp_path, ENCODER_ID)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SchemaError, match=r"not readable .* delete it"):
        embed(tmp_path)


def test_an_absent_folder_is_not_made(tmp_path):
    rows, _ = embed(tmp_path / "absent")
    assert rows.shape == (4, 64)
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_folder_stays_as_it_is_even_for_root(tmp_path):
    tmp_path.chmod(0o555)
    try:
        rows, _ = embed(tmp_path)
        assert list(tmp_path.iterdir()) == []
    finally:
        tmp_path.chmod(0o755)
    assert rows.shape == (4, 64)


def test_no_text_gives_no_row():
    assert query_embeddings((), Counting()).shape == (0, 64)
