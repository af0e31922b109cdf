"""What a wrong value is told."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field

from waypost.config import StrictModel, parse
from waypost.contracts.errors import ConfigError, PluginError, RegistryError
from waypost.contracts.parameters import Integer, check_parameters
from waypost.contracts.wording import did_you_mean
from waypost.engines import make_engine
from waypost.registry import find_router
from waypost.scorers import metric_name
from waypost.tune.config import TuneConfig


class Uniform(StrictModel):
    type: Literal["uniform"]
    high: float


class Choice(StrictModel):
    type: Literal["choice"]
    values: list[int]


class Model(StrictModel):
    input_price: float = Field(1.0, ge=0)
    name: str = "m"


Dimension = Annotated[Uniform | Choice, Field(discriminator="type")]


class Config(StrictModel):
    out: str = "x"
    seed: int | None = None
    mode: Literal["random", "optuna"] = "random"
    llms: dict[str, Model] = Field(default_factory=dict)
    more: list[Model] | None = None
    space: dict[str, Dimension] = Field(default_factory=dict)
    plain: bool = False


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"sede": 1}, "c.yaml: sede: unknown key (did you mean 'seed'?)"),
        ({"Out": "x"}, "c.yaml: Out: unknown key (did you mean 'out'?)"),
        ({"color": 1}, "c.yaml: color: unknown key"),
        (
            {"llms": {"a": {"input_prise": 1}}},
            "c.yaml: llms.a.input_prise: unknown key (did you mean 'input_price'?)",
        ),
        (
            {"more": [{}, {"nam": "x"}]},
            "c.yaml: more.1.nam: unknown key (did you mean 'name'?)",
        ),
        (
            {"space": {"k": {"type": "uniform", "high": 1, "hihg": 2}}},
            "c.yaml: space.k.uniform.hihg: unknown key (did you mean 'high'?)",
        ),
        (
            {"space": {"k": {"type": "unifrom", "high": 1}}},
            "c.yaml: space.k: 'type' expected one of 'uniform', 'choice', found 'unifrom' "
            "(did you mean 'uniform'?)",
        ),
        ({"space": {"k": {"high": 1}}}, "c.yaml: space.k: 'type' is missing"),
        ({"space": {"k": {"type": "uniform"}}}, "c.yaml: space.k.uniform.high: missing; it is "
         "required"),
        (
            {"mode": "optona"},
            "c.yaml: mode: expected 'random' or 'optuna', found 'optona' "
            "(did you mean 'optuna'?)",
        ),
        ({"seed": "many"}, "c.yaml: seed: expected a whole number, found 'many'"),
        ({"seed": 1.5}, "c.yaml: seed: expected a whole number, found 1.5"),
        ({"out": 3}, "c.yaml: out: expected text, found 3"),
        ({"plain": "perhaps"}, "c.yaml: plain: expected true or false, found 'perhaps'"),
        ({"more": {"a": 1}}, "c.yaml: more: expected a list, found a mapping"),
        ({"llms": [1]}, "c.yaml: llms: expected keys and values, found a list"),
        ({"llms": {"a": None}}, "c.yaml: llms.a: expected keys and values, found null"),
        (
            {"llms": {"a": {"input_price": -1}}},
            "c.yaml: llms.a.input_price: expected at least 0, found -1",
        ),
    ],
)  # fmt: skip
def test_a_fault_says_what_was_expected(data: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Config, data, "c.yaml")
    assert str(caught.value) == said


def test_a_text_in_the_wrong_place_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Config, {"seed": "sk-secret", "mode": "sk-secret"}, "c.yaml")
    assert "sk-secret" not in str(caught.value)


def test_names_of_everything_that_has_one_are_suggested() -> None:
    for ask, near in [
        (lambda: find_router("knnroutr"), "knnrouter"),
        (lambda: make_engine("opnai", {}), "openai"),
        (lambda: metric_name("exact_mach"), "exact_match"),
    ]:
        with pytest.raises(RegistryError) as caught:
            ask()
        assert not isinstance(caught.value, PluginError)
        assert f"(did you mean '{near}'?); there are" in str(caught.value)
    (fault,) = check_parameters({"neighbors": 3}, {"n_neighbors": Integer(1, 9)}, "knn")
    assert fault.problem == (
        "unknown parameter (did you mean 'n_neighbors'?); known are: n_neighbors"
    )


def test_a_sweep_is_read_by_the_same_words() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(TuneConfig, {"router": "x", "sercher": "random", "space": {}}, "t.yaml")
    assert "t.yaml: sercher: unknown key (did you mean 'searcher'?)" in str(caught.value)


def test_what_is_far_away_is_not_suggested() -> None:
    assert did_you_mean("temperature", ["seed", "out"]) == ""
    assert did_you_mean(7, ["seed"]) == ""
    assert did_you_mean("x", []) == ""
    assert did_you_mean("q", ["k", "tau"]) == ""


@pytest.mark.parametrize(("given", "meant"), [("kk", "k"), ("tua", "tau"), ("Tau", "tau")])
def test_short_names_are_suggested_too(given: str, meant: str) -> None:
    assert did_you_mean(given, ["k", "tau", "seed"]) == f" (did you mean {meant!r}?)"
