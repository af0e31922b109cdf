"""Types of arrays, under one name each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
"""Numbers that are computed with: scores, costs, weights."""

Floats32 = NDArray[np.float32]
"""Embeddings, and what is trained in single precision."""
