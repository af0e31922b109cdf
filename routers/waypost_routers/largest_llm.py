"""Always the LLM with the most parameters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from waypost_routers._ranks import SizeRouter


class LargestLLM(SizeRouter):
    """Orders the LLMs by total parameters, the most first; see `SizeRouter`.

    Largest is not best: compare best_single.

    When to take it:
        As a baseline, where ``llms.json`` gives sizes.
    """

    name = "largest_llm"

    def _order(self, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        return -sizes
