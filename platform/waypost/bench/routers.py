"""Time fits and decisions of score routers, beside scikit-learn's neighbours and ridge.

Embeddings are given, so no encoder is measured. Routers that fine-tune a model are left out.

Example: waypost bench routers --insert docs/results/speed.md:bench-routers
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import DirectoryPath, Field

from waypost.bench import harness
from waypost.bench._made_up import made_up
from waypost.bench._timing import Subject, Timing, memory_mb, subject_of, timings
from waypost.bench.harness import Aim, Result, Table, Tell, at_least, at_most, figure
from waypost.contracts.errors import MissingExtraError, RegistryError, WaypostError
from waypost.contracts.records import Query, QueryBatch
from waypost.contracts.router import ScoreRouter
from waypost.contracts.routing_data import RoutingData, read_routing_data
from waypost.registry import list_routers, make_router, router_class

ENCODER = "static"
NEIGHBOURS, RIDGE = "scikit-learn KNeighborsRegressor", "scikit-learn Ridge"
NEAREST, AUTO = "knnrouter", "auto"
LINEAR = ("linearrouter", "mfrouter", "clusterrouter")
"""Routers whose decision is one or two products of the embedding and a matrix."""

DEFAULT_K = 320
"""scikit-learn's k if `NEAREST` is not measured; otherwise it uses the k of `NEAREST`."""

_COMPARED = 200
"""Maximum number of queries that recall is measured on."""


class Options(harness.Options):
    """Options of ``waypost bench routers``.

    Attributes:
        batch: Queries routed in one batch.
        repeats: Number of rounds of the batch.
        alone: Queries routed one by one.
        turns: Turns of a session whose last one is decided.
        large_n, large_llms: Questions and LLMs of the large case.
    """

    data: DirectoryPath | None = Field(
        None,
        description="Routing-data folder; its training split is used.  [default: made-up data]",
    )
    router: tuple[str, ...] = Field((), description="May be given many times.  [default: all]")
    n: int = Field(5000, ge=20, description="Made-up questions.")
    llms: int = Field(9, ge=2, description="Made-up LLMs.")
    dim: int = Field(384, ge=2, description="Dimension of made-up embeddings.")
    large: bool = Field(True, description="Also measure neighbours on 100,000 questions.")
    seed: int = Field(0, ge=0, description="Seed of the made-up data.")
    batch: int = 4096
    repeats: int = 7
    alone: int = 500
    turns: int = 10
    large_n: int = 100_000
    large_llms: int = 100


QUICK = {
    "n": 400, "dim": 64, "batch": 512, "repeats": 3, "alone": 40, "large_n": 2000, "large_llms": 10,
}  # fmt: skip


def run(options: Options, tell: Tell) -> Result:
    """Measure each router, scikit-learn's models, and neighbours on large data.

    Returns:
        Figures: ``data``, ``routers`` and ``references`` (`Timing` by name), ``large`` (see
        `_time_large`), ``index_mb``.

    Raises:
        RegistryError: A router is unknown or cannot be measured.
        SchemaError: ``data`` is not a routing-data folder.
        MissingExtraError: scikit-learn is not installed.
    """
    chosen = measured_routers(options.router)
    data, batch = _given(options.data, options) if options.data else _made_up(options)
    subjects: dict[str, Subject] = {}
    failed: dict[str, str] = {}
    k = DEFAULT_K
    for name in chosen:
        tell(f"{name}: fitting {len(data)} x {len(data.llms)}")
        try:
            router, fit_s = _fitted(name, {}, data)
        except WaypostError as error:
            failed[name] = str(error)
            continue
        subjects[name] = subject_of(router, fit_s, batch, options.turns)
        k = getattr(router, "k_", k) if name == NEAREST else k
    theirs = _references(data, batch, k)
    tell(f"deciding {len(batch)} queries")
    everyone = timings({**subjects, **theirs}, len(batch), options.repeats, options.alone)
    routers, compared = ({name: everyone[name] for name in part} for part in (subjects, theirs))
    large: dict[str, Any] = {}
    index_mb = None
    if options.large and NEAREST in chosen:
        tell(f"{NEAREST}: {options.large_n} x {options.large_llms}")
        large, index_mb = _time_large(options)
    figures: dict[str, Any] = {
        "data": {
            "made_up": options.data is None,
            "queries": len(data),
            "llms": len(data.llms),
            "dimension": np.asarray(data.embeddings).shape[1],
            "k": k,
        },
        "routers": {name: asdict(one) for name, one in routers.items()},
        "references": {name: asdict(one) for name, one in compared.items()},
        "large": large,
        "index_mb": index_mb,
    }
    facts = (
        f"Batches of {options.batch} queries (best of {options.repeats}), {options.alone} queries "
        "alone; vectors given."
    )
    found = aims(routers, compared, large, whole=not options.router and not failed)
    return Result(_tables(figures, options), facts, found, figures, failed)


