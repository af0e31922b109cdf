"""Configuration of a sweep: fixed values, search space, metric, searcher, budget, and checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from waypost.config import StrictModel, apply_overrides, collecting, load_config, parse, read_yaml
from waypost.contracts.epochs import EpochRouter
from waypost.contracts.errors import ConfigError, Fault
from waypost.contracts.parameters import Constraint, check_parameters
from waypost.contracts.router import TrainableRouter
from waypost.encoders import EncoderSpec
from waypost.pipelines.train import TrainConfig, new_router
from waypost.registry import router_class

_NOISE = 1e-9
"""Distance from a multiple, in steps of q, that is taken for a rounding error of floats."""

_MOST_STEPS = 1_000_000
"""Steps of q from 0 to a bound; with more, rounding errors of floats would come near `_NOISE`."""


class Range(StrictModel):
    """Numbers between two bounds.

    Attributes:
        type: ``uniform``; ``loguniform``, uniform in the logarithm; ``quniform``, the multiples
            of q between the bounds; ``randint``, integers below ``high``.
        low: Lower bound; above 0 for loguniform.
        high: Upper bound.
        q: Step of quniform.
        when: Condition: other parameters with the value, or list of values, they must have.
            Otherwise this parameter keeps the router's default.
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
            raise ValueError("quniform needs q, and no other type takes it")
        whole = self.low.is_integer() and self.high.is_integer()
        if self.type == "randint" and not whole:
            raise ValueError("low and high of randint must be whole numbers")
        if self.q is not None:
            if max(abs(self.low), abs(self.high)) / self.q > _MOST_STEPS:
                raise ValueError(f"q ({self.q:g}) is too small: over {_MOST_STEPS:,} steps from 0")
            low, high = self.extremes
            if not low < high:
                raise ValueError(f"fewer than two multiples of q ({self.q:g}) from low to high")
        return self

    @property
    def extremes(self) -> tuple[float | int, ...]:
        """Lowest and highest value that can be drawn."""
        if self.type == "randint":
            return int(self.low), int(self.high) - 1
        if self.q is None:
            return self.low, self.high
        # Searchers disagree on bounds that are no multiples (findings/ray_tune_quantized.sh)
        return self._multiple(self.low, math.ceil), self._multiple(self.high, math.floor)

    def fit(self, value: float) -> float | int:
        """Return the value that can be drawn nearest to a number."""
        low, high = self.extremes
        if self.type == "randint":
            value = round(value)
        elif self.q is not None:
            value = round(value / self.q) * self.q
        return min(max(value, low), high)

    def holds(self, value: float) -> bool:
        """Return whether a value can be drawn; multiples of q may be a rounding error away."""
        low, high = self.extremes
        return low <= value <= high and abs(value - self.fit(value)) <= _NOISE * (self.q or 0)

    def _multiple(self, bound: float, inwards: Callable[[float], int]) -> float:
        steps = bound / (self.q or 1)
        return bound if abs(steps - round(steps)) <= _NOISE else inwards(steps) * (self.q or 1)


class Values(StrictModel):
    """A list of values.

    Attributes:
        type: ``choice`` draws one; ``grid`` tries each.
        values: The values.
        when: As in `Range`.
    """

    type: Literal["choice", "grid"]
    values: tuple[bool | int | float | str | None, ...] = Field(min_length=1)
    when: dict[str, Any] = Field(default_factory=dict)

    @property
    def extremes(self) -> tuple[Any, ...]:
        """All values."""
        return self.values


Dimension: TypeAlias = Range | Values


