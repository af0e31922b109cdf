"""Checks of score routers: parameters and training data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from waypost.contracts.errors import ConfigError, NotFittedError, SchemaError
from waypost.contracts.router import QueryBatch, ScoreRouter
from waypost.registry import make_router, router_class
from waypost.registry.rule_router import no_outcomes
from waypost.testing.fitted_routers import (
    fitted,
    models,
    new_router,
    quick_data,
    quick_fitted,
    quick_router,
    raised,
    scores,
)
from waypost.testing.synthetic import SPECIALIST, doubled, planted, shuffled


def check_init_only_stores(name: str) -> None:
    """``__init__`` stores the given objects unchanged, and nothing else."""
    cls: Any = router_class(name)
    marks = {parameter: object() for parameter in cls.parameter_names()}
    assert vars(cls(**marks)) == marks
    assert set(cls.parameter_constraints) == set(marks)


def check_defaults_are_allowed(name: str) -> None:
    """The default parameters satisfy the router's own constraints."""
    cls: Any = router_class(name)
    cls.check_params(cls().get_params())


def check_get_and_set_params(name: str) -> None:
    """``get_params`` returns the parameters that were set; an error lists all unknown ones."""
    router = new_router(name)
    assert new_router(name).set_params(**router.get_params()).get_params() == router.get_params()
    _names_all(lambda: router.set_params(nonsense=1, gibberish=2), "nonsense", "gibberish")


def check_clones_as_scikit_learn_does(name: str) -> None:
    """``sklearn.base.clone`` returns an unfitted router with equal parameters."""
    from sklearn.base import clone

    copied: Any = clone(fitted(name))
    assert copied.get_params() == fitted(name).get_params()
    assert not hasattr(copied, "llms_")


def check_wrong_parameters_are_all_named(name: str) -> None:
    """One error lists all unknown parameters and all values out of range."""
    cls: Any = router_class(name)
    wrong = {parameter: object() for parameter in cls.parameter_names()}
    unknown = {"nonsense": 1, "gibberish": 2}
    _names_all(lambda: make_router(name, {**wrong, **unknown}), *wrong, *unknown)
    if wrong:
        router = cls(**wrong)
        _names_all(lambda: router.fit(planted(8)), *wrong)


def _names_all(call: Callable[[], Any], *expected: str) -> None:
    error = raised(ConfigError, call)
    assert len(error.faults) == len(expected), error
    assert all(any(word in fault.where for fault in error.faults) for word in expected), error


def check_not_fitted(name: str) -> None:
    """Before fit every use raises a NotFittedError, a ValueError and AttributeError as well."""
    router, data = new_router(name), planted(4)
    uses: tuple[Callable[[], Any], ...] = (
        lambda: router.predict_quality(data.batch()),
        lambda: router.predict_cost(data.batch()),
        lambda: router.route_single("a question"),
        lambda: router.model_names,
        router.get_state,
    )
    for use in uses:
        error = raised(NotFittedError, use)
        assert isinstance(error, ValueError)
        assert isinstance(error, AttributeError)


def check_fit_returns_self_and_repeats(name: str) -> None:
    """Two fits on the same data give the same scores; fit changes no parameter."""
    data = quick_data()
    router = quick_router(name)
    before = router.get_params()
    assert router.fit(data) is router
    assert router.get_params() == before
    assert router.n_features_in_ == (64 if router.needs_embeddings else 0)
    np.testing.assert_array_equal(scores(quick_fitted(name), data), scores(router, data))


def check_learned_state_ends_in_an_underscore(name: str) -> None:
    """Learned attributes end in an underscore; others would be lost when the router is saved."""
    router = quick_fitted(name)
    added = set(vars(router)) - set(router.get_params()) - {"encoder", "policy", "version"}
    assert [key for key in added if key.startswith("_") or not key.endswith("_")] == []


def check_unusable_data_is_refused(name: str) -> None:
    """Data without rows or scores of an LLM raises a SchemaError, as without needed embeddings.

    A router with ``needs_data = False`` takes data without rows, but not without LLMs. One that has
    an encoder embeds by itself.
    """
    data = planted(20)
    quality = data.quality.copy()
    quality[:, 1] = np.nan
    rowless = data.select([])
    if not new_router(name).needs_data:
        assert new_router(name).fit(rowless).model_names == data.names
        rowless = no_outcomes([])
    for case in (rowless, replace(data, quality=quality)):
        raised(SchemaError, partial(new_router(name).fit, case))
    if new_router(name).needs_embeddings:
        bare = new_router(name)
        bare.encoder = None
        raised(SchemaError, partial(bare.fit, replace(data, embeddings=None)))
        narrow = QueryBatch(data.batch().queries, np.ones((20, 3), np.float32))
        raised(SchemaError, lambda: fitted(name).predict(narrow))


