"""The slope of a line through measurements, with its interval, for tests of growth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# two-sided 95 % points of Student's t for 1 to 10 degrees of freedom; above that at most 2.2
_T = (12.7, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
_T_MANY = 2.2


@dataclass(frozen=True, slots=True)
class Slope:
    """A slope and the half-width of its 95 % interval, in units of y per unit of x."""

    value: float
    half_width: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} ± {self.half_width:.3f}"

    @property
    def least(self) -> float:
        """Lower end of the interval: the least growth."""
        return self.value - self.half_width


def slope(xs: Sequence[float], ys: Sequence[float]) -> Slope:
    """Fit a line by least squares.

    Args:
        xs: At least three values, not all equal.
        ys: As many values.
    """
    x, y = np.asarray(xs, float), np.asarray(ys, float)
    centred = x - x.mean()
    spread = float(centred @ centred)
    value = float(centred @ y) / spread
    left = y - y.mean() - value * centred
    degrees = len(x) - 2
    t = _T[degrees - 1] if degrees <= len(_T) else _T_MANY
    return Slope(value, t * float(np.sqrt(left @ left / degrees / spread)))
