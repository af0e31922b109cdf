"""What the checks of routers share: routers, fitted once, and the errors that calls raise."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.records import Decision
from waypost.contracts.router import ScoreRouter
from waypost.contracts.routing_data import RoutingData
from waypost.encoders import make_encoder
from waypost.registry import make_router, router_class
from waypost.testing.synthetic import ENCODER_ID, planted
from waypost.testing.tiny_model import stand_in

_QUICK = {"epochs": 6, "patience": 3, "hidden": 16, "members": 2}
"""Of a router that has such parameters: few small epochs say as much as many."""

ErrorT = TypeVar("ErrorT", bound=Exception)


def new_router(name: str, **params: Any) -> ScoreRouter:
    """Build an untrained score router with its encoder set.

    It has the parameters of a quick fit, where it names some, and a small stand-in for the model
    it fine-tunes.
    """
    cls: Any = router_class(name)
    params = {**cls.trial_parameters, **params}
    if cls.needs_weights is not None:
        params = {"model": stand_in(cls.needs_weights), **params}
    router = make_router(name, params)
    assert isinstance(router, ScoreRouter)
    router.encoder = make_encoder(ENCODER_ID)
    return router


def quick_router(name: str, **params: Any) -> ScoreRouter:
    """Build a router as `new_router` does, of few and small epochs where it learns by them.

    For what must hold however well it has learned.
    """
    defaults = router_class(name)().get_params()  # type: ignore[attr-defined]
    quick = {key: value for key, value in _QUICK.items() if type(defaults.get(key)) is int}
    return new_router(name, **quick, **params)


@cache
def quick_data() -> RoutingData:
    """Return the data of `quick_fitted`: more rows than one batch has."""
    return planted(72)


def quick_fitted(name: str) -> ScoreRouter:
    """Return a `quick_router`, fitted once in a process: it is to be asked, not changed."""
    return _quick_fitted(name, _variant(name))


def fitted(name: str) -> ScoreRouter:
    """Return the router fitted on planted data: a shallow copy, whose policy may be changed."""
    return copy.copy(_fitted(name, _variant(name)))


@cache
def _quick_fitted(name: str, _variant: str) -> ScoreRouter:
    return quick_router(name).fit(quick_data())


@cache
def _fitted(name: str, _variant: str) -> ScoreRouter:
    return new_router(name).fit(planted(160))


def _variant(name: str) -> str:
    """Say how `new_router` builds it, which a test may change: what was fitted before is not it."""
    cls: Any = router_class(name)
    return repr(cls.trial_parameters)


def scores(router: ScoreRouter, data: RoutingData) -> NDArray[np.float32]:
    """Return the predicted quality of the data's questions."""
    return router.predict_quality(data.batch())


def models(decisions: Sequence[Decision]) -> list[str]:
    """Return the chosen names."""
    return [decision.model for decision in decisions]


def raised(kind: type[ErrorT], call: Callable[[], Any]) -> ErrorT:
    """Return the error of that kind that the call raises."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")
