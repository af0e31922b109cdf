"""What a router's choices earned, looked up in measured data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.routing_data import RoutingData


@dataclass(frozen=True, eq=False)
class Outcomes:
    """One setting of a router over n queries; each vector has shape (n,).

    Attributes:
        quality: Score earned; NaN where the choice was not measured.
        cost_usd: Dollars spent; NaN where not recorded.
        model: Column of the LLM whose answer counts; -1 where it is none of the data's.
        calls: Calls made, verdicts included; None where each query is one call.
        first: Column of the LLM that was asked for an answer first, -1 likewise; None likewise.
    """

    quality: NDArray[np.float64]
    cost_usd: NDArray[np.float64]
    model: NDArray[np.intp]
    calls: NDArray[np.intp] | None = None
    first: NDArray[np.intp] | None = None


def look_up(data: RoutingData, columns: NDArray[np.intp]) -> Outcomes:
    """Return what the LLMs in these columns, shape (n,), earned; -1 is not measured."""
    columns = np.asarray(columns, np.intp)
    return Outcomes(_cells(data.quality, columns), _cells(data.cost_usd, columns), columns)


def look_up_names(data: RoutingData, chosen: Sequence[str]) -> Outcomes:
    """Return what the LLMs of these names earned; a name the data lacks is not measured."""
    place = {name: j for j, name in enumerate(data.names)}
    return look_up(data, np.array([place.get(name, -1) for name in chosen], np.intp))


def _cells(matrix: NDArray[np.float64], columns: NDArray[np.intp]) -> NDArray[np.float64]:
    # One more column of NaN, which index -1 finds.
    padded = np.column_stack([matrix, np.full(len(matrix), np.nan)])
    return padded[np.arange(len(matrix)), columns]
