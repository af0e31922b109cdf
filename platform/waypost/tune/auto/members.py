"""Members of the router `auto`, and their out-of-sample predictions."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import ConfigError, Fault, WaypostError
from waypost.contracts.records import report
from waypost.contracts.router import ScoreRouter
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost.registry import make_router

logger = logging.getLogger(__name__)

Spec = str | Mapping[str, Mapping[str, Any]]
"""A registry name, or ``{name: {parameter: value}}``."""

DEFAULT: tuple[Spec, ...] = (
    "knnrouter",
    "linearrouter",
    {"linearrouter": {"features": "words"}},
    {"linearrouter": {"features": "form"}},
    "taskrouter",
    "clusterrouter",
    "mlprouter",
    "svmrouter",
)
"""Default members: routers that fit within seconds on thousands of questions."""


@dataclass(frozen=True)
class Member:
    """One router to try.

    Attributes:
        router: Registry name.
        parameters: Parameters that differ from the router's defaults.
    """

    router: str
    parameters: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Name in reports: ``linearrouter(features=form)``."""
        shown = ", ".join(f"{k}={v}" for k, v in sorted(self.parameters.items()))
        return f"{self.router}({shown})" if shown else self.router

    def make(self, seed: int) -> ScoreRouter:
        """Build the untrained router.

        Raises:
            ConfigError: The router does not predict scores, or a parameter is invalid.
            RegistryError, PluginError, MissingExtraError: See `make_router`.
        """
        router = make_router(self.router, dict(self.parameters))
        if not isinstance(router, ScoreRouter):
            raise ConfigError([Fault(f"auto: members: {self.router}", "does not predict scores")])
        if "seed" in router.get_params() and "seed" not in self.parameters:
            router.set_params(seed=seed)
        return router


class Members:
    """Constraint of the parameter ``members``: null, or a list of `Spec`."""

    def allows(self, value: Any) -> bool:
        """Return whether the value has the right form; ``fit`` checks the routers."""
        if value is None:
            return True
        return isinstance(value, list | tuple) and bool(value) and all(map(_is_spec, value))

    def __str__(self) -> str:
        return "null, or a list of router names or {name: {parameter: value}}"


class OneMember:
    """Constraint of a parameter that is one `Spec`."""

    def allows(self, value: Any) -> bool:
        """Return whether the value has the right form; ``fit`` checks the router."""
        return value is not None and _is_spec(value) and len(members_of([value])) == 1

    def __str__(self) -> str:
        return "a router's name, or {name: {parameter: value}}"


def _is_spec(value: Any) -> bool:
    if isinstance(value, str):
        return True
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(given, Mapping) for name, given in value.items()
    )


def members_of(specs: Sequence[Spec] | None) -> list[Member]:
    """Parse the parameter ``members``; None is `DEFAULT`, and duplicates are dropped."""
    found: dict[str, Member] = {}
    for spec in DEFAULT if specs is None else specs:
        pairs = {spec: {}} if isinstance(spec, str) else spec
        for router, given in pairs.items():
            key = json.dumps([router, given], sort_keys=True, default=str)
            found.setdefault(key, Member(router, dict(given)))
    return list(found.values())


@dataclass(frozen=True, eq=False)
class OutOfSample:
    """Predictions of a member for questions outside its training data.

    Attributes:
        member: The member.
        quality: (n, n_llms) predicted quality.
        cost_usd: (n, n_llms) predicted dollars, NaN where unknown.
    """

    member: Member
    quality: Floats
    cost_usd: Floats


def try_members(
    members: Sequence[Member], data: RoutingData, fold: NDArray[np.intp], seed: int
) -> tuple[list[OutOfSample], dict[str, str]]:
    """Predict the questions of each fold with routers fitted on the other folds.

    Members that cannot be built or fitted are left out.

    Returns:
        The predictions, and the labels of members left out with the reasons.
    """
    shape, folds = data.quality.shape, np.unique(fold)
    found = [OutOfSample(member, np.empty(shape), np.empty(shape)) for member in members]
    failed: dict[str, str] = {}
    for turn, one in enumerate(folds):
        rows = np.flatnonzero(fold == one)
        training, batch = data.select(np.flatnonzero(fold != one)), data.select(rows).batch()
        for place, outside in enumerate(found):
            label = outside.member.label
            done, total = turn * len(members) + place, len(folds) * len(members)
            report(f"fits of members, now {label}", done, total)
            if label in failed:
                continue
            try:
                router = outside.member.make(seed).fit(training)
                prediction = router.predict(batch)
            except WaypostError as error:
                logger.warning("auto: %s is left out: %s", label, error)
                failed[label] = str(error)
                continue
            outside.quality[rows] = prediction.quality
            outside.cost_usd[rows] = router.predict_cost(batch, prediction)
    return [one for one in found if one.member.label not in failed], failed
