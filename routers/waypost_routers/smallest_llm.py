"""Always the LLM with the fewest parameters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from waypost_routers._ranks import SizeRouter


class SmallestLLM(SizeRouter):
    """Orders the LLMs by total parameters, the fewest first; see `SizeRouter`.

    When to take it:
        As a baseline, where ``llms.json`` gives sizes.
    """

    name = "smallest_llm"

    def _order(self, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        return sizes
