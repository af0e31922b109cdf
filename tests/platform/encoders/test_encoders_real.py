"""The encoders that need weights (tier engine: data packages or a hub on the first run)."""

from __future__ import annotations

import numpy as np
import pytest

from waypost.config import settings
from waypost.encoders import EncoderSpec, make_encoder
from waypost.encoders.distill import distill
from waypost.encoders.static import StaticEncoder
from waypost.weights import MINILM, resolve

pytestmark = pytest.mark.engine

KINDS = [
    "capital of {}",
    "Who wrote the history of {}?",
    "How many people live in {} today",
    "Write a Python function that sorts the towns of {} by size",
    "{}",
]
PLACES = [
    "France",
    "Peru",
    "New Zealand",
    "Kenya",
    "Japan",
    "Iceland",
    "Chad",
    "Texas",
    "Rome",
    "a small village in the mountains where the trains do not stop at night",
]
TEXTS = [kind.format(place) for kind in KINDS for place in PLACES]


def encoder(kind: str, **options: object):
    return make_encoder(EncoderSpec(kind=kind, structure=False, cache_mb=0, **options))


def test_int8_vectors_are_those_of_torch():
    cosines = np.einsum("ij,ij->i", encoder("onnx").encode(TEXTS), encoder("torch").encode(TEXTS))
    assert len(cosines) == 50
    assert cosines.min() > 0.99


@pytest.mark.parametrize("kind", ["onnx", "torch", "static"])
def test_rows_are_unit_vectors_that_depend_on_their_own_text_only(kind):
    one = encoder(kind)
    texts = ["", "word " * 20_000, *TEXTS[:10], "\ud800"]
    rows = one.encode(texts)
    assert rows.shape == (13, one.dimension)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    alone = np.concatenate([one.encode([text]) for text in texts])
    np.testing.assert_allclose(rows, alone, atol=2e-6)


def test_torch_threads_are_put_back():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    encoder("torch", threads=before + 1).encode(["a"])
    assert torch.get_num_threads() == before


def test_distilling_twice_gives_the_same_vectors(tmp_path, monkeypatch):
    source = resolve(MINILM)
    once = make_encoder(EncoderSpec(structure=False, cache_mb=0)).encode(TEXTS)
    monkeypatch.setenv("WAYPOST_CACHE", str(tmp_path))
    settings.cache_clear()
    folder = distill(str(source), 256)
    settings.cache_clear()
    again = StaticEncoder("s", lambda: folder, 256, 512).encode(TEXTS)
    assert folder.is_relative_to(tmp_path)
    assert np.einsum("ij,ij->i", once, again).min() > 0.999


def test_static_decision_costs_far_less_than_a_millisecond():
    import time

    one = make_encoder(EncoderSpec(kind="static", cache_mb=0))
    one.encode(TEXTS)
    times = []
    for text in TEXTS * 4:
        start = time.thread_time()  # not on the clock, which is everybody's on a busy machine
        one.encode([text])
        times.append(time.thread_time() - start)
    assert min(times) < 0.5e-3
