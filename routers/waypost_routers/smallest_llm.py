"""Always choose the LLM with the fewest parameters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from waypost_routers._ranks import SizeRouter


class SmallestLLM(SizeRouter):
    """A fixed ranking of the LLMs by total parameters, smallest first.

    A mixture such as 8x22B counts all its experts. LLMs of unknown size come last. Ties go to the
    cheaper call.

    When to take it:
        As a baseline, where ``llms.json`` gives sizes.
    """

    name = "smallest_llm"

    def _order(self, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        return sizes
