"""Tables of requests, the keys of their answers, and the order of calls.

A request refers to its prompt by row number in another table, so each prompt is stored once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from waypost.pipelines.data.config import LLMConfig

KEY_BYTES = 16

REQUESTS = pa.schema(
    [
        ("key", pa.binary(KEY_BYTES)),
        ("item", pa.int64()),
        ("max_tokens", pa.int32()),
        ("temperature", pa.float64()),
        ("top_p", pa.float64()),
        ("seed", pa.int64()),
        ("stop", pa.list_(pa.string())),
        ("raw", pa.bool_()),
    ]
)
"""``key`` is the cell id; ``item`` is the row of the table of prompts. ``stop`` and ``raw``
are null for a request without stop strings and with a chat template."""

PROMPT = "query"
"""Column of the prompts' text; the table of questions has the same column."""

_DECIDING = ("prompt", "max_tokens", "temperature", "top_p", "seed")

_OPTIONAL = ("stop", "raw")
"""Columns that are part of a key only where a request has them: other keys stay as they were."""

Keys = NDArray[np.uint8]
"""Shape (n, `KEY_BYTES`): 1.6 MB for 100,000 keys, a fifth of the memory of strings."""


def cell_id(name: str, llm_config: LLMConfig, request: Mapping[str, Any]) -> bytes:
    """Return the key of an answer: a hash of model, revision, prompt, sampling and seed.

    Args:
        name: Name of the LLM; used if its config has no model.
        llm_config: Configuration of the LLM.
        request: ``prompt``, and columns of `REQUESTS`.
    """
    decides = {
        "engine": llm_config.engine,
        "model": llm_config.config.get("model", name),
        "revision": llm_config.revision or llm_config.config.get("revision"),
        **{column: request[column] for column in _DECIDING},
        **{column: request[column] for column in _OPTIONAL if request.get(column)},
    }
    return digest(decides)


def digest(data: Any) -> bytes:
    """Return a hash of JSON data, `KEY_BYTES` bytes."""
    text = json.dumps(data, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:KEY_BYTES]


def key_array(keys: Iterable[bytes]) -> Keys:
    """Return keys as one array."""
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)


def first_of_each(keys: Keys) -> NDArray[np.bool_]:
    """Return for each key whether it is its first occurrence."""
    first = np.zeros(len(keys), bool)
    if len(keys):
        whole = np.ascontiguousarray(keys).view(f"V{KEY_BYTES}").ravel()
        first[np.unique(whole, return_index=True)[1]] = True
    return first


def request_table(
    keys: Keys, items: NDArray[np.int64], max_tokens: NDArray[np.int32], sampling: Mapping[str, Any]
) -> pa.Table:
    """Build the table of requests with equal sampling.

    Args:
        keys: Shape (n, `KEY_BYTES`).
        items: Row numbers of the prompts, (n,).
        max_tokens: Maximum tokens of the answers, (n,).
        sampling: ``temperature``, ``top_p``, ``seed``.
    """
    n = len(items)
    columns = {
        "key": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(KEY_BYTES), n, [None, pa.py_buffer(np.ascontiguousarray(keys))]
        ),
        "item": items,
        "max_tokens": max_tokens,
        **{
            name: pa.repeat(pa.scalar(sampling[name], REQUESTS.field(name).type), n)
            for name in ("temperature", "top_p", "seed")
        },
        **{name: pa.nulls(n, REQUESTS.field(name).type) for name in _OPTIONAL},
    }
    return pa.table(columns, schema=REQUESTS)


RowNumbers = NDArray[np.int64]

_BLOCK = 8
"""Maximum rounds of concurrent calls that are sorted together by length."""

_PIECES = 16
"""Minimum number of pieces of a run that are sorted by length, as long as a piece has a round of
calls. In a run that ends early, only the last piece has too many long answers."""


def mixed(strata: NDArray[Any], seed: int) -> RowNumbers:
    """Return all rows in an order whose every prefix holds its share of each stratum.

    Each stratum is shuffled and spread evenly over the whole (systematic sampling with a random
    start): of the first k of n rows, a stratum of s has k s / n, less or more than one.

    Args:
        strata: Stratum of each row.
        seed: Seed of the order.
    """
    generator = np.random.default_rng(seed)
    place = np.empty(len(strata))
    for stratum in np.unique(strata):
        rows = generator.permutation(np.flatnonzero(strata == stratum))
        place[rows] = (np.arange(len(rows)) + generator.random()) / len(rows)
    return np.argsort(place, kind="stable")


def longest_first(rows: RowNumbers, lengths: NDArray[np.int32], in_flight: int) -> RowNumbers:
    """Sort pieces of an order by length, so that a batch holds answers of similar length.

    Args:
        rows: Row numbers in order.
        lengths: Maximum tokens of the answer of every row.
        in_flight: Number of concurrent calls.
    """
    size = max(in_flight, min(_BLOCK * in_flight, len(rows) // _PIECES))
    piece = np.arange(len(rows)) // size
    return rows[np.lexsort((-lengths[rows], piece))]
