"""In which order questions are asked: whatever ends a run early, what is there can be used."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]

_BLOCK = 8
"""Rounds of calls in flight that are sorted by length, at most."""

_PIECES = 16
"""Pieces of a run that are sorted by length, at least, if a piece then holds a round: where a run
ends early, only its last piece has more of the long ones than their share."""


def mixed(strata: NDArray[Any], seed: int) -> Rows:
    """Return all rows in an order of which each beginning holds its share of every stratum.

    Each stratum is shuffled and spread evenly over the whole (systematic sampling with a random
    start): of the first k of n rows, a stratum of s has k s / n, less or more than one.

    Args:
        strata: What each row is counted as.
        seed: Of the order.
    """
    generator = np.random.default_rng(seed)
    place = np.empty(len(strata))
    for stratum in np.unique(strata):
        rows = generator.permutation(np.flatnonzero(strata == stratum))
        place[rows] = (np.arange(len(rows)) + generator.random()) / len(rows)
    return np.argsort(place, kind="stable")


def longest_first(rows: Rows, lengths: NDArray[np.int32], in_flight: int) -> Rows:
    """Sort pieces of an order by length: a batch then holds answers of one length, and stays full.

    Args:
        rows: In order.
        lengths: Most tokens of the answer, of every row.
        in_flight: Calls at once.
    """
    size = max(in_flight, min(_BLOCK * in_flight, len(rows) // _PIECES))
    piece = np.arange(len(rows)) // size
    return rows[np.lexsort((-lengths[rows], piece))]