def measured_routers(names: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the score routers of these names, or all built-in ones that fine-tune no model.

    Raises:
        RegistryError: A name is unknown, or its router cannot be measured here.
    """
    wanted = list(names) or [e.name for e in list_routers([]) if e.source == "built-in"]
    classes: dict[str, Any] = {name: router_class(name) for name in wanted}
    fit = {n: issubclass(c, ScoreRouter) and c.needs_weights is None for n, c in classes.items()}
    if names and (wrong := [name for name, can in fit.items() if not can]):
        raise RegistryError(
            f"{', '.join(wrong)}: not a score router that works from vectors; expected some of: "
            f"{', '.join(measured_routers())}"
        )
    return tuple(dict.fromkeys(name for name, can in fit.items() if can))


def _made_up(options: Options) -> tuple[RoutingData, QueryBatch]:
    n = options.n
    data = made_up(n + options.batch, options.llms, options.dim, options.seed)
    return data.select(np.arange(n)), _batch(data, np.arange(n, len(data)))


def _given(folder: Path, options: Options) -> tuple[RoutingData, QueryBatch]:
    from waypost.encoders import make_encoder

    data = read_routing_data(folder, "train")
    encoder = make_encoder(ENCODER)
    data = data.with_embeddings(encoder.encode(data.queries), encoder.id)
    return data, _batch(data, np.arange(options.batch) % len(data))


def _batch(data: RoutingData, rows: NDArray[np.intp]) -> QueryBatch:
    queries = tuple(Query(data.queries[i]) for i in rows)
    return QueryBatch(queries, np.asarray(data.embeddings)[rows])


def _fitted(name: str, params: dict[str, Any], data: Any) -> tuple[ScoreRouter, float]:
    """Fit a router with these parameters; return it and the seconds of the fit."""
    start = time.perf_counter()
    router = make_router(name, params)
    assert isinstance(router, ScoreRouter)  # the caller chose by class
    router.fit(data)
    return router, time.perf_counter() - start


def _references(data: RoutingData, batch: QueryBatch, k: int) -> dict[str, Subject]:
    """Fit scikit-learn's models, which predict quality only.

    Missing scores are replaced by 0, which does not change the timing. Neighbours are searched by
    brute force, once by Euclidean distance, for which scikit-learn has faster code, and once by
    cosine. On unit vectors both have the same neighbours.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import Ridge
        from sklearn.neighbors import KNeighborsRegressor
    except ImportError:
        raise MissingExtraError("sklearn", "train") from None
    models: dict[str, Any] = {
        f"{NEIGHBOURS}, {metric}": KNeighborsRegressor(
            min(k, len(data)), algorithm="brute", metric=metric
        )
        for metric in ("euclidean", "cosine")
    } | {RIDGE: Ridge()}
    rows, targets = np.asarray(batch.embeddings), np.nan_to_num(data.quality)

    def subject(model: Any) -> Subject:
        fit_s = harness.seconds(lambda: model.fit(data.embeddings, targets))
        return Subject(fit_s, lambda: model.predict(rows), lambda i: model.predict(rows[i : i + 1]))

    return {name: subject(model) for name, model in models.items()}


def _time_large(options: Options) -> tuple[dict[str, dict[str, float]], float]:
    """Time exact and indexed neighbours on made-up data; return figures and the index's MB.

    The figures ``exact`` and ``index`` each have ``fit_s`` (the whole fit, index and choice of k
    included), ``p50_ms`` and ``p99_ms`` of one decision, ``memory_mb`` of the learned arrays,
    ``k``, ``recall`` (share of the exact neighbours that the search returns) and ``same_choice``
    (share of queries routed to the same LLM as by the exact search).
    """
    n, alone = options.large_n, options.alone
    data = made_up(n + alone, options.large_llms, options.dim, options.seed)
    asked, data = data.select(np.arange(n, n + alone)), data.select(np.arange(n))
    queries = tuple(Query(text) for text in asked.queries)
    rows = np.asarray(asked.embeddings)
    found: dict[str, dict[str, float]] = {}
    chosen: dict[str, list[str]] = {}
    index_mb = 0.0
    for name, kind in (("exact", "exact"), ("index", "ivf")):
        router, fit_s = _fitted(NEAREST, {"index": kind}, data)
        each: Any = router

        def ask(i: int, router: Any = router) -> Any:
            return router.decide(queries[i : i + 1], rows[i : i + 1])[0]

        single = harness.percentiles(harness.milliseconds(ask, alone))
        chosen[name] = [ask(i).model for i in range(min(alone, _COMPARED))]
        recall = 1.0
        if each.index_ is not None:
            index_mb = sum(a.nbytes for a in each.index_.to_arrays().values()) / 1e6
            recall = _recall(each, rows[:_COMPARED])
        found[name] = {
            "fit_s": fit_s,
            "p50_ms": single["p50"],
            "p99_ms": single["p99"],
            "memory_mb": memory_mb(router),
            "k": each.k_,
            "recall": recall,
            "same_choice": float(np.mean(np.equal(chosen[name], chosen["exact"]))),
        }
    return found, index_mb


def _recall(router: Any, rows: NDArray[np.float32]) -> float:
    k = router.k_
    near = router.index_.nearest(router.memory_, rows, k)
    product = rows @ router.memory_.T
    best = np.argpartition(product, product.shape[1] - k, axis=1)[:, -k:]
    shares = [
        np.isin(exact, index[share > 0]).mean()
        for exact, index, share in zip(best, near.index, near.share, strict=True)
    ]
    return float(np.mean(shares))


def aims(
    routers: Mapping[str, Timing],
    references: Mapping[str, Timing],
    large: Mapping[str, Mapping[str, float]],
    *,
    whole: bool,
) -> list[Aim]:
    """Compare the timings with the project's aims.

    Args:
        routers: Timing by router.
        references: Timing by scikit-learn model.
        large: See `_time_large`; empty if it was not measured.
        whole: Whether all routers were requested and fitted; required for the sum of fits.
    """
    fits = sum(one.fit_s for one in routers.values()) if whole else None
    without = fits - routers[AUTO].fit_s if fits is not None and AUTO in routers else None
    slowest = min((routers[name].per_s for name in LINEAR if name in routers), default=None)
    single = max((one.p50_ms for one in routers.values()), default=None)
    nearest = routers[NEAREST].per_s if NEAREST in routers else None
    theirs = max((v.per_s for k, v in references.items() if k.startswith(NEIGHBOURS)), default=0.0)
    times = nearest / theirs if nearest is not None and theirs else None
    index = large.get("index", {})
    return [
        at_most("fits of all routers in all, s", fits, 120),
        at_most("fits of all routers but auto in all, s", without, 120),
        at_least("linear routers, the slowest, decisions/s", slowest, 200_000),
        at_least("neighbours, decisions/s", nearest, 5_000),
        at_least("neighbours over scikit-learn's faster ones, decisions/s", times, 1),
        at_most("one decision, the slowest router's p50, ms", single, 1),
        at_most("neighbours with an index, p50, ms", index.get("p50_ms"), 5),
        at_most("neighbours with an index, p99, ms", index.get("p99_ms"), 5),
    ]


def _tables(figures: Mapping[str, Any], options: Options) -> list[Table]:
    data, large = figures["data"], figures["large"]
    made = "made-up questions" if data["made_up"] else "questions"
    keys = ("fit_s", "per_s", "p50_ms", "p99_ms", "session_p50_ms", "memory_mb")
    timings = {**figures["routers"], **figures["references"]}
    title = f"{data['queries']} {made} x {data['llms']} LLMs, {data['dimension']} wide; "
    rows = [[name, *(figure(one[key]) for key in keys)] for name, one in timings.items()]
    turns = f"after {options.turns - 1} turns: p50 ms"
    heads = ("router", "fit s", "decisions/s", "one: p50 ms", "p99 ms", turns, "MB")
    tables = [Table(f"{title}{data['k']} neighbours", heads, rows)]
    if large:
        title = (
            f"{NEAREST}, {options.large_n} made-up questions x {options.large_llms} LLMs (of its "
            f"memory the index has {figures['index_mb']:.0f} MB)"
        )
        rows = [
            [
                name,
                *(figure(one[key]) for key in ("fit_s", "p50_ms", "p99_ms")),
                f"{one['recall']:.4f} at {one['k']}",
                f"{one['same_choice']:.3f}",
                figure(one["memory_mb"]),
            ]
            for name, one in large.items()
        ]
        titles = ("search", "fit s", "one: p50 ms", "p99 ms", "recall", "same choice", "MB")
        tables.append(Table(title, titles, rows))
    return tables
