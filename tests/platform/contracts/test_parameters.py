import math

import pytest

from waypost.contracts.errors import ConfigError
from waypost.contracts.parameters import Integer, OneOf, Parametrized, Real


class Thing(Parametrized):
    name = "thing"
    parameter_constraints = {"k": Integer(1, 9), "tau": Real(0, open_low=True)}  # noqa: RUF012

    def __init__(self, k=3, tau=0.5):
        self.k = k
        self.tau = tau


@pytest.mark.parametrize(
    ("constraint", "good", "bad"),
    [
        (Integer(1, 3), [1, 3], [0, 4, 1.0, True, None, "1"]),
        (Integer(0, optional=True), [0, None, 10**9], [-1, 0.5]),
        (Real(0, 1), [0, 1, 0.5], [-0.1, 1.1, math.nan, math.inf, True, None, "0"]),
        (Real(0, open_low=True), [0.1, 5], [0, -1]),
        (Real(0, optional=True), [None], [-1]),
        (OneOf(("a", 1)), ["a", 1], ["b", True, 1.0]),
    ],
)
def test_constraints(constraint, good, bad):
    assert [value for value in good if not constraint.allows(value)] == []
    assert [value for value in bad if constraint.allows(value)] == []


def test_constraints_describe_themselves():
    assert str(Integer(1, 3, optional=True)) == "a whole number from 1 to 3 or null"
    assert str(Real(0, open_low=True)) == "a number above 0"
    assert str(OneOf(("a", "b"))) == "one of 'a', 'b'"


def test_every_wrong_parameter_is_named():
    with pytest.raises(ConfigError) as caught:
        Thing.check_params({"k": 0, "tau": -1, "other": 1})
    assert [str(fault) for fault in caught.value.faults] == [
        "thing: k: is 0; expected a whole number from 1 to 9",
        "thing: tau: is -1; expected a number above 0",
        "thing: other: unknown parameter; known are: k, tau",
    ]


def test_get_and_set():
    thing = Thing().set_params(k=5)
    assert thing.get_params() == {"k": 5, "tau": 0.5}
    with pytest.raises(ConfigError, match="nonsense"):
        thing.set_params(nonsense=1)


def test_no_init_is_no_parameters():
    class Plain(Parametrized):
        pass

    assert Plain().get_params() == {}


def test_a_parameter_without_a_constraint_may_be_anything():
    class Free(Parametrized):
        def __init__(self, alpha=0.5):
            self.alpha = alpha

    Free.check_params({"alpha": "anything"})
    with pytest.raises(ConfigError, match="beta: unknown parameter; known are: alpha"):
        Free.check_params({"beta": 1})
