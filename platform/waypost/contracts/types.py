"""Names for array types."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
"""Double precision: scores, costs, weights."""

Floats32 = NDArray[np.float32]
"""Single precision: embeddings and trained parameters."""
