from __future__ import annotations

import pytest

from support.slopes import slope


def test_a_straight_line_has_its_slope_and_no_interval():
    found = slope([0, 1, 2, 3], [1, 3, 5, 7])
    assert found.value == pytest.approx(2)
    assert found.half_width == pytest.approx(0, abs=1e-12)


def test_by_hand():
    # x centred: -1 0 1; slope (0*-1 + 0*3 + 1*3)/2 - with y 0 3 3: (0*-1 + 3*0 + 3*1)/2 = 1.5
    # residuals -.5 1 -.5: sum of squares 1.5; standard error sqrt(1.5/1/2) = .866; t(1) = 12.7
    found = slope([0, 1, 2], [0, 3, 3])
    assert found.value == pytest.approx(1.5)
    assert found.half_width == pytest.approx(12.7 * 0.8660254)
    assert found.least == pytest.approx(1.5 - 12.7 * 0.8660254)
