"""Always choose the LLM with the most parameters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from waypost_routers._ranks import SizeRouter


class LargestLLM(SizeRouter):
    """A fixed ranking of the LLMs by total parameters, largest first.

    A mixture such as 8x22B counts all its experts. LLMs of unknown size come last. Ties go to the
    cheaper call. The largest LLM is not always the best: compare with best_single.

    When to take it:
        As a baseline, where ``llms.json`` gives sizes.
    """

    name = "largest_llm"

    def _order(self, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        return -sizes