def check_one_llm_or_one_question_is_enough(name: str) -> None:
    """Fitting and routing work on one LLM, on one question, and on both."""
    data = planted(20)
    for case in (
        data.select_llms(["cook"]),
        data.select([3]),
        data.select([3]).select_llms(["cook"]),
    ):
        router = quick_router(name).fit(case)
        assert np.isfinite(scores(router, data)).all()
        assert router.route_single("anything").model in case.names


def check_unmeasured_rows_change_nothing(name: str) -> None:
    """A question without any score does not change the fit."""
    data, more = quick_data(), planted(40, seed=9)
    nothing = np.full(more.quality.shape, np.nan)
    rows: dict[str, Any] = {
        column: np.concatenate([getattr(data, column), nothing])
        for column in ("quality", "input_tokens", "output_tokens", "cost_usd", "latency_s")
    }
    assert data.embeddings is not None
    assert more.embeddings is not None
    longer = replace(
        data,
        query_ids=data.query_ids + more.query_ids,
        queries=data.queries + more.queries,
        task_names=data.task_names + more.task_names,
        embeddings=np.concatenate([data.embeddings, more.embeddings]),
        **rows,
    )
    expected = scores(quick_fitted(name), more)
    np.testing.assert_allclose(scores(quick_router(name).fit(longer), more), expected, atol=1e-4)


def check_missing_cells_are_not_zero(name: str) -> None:
    """Predictions of an LLM change little if only a quarter of its scores is known."""
    data, other = planted(240), planted(80, seed=5)
    quality = data.quality.copy()
    quality[np.random.default_rng(1).random(len(data)) > 0.25, 0] = np.nan
    full = scores(new_router(name).fit(data), other)[:, 0]
    sparse = scores(new_router(name).fit(replace(data, quality=quality)), other)[:, 0]
    assert np.abs(full - sparse).mean() < 0.15, np.abs(full - sparse).mean()


def check_doubled_rows_change_nothing(name: str) -> None:
    """Doubling every row (and parameters that count rows) does not change the estimates."""
    data, other = quick_data(), planted(20, seed=5)
    once = quick_fitted(name)
    counts = {p: _count(once, p) for p in once.row_count_parameters}
    if counts:
        once = quick_router(name, **counts).fit(data)
    twice = quick_router(name, **{p: 2 * value for p, value in counts.items()}).fit(doubled(data))
    np.testing.assert_allclose(scores(twice, other), scores(once, other), atol=0.02)


def _count(router: ScoreRouter, parameter: str) -> Any:
    value = router.get_params()[parameter]
    return getattr(router, f"{parameter}_") if value is None else value


def check_pool_order_is_only_a_name(name: str) -> None:
    """Permuting the LLMs in the training data permutes the columns and changes no choice."""
    data, other = quick_data(), planted(20, seed=5)
    order = ["tiny", "cook", "prover"]
    one = quick_fitted(name)
    two = quick_router(name).fit(data.select_llms(order))
    columns = [one.model_names.index(llm) for llm in order]
    np.testing.assert_allclose(scores(two, other), scores(one, other)[:, columns], atol=1e-5)
    assert models(one.route_batch(other.queries)) == models(two.route_batch(other.queries))


def check_learns_a_planted_rule(name: str) -> None:
    """A router that uses the query finds the topic's specialist for 95 of 100 questions.

    Routers with a language model are skipped: the test's tiny model has random weights.
    """
    if not fitted(name).needs_embeddings and fitted(name).needs_weights != "encoder":
        return
    other = planted(100, seed=7)
    chosen = models(fitted(name).route_batch(other.queries))
    right = np.mean([SPECIALIST[t] == m for t, m in zip(other.task_names, chosen, strict=True)])
    assert right >= 0.95, right


def check_finds_nothing_in_shuffled_outcomes(name: str) -> None:
    """On shuffled scores a router is not significantly better than the best single LLM."""
    if not fitted(name).needs_embeddings and fitted(name).needs_weights is None:
        return
    data, other = shuffled(planted(200)), planted(200, seed=7)
    router = new_router(name).fit(data)
    columns = [other.names.index(m) for m in models(router.route_batch(other.queries))]
    earned = other.quality[np.arange(len(other)), columns]
    single = other.quality[:, int(np.argmax(data.quality.mean(axis=0)))]
    gain = earned - single
    assert gain.mean() <= 3 * gain.std() / math.sqrt(len(gain)) + 1e-9, gain.mean()
