"""What a file in ``tune_configs`` may say: fixed values, search space, searcher and budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from waypost.config import StrictModel, load_config
from waypost.contracts.errors import ConfigError, Fault
from waypost.contracts.parameters import Constraint, check_parameters


class Range(StrictModel):
    """Numbers between two bounds.

    Attributes:
        type: ``uniform``; ``loguniform``, even in the logarithm; ``quniform``, uniform and
            rounded to multiples of q; ``randint``, whole numbers without ``high`` itself.
        low: Lower bound; above 0 for loguniform.
        high: Upper bound.
        q: Step of quniform.
        when: Other parameters and the value, or list of values, they must have for this one to
            be searched; otherwise it keeps the router's default.
    """

    type: Literal["uniform", "loguniform", "quniform", "randint"]
    low: float
    high: float
    q: float | None = Field(default=None, gt=0)
    when: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low:g}) is not below high ({self.high:g})")
        if self.type == "loguniform" and self.low <= 0:
            raise ValueError("low must be above 0 for loguniform")
        if (self.q is None) == (self.type == "quniform"):
            raise ValueError("q belongs to quniform, and only there")
        whole = self.low.is_integer() and self.high.is_integer()
        if self.type == "randint" and not whole:
            raise ValueError("low and high of randint are whole numbers")
        return self

    @property
    def extremes(self) -> tuple[float | int, ...]:
        """Lowest and highest value that can be drawn."""
        if self.type == "randint":
            return int(self.low), int(self.high) - 1
        return self.low, self.high


class Values(StrictModel):
    """A few values.

    Attributes:
        type: ``choice`` draws one; ``grid`` tries each.
        values: What may be drawn.
        when: As in `Range`.
    """

    type: Literal["choice", "grid"]
    values: tuple[bool | int | float | str | None, ...] = Field(min_length=1)
    when: dict[str, Any] = Field(default_factory=dict)

    @property
    def extremes(self) -> tuple[Any, ...]:
        """Return every value."""
        return self.values


Dimension: TypeAlias = "Range | Values"


class Metric(StrictModel):
    """What a trial is judged by, cross-validated inside the training split.

    Attributes:
        name: ``quality``, mean score of the choice; ``utility``, quality less lambda times
            relative cost; ``cost``, mean dollars of the choice; ``aiq``, area under the curve of
            quality over cost.
        lam: Cost weight of the decisions (``lambda`` in the file).
    """

    name: Literal["quality", "utility", "cost", "aiq"] = "quality"
    lam: float = Field(default=0.0, ge=0, alias="lambda")


class Budget(StrictModel):
    """When a sweep ends: after so many trials, or so many seconds."""

    trials: int = Field(ge=1)
    time_s: float | None = Field(default=None, gt=0)


class Resources(StrictModel):
    """What one trial takes."""

    cpu: float = Field(default=1, gt=0)
    gpu: float = Field(default=0, ge=0)


class TuneConfig(StrictModel):
    """One sweep; see `tune_configs`.

    Attributes:
        router: Registry name.
        fixed: Parameters with one value.
        space: Parameters that are searched.
        metric: What a trial is judged by.
        mode: Whether the metric is to be high or low.
        searcher: Who proposes trials.
        scheduler: Who stops them early.
        budget: When the sweep ends.
        resources: Of one trial.
        folds: Parts of the cross-validation.
        seed: Of folds, searcher and routers.
    """

    router: str
    fixed: dict[str, Any] = Field(default_factory=dict)
    space: dict[str, Annotated[Dimension, Field(discriminator="type")]] = Field(min_length=1)
    metric: Metric = Field(default_factory=Metric)
    mode: Literal["max", "min"] = "max"
    searcher: Literal["random", "optuna", "hyperopt"] = "random"
    scheduler: Literal["fifo", "asha", "hyperband", "pbt"] = "fifo"
    budget: Budget
    resources: Resources = Field(default_factory=Resources)
    folds: int = Field(default=5, ge=2, le=100)
    seed: int = Field(default=0, ge=0)


def load_tune_config(path: str | Path, overrides: Sequence[str] = ()) -> TuneConfig:
    """Read a sweep.

    Raises:
        ConfigError: with every fault of the file's form; `check_against` knows the router.
    """
    return load_config(TuneConfig, path, overrides)


def check_against(config: TuneConfig, constraints: Mapping[str, Constraint], where: str) -> None:
    """Check a sweep against the router's own parameters.

    Args:
        config: The sweep.
        constraints: The router's ``parameter_constraints``.
        where: The file, for messages.

    Raises:
        ConfigError: naming every unknown parameter, every bound or value out of range, every
            parameter both fixed and searched, and every condition on a parameter that cannot
            have the value.
    """
    found = check_parameters(config.fixed, constraints, f"{where}: fixed")
    for name, dimension in config.space.items():
        if name in config.fixed:
            found.append(Fault(f"{where}: space: {name}", "is both fixed and searched"))
        for value in dict.fromkeys(dimension.extremes):
            found += check_parameters({name: value}, constraints, f"{where}: space")
        for other, wanted in dimension.when.items():
            for value in wanted if isinstance(wanted, list) else [wanted]:
                at = f"{where}: space: {name}.when"
                found += check_parameters({other: value}, constraints, at)
    if found:
        raise ConfigError(dict.fromkeys(found))
