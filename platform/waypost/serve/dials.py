"""Choose a lambda by the name of the model alone: ``auto:0.3``, ``auto-cheap``."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from waypost.contracts.artifact import Manifest
from waypost.metrics.operating_points import RECOVERED, read_curve

AUTO = "auto"
"""The ``model`` of a request to the default router."""

DIALS = tuple(f"{AUTO}-{name}" for name in RECOVERED)
"""Names of the operating points of the default router."""

PATTERN = r"^auto:[0-9]{1,6}(\.[0-9]{1,6})?$"
"""The form of a name with a lambda, for the OpenAPI document."""

_LAMBDA = re.compile(r"(?P<router>.+):(?P<lam>[0-9]{1,6}(?:\.[0-9]{1,6})?)")


@dataclass(frozen=True, slots=True)
class Dial:
    """What the name of a model asks of routing.

    Attributes:
        router: Name of a router, or ``auto``.
        lam: Cost weight that the name tells; None where it tells none.
    """

    router: str
    lam: float | None = None


def named_lambdas(manifests: Mapping[str, Manifest]) -> dict[str, float]:
    """Return the lambdas of `DIALS`; empty where the default router's training kept no curve.

    Args:
        manifests: Manifest of each router by name, the default router first.
    """
    first = next(iter(manifests.values()), None)
    curve = None if first is None else read_curve(first.metrics)
    if curve is None:
        return {}
    return {f"{AUTO}-{name}": point.lam for name, point in curve.named().items()}


def read_dial(model: str, routers: Collection[str], lambdas: Mapping[str, float]) -> Dial | None:
    """Return what a name asks for; None where it names neither a router nor one with a lambda.

    Args:
        model: The ``model`` of a request.
        routers: Names of the routers.
        lambdas: See `named_lambdas`.
    """
    if model == AUTO or model in routers:
        return Dial(model)
    if model in lambdas:
        return Dial(AUTO, lambdas[model])
    found = _LAMBDA.fullmatch(model)
    if found is None or (found["router"] != AUTO and found["router"] not in routers):
        return None
    return Dial(found["router"], float(found["lam"]))


def advice(model: str) -> str:
    """Return a hint for a name that is nearly one with a lambda; empty for any other."""
    if model in DIALS:
        return (
            " (the artifact of the default router keeps no curve that would give it a lambda: "
            "train it again, or ask for auto:LAMBDA)"
        )
    if model.startswith(f"{AUTO}:"):
        return " (expected auto:LAMBDA, such as auto:0.3)"
    return ""