class Metric(StrictModel):
    """The objective of a sweep, cross-validated inside the training split.

    Attributes:
        name: ``quality``, mean score of the chosen LLM; ``utility``, quality less lambda times
            relative cost; ``cost``, mean dollars of the chosen LLM; ``aiq``, area under the curve
            of quality over cost; ``cost_at_quality``, mean dollars at which that curve reaches
            ``share`` of the best single LLM's quality; ``preference``, share of the choices that
            users made between two LLMs that the router foresees, knowing their other events.
        lam: Cost weight of the decisions (``lambda`` in the file); unused by the curve metrics.
        share: Quality target of ``cost_at_quality``.
    """

    name: Literal["quality", "utility", "cost", "aiq", "cost_at_quality", "preference"] = "quality"
    lam: float = Field(default=0.0, ge=0, alias="lambda")
    share: float = Field(default=1.0, gt=0, le=1.5)

    @property
    def mode(self) -> Literal["max", "min"]:
        """Direction of improvement."""
        return "min" if self.name in ("cost", "cost_at_quality") else "max"

    @property
    def needs_cost(self) -> bool:
        """Whether it needs costs in the data."""
        if self.name == "utility":
            return self.lam > 0
        return self.name not in ("quality", "preference")

    @property
    def label(self) -> str:
        """Name in reports."""
        if self.name == "aiq":
            return "AIQ"
        if self.name == "preference":
            return "users' choices foreseen"
        if self.name == "cost_at_quality":
            return f"USD a query at {100 * self.share:g} % of the best single LLM's quality"
        unit = "USD a query" if self.name == "cost" else self.name
        return f"{unit} at lambda {self.lam:g}"


class Budget(StrictModel):
    """Budget of a sweep.

    Attributes:
        trials: Number of settings to measure.
        time_s: Seconds after which no further trial starts; None is no limit.
    """

    trials: int = Field(ge=1)
    time_s: float | None = Field(default=None, gt=0)


class Resources(StrictModel):
    """Resources of a trial.

    Attributes:
        cpu: CPUs.
        gpu: GPUs.
    """

    cpu: float = Field(default=1, gt=0)
    gpu: float = Field(default=0, ge=0)


