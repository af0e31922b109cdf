"""Query encoders: unit rows, independence of the batch, ids, cache, structure, static tables."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from support.static_table import write_table
from waypost.config import settings
from waypost.contracts.encoder import Encoder
from waypost.contracts.errors import RegistryError, SchemaError, WeightsError
from waypost.encoders import EncoderSpec, make_encoder
from waypost.encoders.cached import CachedEncoder
from waypost.encoders.distill import fix_signs
from waypost.encoders.hashing import HashingEncoder
from waypost.encoders.spec import STATIC_RECIPE
from waypost.encoders.static import StaticEncoder
from waypost.encoders.structure import DIMENSION, StructuredEncoder, structure_features
from waypost.encoders.texts import batches_by_length, prepare, unit_rows
from waypost.weights import folders

TEXTS = [
    "",
    "What is the capital of France?",
    "def add(a, b):\n    return a + b\n\nWhat does add(1, 2) return?",
    "Which is right?\nA) sand\nB) cacti\nC) dryness",
    "Löse \\frac{x}{2} = 3",
    "日本の首都はどこですか",
    "\ud800 half a pair",
    "word " * 20_000,
]


@pytest.fixture
def static_folder(tmp_path):
    """A static model of four words in three dimensions."""
    return write_table(tmp_path)


def static(folder, dimension=3, max_tokens=16):
    return StaticEncoder("static", lambda: folder, dimension, max_tokens)


def test_import_is_light():
    code = (
        "import sys, waypost.encoders; "
        "print([m for m in ('torch', 'onnxruntime', 'tokenizers', 'sklearn', 'ray', "
        "'transformers', 'huggingface_hub', 'model2vec') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("structure", [False, True])
def test_rows_are_unit_vectors_that_depend_on_their_own_text_only(structure, static_folder):
    for base in (HashingEncoder("h", 64, 128), static(static_folder)):
        encoder = StructuredEncoder("s", base, 0.5) if structure else base
        assert isinstance(encoder, Encoder)
        rows = encoder.encode(TEXTS)
        assert rows.shape == (len(TEXTS), encoder.dimension)
        assert rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
        alone = np.concatenate([encoder.encode([text]) for text in reversed(TEXTS)])[::-1]
        np.testing.assert_allclose(rows, alone, atol=1e-6)


@pytest.mark.parametrize("kind", ["hashing"])
def test_no_texts_give_no_rows(kind):
    encoder = make_encoder(kind)
    assert encoder.encode([]).shape == (0, encoder.dimension)


def test_hashing_is_the_same_in_every_process():
    row = HashingEncoder("h", 16, 128).encode(["red green"])[0]
    code = (
        "from waypost.encoders.hashing import HashingEncoder; "
        "print(HashingEncoder('h', 16, 128).encode(['red green'])[0].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == row.tolist()


def test_hashing_puts_texts_that_share_words_nearer():
    a, b, c = HashingEncoder("h", 512, 128).encode(
        ["how tall is the tower", "how tall is the bridge", "solve x squared = 4"]
    )
    assert a @ b > 0.5 > a @ c


def test_static_averages_token_vectors(static_folder):
    rows = static(static_folder).encode(["red green", "red red", "blue stone", "stone"])
    np.testing.assert_allclose(rows[0], [0.6, 0.8, 0], atol=1e-6)
    np.testing.assert_allclose(rows[1], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(rows[2], [0, 0, 1], atol=1e-6)  # an unknown token counts nothing
    np.testing.assert_allclose(rows[3], [1, 0, 0], atol=1e-6)  # nothing known: the fixed vector


def test_static_reads_no_more_than_max_tokens(static_folder):
    rows = static(static_folder, max_tokens=8).encode(["red " * 8 + "blue", "red"])
    np.testing.assert_array_equal(rows[0], rows[1])


def test_static_cut_to_fewer_dimensions(static_folder):
    row = static(static_folder, dimension=2).encode(["red green blue"])[0]
    np.testing.assert_allclose(row, [0.6, 0.8], atol=1e-6)


def test_static_table_too_narrow_is_an_error(static_folder):
    with pytest.raises(SchemaError, match="3 dimensions"):
        static(static_folder, dimension=4).encode(["red"])


def test_quantised_vocabulary_is_expanded(static_folder):
    from safetensors.numpy import save_file

    tensors = {
        "embeddings": np.array([[1, 0], [0, 1]], np.float32),
        "mapping": np.array([0, 0, 1, 1]),
        "weights": np.array([1, 1, 1, 2], np.float32),
    }
    save_file(tensors, static_folder / "model.safetensors")
    row = static(static_folder, dimension=2).encode(["red blue"])[0]
    np.testing.assert_allclose(row, np.array([1, 2]) / math.sqrt(5), atol=1e-6)


def test_static_model_given_as_a_folder_needs_no_distillation(static_folder, monkeypatch):
    monkeypatch.setenv("WAYPOST_ROOT", str(static_folder.parent.parent))
    monkeypatch.setenv("WAYPOST_CACHE", str(static_folder / "cache"))
    settings.cache_clear()
    model = "/".join(static_folder.parts[-2:])
    spec = EncoderSpec(kind="static", model=model, dimension=3, structure=False)
    np.testing.assert_allclose(make_encoder(spec).encode(["red"])[0], [1, 0, 0], atol=1e-6)
    settings.cache_clear()


def test_a_shipped_encoder_is_read_where_it_lies(static_folder, monkeypatch, tmp_path):
    """As in an image, whose cache is empty and which has neither torch nor the hub."""
    shipped = tmp_path / "shipped"
    slug = f"static-sentence-transformers--all-MiniLM-L6-v2-3-r{STATIC_RECIPE}"
    folder = shipped / "encoders" / slug
    shutil.copytree(static_folder, folder)
    monkeypatch.setenv("WAYPOST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WAYPOST_SHIPPED", str(shipped))
    monkeypatch.setenv("WAYPOST_OFFLINE", "1")
    settings.cache_clear()
    name = "sentence-transformers/all-MiniLM-L6-v2"
    encoder = make_encoder(EncoderSpec(kind="static", model=name, dimension=3, structure=False))
    with pytest.raises(WeightsError):
        encoder.encode(["red"])  # not complete without the marker
    (folder / folders.MARKER).write_text(json.dumps({"format": folders.FORMAT}))
    np.testing.assert_allclose(encoder.encode(["red"])[0], [1, 0, 0], atol=1e-6)
    assert not (tmp_path / "cache" / "encoders").exists()


def test_encoding_from_many_threads_at_once(static_folder):
    encoder = CachedEncoder(static(static_folder), 2_000)
    texts = [f"{'red ' * (i % 5)}{'blue ' * (i % 3)}" for i in range(200)]
    expected = static(static_folder).encode(texts)
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda text: encoder.encode([text])[0], texts))
    np.testing.assert_allclose(np.stack(rows), expected, atol=1e-6)
    assert encoder.size_bytes <= 2_000


def test_fixed_signs_undo_any_flip():
    table = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32) ** 3
    flipped = table * np.array([1, -1, -1, 1], np.float32)
    np.testing.assert_array_equal(fix_signs(table), fix_signs(flipped))


class Counting(HashingEncoder):
    """A real encoder that counts the texts it is asked for."""

    asked = 0

    def encode(self, texts):
        self.asked += len(texts)
        return super().encode(texts)


def test_cache_computes_each_text_once_and_keeps_order():
    base = Counting("h", 8, 64)
    encoder = CachedEncoder(base, 1_000_000)
    first = encoder.encode(["a", "b", "a"])
    again = encoder.encode(["b", "c", "a"])
    assert base.asked == 3
    np.testing.assert_array_equal(first[[1, 0]], again[[0, 2]])
    np.testing.assert_array_equal(again, HashingEncoder("h", 8, 64).encode(["b", "c", "a"]))
    assert (encoder.hits, encoder.misses) == (2, 4)
    assert encoder.id == "h"


def test_cache_drops_what_was_used_longest_ago():
    base = Counting("h", 8, 64)
    encoder = CachedEncoder(base, 2 * (8 * 4 + 300))
    for text in ("a", "b", "a", "c"):  # b goes
        encoder.encode([text])
    encoder.encode(["a"])
    assert base.asked == 3
    encoder.encode(["b"])
    assert base.asked == 4


def test_changing_a_result_does_not_change_the_cache():
    encoder = CachedEncoder(HashingEncoder("h", 8, 64), 10_000)
    encoder.encode(["a"])[:] = 0
    encoder.encode(["a"])[:] = 0
    assert np.linalg.norm(encoder.encode(["a"])) == pytest.approx(1)


@pytest.mark.parametrize("unit", [*"1 \n$a(\\;=_.A", "1.", "1 ", "; ", "a(", "A) ", "1,", "\u4e2d"])
def test_no_text_takes_long_to_describe(unit):
    begin = time.thread_time()
    structure_features([(unit * 9000)[:9000]])
    assert time.thread_time() - begin < 0.5  # 11 s where a pattern goes back over each digit


def test_structure_weight_is_the_share_of_the_cosine():
    base = HashingEncoder("h", 64, 128)
    encoder = StructuredEncoder("s", base, 0.25)
    a, b = TEXTS[1], TEXTS[3]
    joined = encoder.encode([a, b])
    content, form = base.encode([a, b]), structure_features([a, b])
    expected = 0.75 * (content[0] @ content[1]) + 0.25 * (form[0] @ form[1])
    assert joined[0] @ joined[1] == pytest.approx(expected, abs=1e-6)
    assert encoder.dimension == 64 + DIMENSION


@pytest.mark.parametrize(
    ("feature", "with_it", "without"),
    [
        (3, "Pick one: (A) red (B) blue (C) green", "Pick one: red, blue or green"),
        (3, "Pick\nA. red\nB. blue", "Plan A. is good"),
        (5, "12 345 678", "twelve thousand"),
        (7, "one\ntwo\nthree", "one two three"),
        (8, "def f(x):\n    return x", "a function of x"),
        (9, "\\frac{1}{2} and $x^2$", "one half and x squared"),
        (10, "3 + 4 = 7", "three and four"),
        (11, "Is it so?", "It is so."),
        (12, "Who wrote it and when", "It was written"),
        (13, "Write a poem", "A poem"),
        (14, "The sky is ____", "The sky is blue"),
        (15, "NASA USA", "nasa usa"),
        (16, "столица Франции", "capital of France"),
        (17, "日本の首都", "столица Японии"),
    ],
)
def test_structure_feature_rises_with_what_it_names(feature, with_it, without):
    rows = structure_features([with_it, without])
    assert rows[0, feature] > rows[1, feature]


def test_number_of_choices_counts_letters_from_a_without_a_gap():
    four = "Q\nA) 1\nB) 2\nC) 3\nD) 4"
    two = "Q\nA) 1\nB) 2\nD) 4"
    rows = structure_features([four, two])
    assert rows[0, 4] > rows[1, 4] > structure_features(["Q"])[0, 4]


def test_structure_reads_start_and_end_of_a_long_text():
    long = "word " * 20_000
    assert structure_features([long + "why?"])[0, 11] > structure_features([long])[0, 11]


def test_long_text_is_cut_and_broken_unicode_replaced():
    assert prepare(["a" * 1000, "\ud800é"], 8) == ["a" * 80, "?é"]


def test_row_of_zeros_becomes_the_first_unit_vector():
    rows = unit_rows(np.array([[0, 0], [3, 4]], np.float32))
    np.testing.assert_allclose(rows, [[1, 0], [0.6, 0.8]], atol=1e-7)


def test_batches_hold_every_position_once_longest_first():
    batches = [batch.tolist() for batch in batches_by_length([1, 5, 3, 4], 3)]
    assert batches == [[1, 3, 2], [0]]


SPECS = [
    EncoderSpec(),
    EncoderSpec(kind="static", dimension=64, structure=False),
    EncoderSpec(kind="onnx", threads=2),
    EncoderSpec(kind="torch", model="BAAI/bge-small-en-v1.5", max_tokens=128),
    EncoderSpec(kind="hashing", structure_weight=0.25),
    EncoderSpec(kind="hashing", dimension=32, structure=False, cache_mb=0),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)
def test_id_round_trips_and_is_fit_for_a_file_name(spec):
    encoder = make_encoder(spec)
    assert encoder.id == spec.id
    assert make_encoder(encoder.id).id == spec.id
    assert set(encoder.id) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-"
    )


def test_id_holds_what_decides_the_vectors_and_nothing_else():
    assert EncoderSpec(kind="hashing").id == "hashing+d512+t512+s1w0.5"
    assert EncoderSpec().id == (
        "static+sentence-transformers--all-MiniLM-L6-v2+d256+t512+r1+s1w0.5"
    )
    same = EncoderSpec(threads=4, cache_mb=1, batch_size=2, device="cuda")
    assert same.id == EncoderSpec().id
    assert EncoderSpec(structure=False, structure_weight=0.2).id == EncoderSpec(structure=False).id


def test_encoders_of_one_id_give_the_same_vectors():
    one = make_encoder(EncoderSpec(kind="hashing", dimension=32))
    two = make_encoder(one.id)
    np.testing.assert_array_equal(one.encode(TEXTS), two.encode(TEXTS))


@pytest.mark.parametrize(
    "id",
    [
        "",
        "bert",
        "static+x",
        "hashing+d512",
        "hashing+d0+t512",
        "hashing+a--b+d8+t512",
        "static+a--b+d256+t512",
        "hashing+d512+t512+s1w0.50",
        "hashing+d512+t512+s1w0.0",
    ],
)
def test_unknown_id_is_a_registry_error(id):
    with pytest.raises(RegistryError, match="no encoder"):
        make_encoder(id)


def test_id_of_another_version_says_so():
    with pytest.raises(RegistryError, match="another version"):
        make_encoder("hashing+d512+t512+s2w0.5")


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "bert"},
        {"kind": "hashing", "model": "a/b"},
        {"kind": "onnx", "dimension": 8},
        {"kind": "static", "model": "../x"},
        {"threads": 0},
        {"structure_weight": 1.0},
        {"colour": "red"},
    ],
)
def test_wrong_spec_is_refused(wrong):
    with pytest.raises(ValueError):
        EncoderSpec.model_validate(wrong)
