import pytest

from waypost.config import parse
from waypost.contracts.errors import ConfigError
from waypost.contracts.parameters import Integer, OneOf, Real
from waypost.tune.config import TuneConfig, check_against

CONSTRAINTS = {
    "k": Integer(1, 100, optional=True),
    "tau": Real(0, open_low=True),
    "kind": OneOf(("u", "s")),
}


def config(space, **more):
    return parse(TuneConfig, {"router": "r", "space": space, "budget": {"trials": 3}, **more})


def problems(call, *args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        call(*args, **kwargs)
    return [str(fault) for fault in caught.value.faults]


def test_every_type_of_dimension():
    found = config(
        {
            "a": {"type": "uniform", "low": 0, "high": 1},
            "b": {"type": "loguniform", "low": 0.1, "high": 1},
            "c": {"type": "quniform", "low": 0.1, "high": 0.9, "q": 0.25},
            "d": {"type": "randint", "low": 1, "high": 10},
            "e": {"type": "choice", "values": [None, 1, "x", True]},
            "f": {"type": "grid", "values": [1, 2], "when": {"e": ["x", 1]}},
        }
    ).space
    assert found["c"].extremes == (0.25, 0.75)  # the outermost multiples of q
    assert found["d"].extremes == (1, 9)  # without the upper bound
    assert found["e"].extremes == (None, 1, "x", True)
    assert found["f"].when == {"e": ["x", 1]}


@pytest.mark.parametrize(
    ("dimension", "said"),
    [
        ({"type": "uniform", "low": 1, "high": 1}, "not below"),
        ({"type": "loguniform", "low": 0, "high": 1}, "above 0"),
        ({"type": "quniform", "low": 0, "high": 1}, "quniform needs q"),
        ({"type": "uniform", "low": 0, "high": 1, "q": 0.1}, "quniform needs q"),
        ({"type": "quniform", "low": 0.6, "high": 1.1, "q": 0.5}, "fewer than two multiples"),
        ({"type": "quniform", "low": 0, "high": 1e300, "q": 1e-300}, "over 1,000,000 steps from 0"),
        ({"type": "randint", "low": 0.5, "high": 3}, "whole numbers"),
        ({"type": "choice", "values": []}, "expected at least one"),
        ({"type": "choice", "low": 1}, "unknown key"),
        ({"type": "magic"}, "magic"),
    ],
)
def test_wrong_dimensions(dimension, said):
    assert any(said in fault for fault in problems(config, {"x": dimension}))


def test_every_wrong_key_is_named():
    found = problems(
        config, {"x": {"type": "grid", "values": [1]}}, mode="up", searcher="luck", color="red"
    )
    assert len(found) == 3


def test_a_space_that_fits_the_router():
    space = {
        "k": {"type": "choice", "values": [None, 100]},
        "tau": {"type": "loguniform", "low": 0.1, "high": 3, "when": {"kind": "s"}},
    }
    check_against(config(space, fixed={"kind": "s"}), CONSTRAINTS, "f.yaml")


def test_every_disagreement_with_the_router_is_named():
    space = {
        "k": {"type": "randint", "low": 0, "high": 200},
        "tau": {"type": "uniform", "low": 0, "high": 1, "when": {"kind": ["s", "odd"]}},
        "speed": {"type": "choice", "values": [1]},
        "kind": {"type": "choice", "values": ["u", "x"]},
    }
    found = problems(check_against, config(space, fixed={"kind": "u"}), CONSTRAINTS, "f.yaml")
    assert [fault.split(";")[0] for fault in found] == [
        "f.yaml: space: k: is 0",
        "f.yaml: space: k: is 199",
        "f.yaml: space: tau: is 0.0",
        "f.yaml: space: tau.when: kind: is 'odd'",
        "f.yaml: space: speed: unknown parameter",
        "f.yaml: space: kind: is both fixed and searched",
        "f.yaml: space: kind: is 'x'",
    ]
