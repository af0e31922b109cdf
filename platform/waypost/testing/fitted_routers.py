"""Helpers of the router checks: routers that are fitted once, and the errors of calls."""

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
"""Parameters of a quick fit, for routers that have them: a few small epochs."""

ErrorT = TypeVar("ErrorT", bound=Exception)


def new_router(name: str, **params: Any) -> ScoreRouter:
    """Return an unfitted score router with its encoder set.

    It has its class's ``trial_parameters``, and a tiny model in place of one that it fine-tunes.
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
    """Return a router like `new_router` with few and small epochs, if it learns by epochs.

    Use it for properties that do not depend on the quality of the fit.
    """
    defaults = router_class(name)().get_params()  # type: ignore[attr-defined]
    quick = {key: value for key, value in _QUICK.items() if type(defaults.get(key)) is int}
    return new_router(name, **quick, **params)


@cache
def quick_data() -> RoutingData:
    """Return the training data of `quick_fitted`, with more rows than one batch."""
    return planted(72)


def quick_fitted(name: str) -> ScoreRouter:
    """Return a `quick_router`, fitted once per process. Do not modify it."""
    return _quick_fitted(name, _variant(name))


def fitted(name: str) -> ScoreRouter:
    """Return a shallow copy of a router fitted on planted data; its policy may be changed."""
    return copy.copy(_fitted(name, _variant(name)))


@cache
def _quick_fitted(name: str, _variant: str) -> ScoreRouter:
    return quick_router(name).fit(quick_data())


@cache
def _fitted(name: str, _variant: str) -> ScoreRouter:
    return new_router(name).fit(planted(160))


def _variant(name: str) -> str:
    """Return the parameters of `new_router`, part of the cache key because tests change them."""
    cls: Any = router_class(name)
    return repr(cls.trial_parameters)


def scores(router: ScoreRouter, data: RoutingData) -> NDArray[np.float32]:
    """Return the predicted quality of the data's questions, of shape (n_queries, n_llms)."""
    return router.predict_quality(data.batch())


def models(decisions: Sequence[Decision]) -> list[str]:
    """Return the names of the chosen LLMs."""
    return [decision.model for decision in decisions]


def raised(kind: type[ErrorT], call: Callable[[], Any]) -> ErrorT:
    """Return the error of class ``kind`` that the call raises; fail if it raises none."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")