class TuneConfig(StrictModel):
    """One sweep; see `tune_configs`.

    Attributes:
        router: Registry name.
        fixed: Parameters with one value.
        space: Parameters that are searched.
        metric: Objective of the trials.
        mode: Direction of improvement of the metric.
        searcher: Proposes the settings.
        scheduler: Stops trials early; all but fifo need a router that trains by epochs.
        budget: Budget of the sweep.
        resources: Resources of one trial.
        encoder: Query encoder.
        folds: Number of folds of the cross-validation.
        finalists: Number of best trials that are measured again before the choice.
        repeats: Number of further assignments of questions to folds for the finalists.
        seed: Seed of folds, searcher and routers.
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
    encoder: str | EncoderSpec = "static"
    folds: int = Field(default=5, ge=2, le=100)
    finalists: int = Field(default=4, ge=0, le=50)
    repeats: int = Field(default=1, ge=0, le=20)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _agree(self) -> TuneConfig:
        wrong = []
        if self.mode != self.metric.mode:
            wrong.append(f"mode is {self.mode}; {self.metric.name} needs mode {self.metric.mode}")
        grids = [name for name, one in self.space.items() if one.type == "grid"]
        if grids and self.searcher != "random":
            wrong.append(f"{', '.join(grids)}: grid needs the random searcher; use choice")
        if circle := sorted(
            set(self.space) - set(in_order(self.space)), key=list(self.space).index
        ):
            wrong.append(f"the conditions of {', '.join(circle)} depend on each other")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self


def in_order(space: Mapping[str, Dimension]) -> list[str]:
    """Return the searched parameters in topological order of their conditions."""
    found: list[str] = []
    waiting = dict(space)
    while ready := [n for n, one in waiting.items() if not set(one.when) & set(waiting)]:
        found += ready
        waiting = {name: one for name, one in waiting.items() if name not in ready}
    return found


def load_tune_config(path: str | Path, overrides: Sequence[str] = ()) -> TuneConfig:
    """Read a sweep.

    Raises:
        ConfigError: With all faults of the file's form; `check_against` checks parameters.
    """
    return load_config(TuneConfig, path, overrides)


def check_against(config: TuneConfig, constraints: Mapping[str, Constraint], where: str) -> None:
    """Check a sweep against the router's own parameters.

    Args:
        config: The sweep.
        constraints: The router's ``parameter_constraints``.
        where: The file, for messages.

    Raises:
        ConfigError: With every unknown parameter, bound or value out of range, parameter both
            fixed and searched, and condition that can never hold.
    """
    if found := faults_against(config.fixed, config.space, constraints, where):
        raise ConfigError(found)


def faults_against(
    fixed: Mapping[str, Any],
    space: Mapping[str, Dimension],
    constraints: Mapping[str, Constraint],
    where: str,
) -> list[Fault]:
    """Return the faults of `check_against`."""
    found = check_parameters(fixed, constraints, f"{where}: fixed")
    for name, dimension in space.items():
        if name in fixed:
            found.append(Fault(f"{where}: space: {name}", "is both fixed and searched"))
        for value in dict.fromkeys(dimension.extremes):
            found += check_parameters({name: value}, constraints, f"{where}: space")
        for other, wanted in dimension.when.items():
            for value in wanted if isinstance(wanted, list) else [wanted]:
                at = f"{where}: space: {name}.when"
                found += check_parameters({other: value}, constraints, at)
    return list(dict.fromkeys(found))


def read_sweep(path: str | Path, overrides: Sequence[str] = ()) -> TuneConfig:
    """Read a file of ``tune_configs``.

    Raises:
        ConfigError: With all faults of the file's form, and every disagreement with the router.
        MissingExtraError: The router needs a package that is not installed.
    """
    return check_sweep(apply_overrides(read_yaml(path), overrides), str(path))


def check_sweep(data: Mapping[str, Any], where: str) -> TuneConfig:
    """Check a sweep given as plain data; see `read_sweep`."""
    found: list[Fault] = []
    attempt = partial(collecting, found, where)
    config = attempt(partial(parse, TuneConfig, data, where))
    router, encoder = data.get("router"), data.get("encoder")
    cls = attempt(partial(router_class, router)) if isinstance(router, str) else None
    if cls is not None and not (issubclass(cls, TrainableRouter) and cls.learns):
        found.append(Fault(f"{where}: router", f"{router} does not learn, so it cannot be tuned"))
    elif cls is not None:
        found += _against(cls, data, where)
        found += _scheduler(cls, data, where)
    if isinstance(encoder, str):
        attempt(partial(EncoderSpec.of, encoder))
    if config is None or found:
        raise ConfigError(dict.fromkeys(found))
    return config


def defaults_of(config: TuneConfig) -> dict[str, Any]:
    """Return the router's default parameters, with the seed of the sweep."""
    return new_router(TrainConfig(router=config.router, seed=config.seed)).get_params()


def _against(cls: Any, data: Mapping[str, Any], where: str) -> list[Fault]:
    """Return the faults of the well-formed parts of the file."""
    fixed, space = data.get("fixed") or {}, data.get("space") or {}
    if not isinstance(fixed, Mapping) or not isinstance(space, Mapping):
        return []
    adapter: TypeAdapter[Dimension] = TypeAdapter(Dimension)
    read: dict[str, Dimension] = {}
    for name, one in space.items():
        try:
            read[name] = adapter.validate_python(one)
        except ValidationError:
            continue  # reported by the check of the file's form
    return faults_against(fixed, read, cls.parameter_constraints, where)


def _scheduler(cls: Any, data: Mapping[str, Any], where: str) -> list[Fault]:
    name, at = data.get("scheduler", "fifo"), f"{where}: scheduler"
    if name not in ("asha", "hyperband", "pbt"):
        return []
    if not issubclass(cls, EpochRouter):
        problem = f"{name} stops trials early, and {cls.name} does not train by epochs; take fifo"
        return [Fault(at, problem)]
    changeable = cls.changeable_parameters
    if name == "pbt" and not set(changeable) & set(data.get("space") or {}):
        can = ", ".join(changeable) or "none"
        return [Fault(at, f"pbt needs a searched parameter that can change in training: {can}")]
    return []
