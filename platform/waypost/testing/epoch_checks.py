"""Checks of routers that learn by epochs; all other routers pass them."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from waypost.contracts.epochs import EpochRouter, EpochTraining
from waypost.contracts.errors import (
    ArtifactFormatError,
    ConfigError,
    NotFittedError,
    SchemaError,
)
from waypost.contracts.router import ScoreRouter
from waypost.contracts.routing_data import RoutingData
from waypost.registry import router_class
from waypost.testing.fitted_routers import (
    quick_data,
    quick_fitted,
    quick_router,
    raised,
    scores,
)
from waypost.testing.synthetic import planted

_RESTARTS = (1, 2, 5)
"""Epochs after which a training is interrupted."""


@cache
def _others() -> RoutingData:
    return planted(20, seed=4)


def learns_by_epochs(name: str) -> bool:
    """Return whether the router is an `EpochRouter`."""
    return issubclass(router_class(name), EpochRouter)


def check_epochs_end_where_fit_does(name: str) -> None:
    """``fit_epochs`` gives the same router as ``fit``, with and without settling after epochs."""
    if not learns_by_epochs(name):
        return
    router, training = _begun(name, quick_data())
    counted = []
    for done in training:
        counted.append(done)
        if done < 3:
            training.settle()
            assert np.isfinite(scores(router, _others())).all()
    training.settle()
    assert counted == list(range(1, len(counted) + 1))
    assert len(counted) <= training.total
    assert training.stopped or training.done == training.total
    _same(router, quick_fitted(name))


def check_an_unsettled_router_says_so(name: str) -> None:
    """An unsettled router raises NotFittedError; further epochs do not change a settled one."""
    if not learns_by_epochs(name):
        return
    router, training = _begun(name, quick_data())
    if training.total:
        raised(NotFittedError, training.settle)
        raised(NotFittedError, lambda: router.route_single("simmer the garlic"))
    next(training)
    raised(NotFittedError, lambda: scores(router, _others()))
    training.settle()
    before = scores(router, _others())
    next(training, None)
    np.testing.assert_array_equal(scores(router, _others()), before)
    assert router.route_single("simmer the garlic").model in router.model_names


def check_resumed_epochs_end_as_if_never_cut_off(name: str) -> None:
    """A training resumed several times from safetensors gives the same router as one fit."""
    if not learns_by_epochs(name):
        return
    router, training = _begun(name, quick_data())
    while next(training, None):
        if training.done in _RESTARTS:
            if training.done == 2:
                training.settle()
            state = load(save(training.state()))
            router, training = _begun(name, quick_data(), state)
    training.settle()
    _same(router, quick_fitted(name))


def check_other_settings_go_on_from_a_state(name: str) -> None:
    """Float settings may change when a state is resumed, as if changed at that epoch; no others."""
    if not learns_by_epochs(name):
        return
    data = quick_data()
    _, training = _begun(name, data)
    next(training)
    training.settle()
    state = training.state()
    changed = {
        key: value / 2 for key, value in training.settings(0).items() if isinstance(value, float)
    }
    assert changed
    results = [_begun(name, data, state, **changed), _changed_after_one(name, data, changed)]
    for _, training in results:
        assert training.done == 1
        next(training)
        next(training, None)
        training.settle()
        assert training.schedule[-1] == (1, {**training.settings(0), **changed})
    (one, training), (two, _) = results
    _same(one, two)
    fixed = [k for k in one.get_params() if k not in training.router.changeable_parameters]
    others = {key: object() for key in fixed}
    error = raised(ConfigError, lambda: training.change(**others))
    assert len(error.faults) >= len(others)


def _changed_after_one(
    name: str, data: RoutingData, changed: dict[str, Any]
) -> tuple[ScoreRouter, EpochTraining]:
    router, training = _begun(name, data)
    next(training)
    training.change(**changed)
    return router, training


def check_a_foreign_state_is_refused(name: str) -> None:
    """A state with other data, another seed or missing parts is refused."""
    if not learns_by_epochs(name):
        return
    data = quick_data()
    _, training = _begun(name, data)
    next(training)
    state = training.state()
    raised(SchemaError, lambda: _begun(name, planted(90, seed=8), state))
    error = raised(ConfigError, lambda: _begun(name, data, state, seed=5))
    assert "seed" in error.faults[0].where
    cut = dict(list(state.items())[:2])
    for wrong in ({}, cut, {**state, "about": state["about"][:-9]}):
        raised(ArtifactFormatError, partial(_begun, name, data, wrong))


def _begun(
    name: str, data: RoutingData, state: Any = None, **params: Any
) -> tuple[ScoreRouter, EpochTraining]:
    router = quick_router(name, **params)
    assert isinstance(router, EpochRouter)
    return router, router.fit_epochs(data, state)


def _same(one: ScoreRouter, two: ScoreRouter) -> None:
    (arrays, values), (expected, facts) = one.get_state(), two.get_state()
    assert values == facts
    assert sorted(arrays) == sorted(expected)
    for key, part in arrays.items():
        np.testing.assert_array_equal(part, expected[key], err_msg=key)
    np.testing.assert_array_equal(scores(one, _others()), scores(two, _others()))
