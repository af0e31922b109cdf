"""The whole measurement: each router, scikit-learn's models, and neighbours on much data."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost import __version__
from waypost.bench.routers.aims import NEAREST, aims
from waypost.bench.routers.data import made_up
from waypost.bench.routers.large import Large, time_large
from waypost.bench.routers.reference import references
from waypost.bench.routers.timing import Subject, fitted, subject_of, timings
from waypost.contracts.errors import RegistryError, WaypostError
from waypost.contracts.records import Query, QueryBatch
from waypost.contracts.router import ScoreRouter
from waypost.contracts.routing_data import RoutingData, read_routing_data
from waypost.registry import list_routers, router_class

FORMAT = "waypost-bench-routers/1"
ENCODER = "static"
DEFAULT_K = 320
"""scikit-learn's k where `aims.NEAREST` is not measured; else they have the same."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How much is measured.

    Attributes:
        n, llms, dimension: Size of the made-up data; of no account where ``data`` is given.
        batch: Queries decided together.
        repeats: How often.
        alone: Queries decided one by one.
        large_n, large_llms: Size of the large case; 0 leaves it out.
        seed: Of the made-up data.
    """

    n: int = 5000
    llms: int = 9
    dimension: int = 384
    batch: int = 4096
    repeats: int = 7
    alone: int = 500
    large_n: int = 100_000
    large_llms: int = 100
    seed: int = 0


QUICK = Options(n=400, dimension=64, batch=512, repeats=3, alone=40, large_n=2000, large_llms=10)


def measured_routers(names: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the score routers of these names, or all built-in ones that fine-tune no model.

    Raises:
        RegistryError: a name is unknown, or names what cannot be measured here.
    """
    wanted = list(names) or [e.name for e in list_routers([]) if e.source == "built-in"]
    fit = {name: _measurable(router_class(name)) for name in wanted}
    if names and (wrong := [name for name, can in fit.items() if not can]):
        raise RegistryError(
            f"{', '.join(wrong)}: not a score router that works from vectors; expected some of: "
            f"{', '.join(measured_routers())}"
        )
    return tuple(dict.fromkeys(name for name, can in fit.items() if can))


def _measurable(cls: type[Any]) -> bool:
    return issubclass(cls, ScoreRouter) and cls.needs_weights is None


def run(
    names: Sequence[str], options: Options, data_folder: Path | None, tell: Tell
) -> dict[str, Any]:
    """Measure.

    Args:
        names: Routers; none is all.
        options: How much.
        data_folder: Routing data instead of made-up data, embedded with `ENCODER`.
        tell: Called with a line for each step.

    Returns:
        JSON-able data: ``format``, ``machine``, ``options``, ``data``, ``routers`` and
        ``references`` (`Timing` by name), ``large`` (`Large` by way), ``aims``, and ``failed``:
        router -> why it was not measured.

    Raises:
        RegistryError, SchemaError, MissingExtraError: of names, data, scikit-learn.
    """
    chosen = measured_routers(names)
    data, batch = _given(data_folder, options) if data_folder else _made_up(options)
    subjects: dict[str, Subject] = {}
    failed: dict[str, str] = {}
    k = DEFAULT_K
    for name in chosen:
        tell(f"{name}: fitting {len(data)} x {len(data.llms)}")
        try:
            router, fit_s = fitted(name, {}, data)
        except WaypostError as error:
            failed[name] = str(error)
            continue
        subjects[name] = subject_of(router, fit_s, batch)
        k = getattr(router, "k_", k) if name == NEAREST else k
    theirs = references(data, batch, k)
    tell(f"deciding {len(batch)} queries")
    everyone = timings({**subjects, **theirs}, len(batch), options.repeats, options.alone)
    routers = {name: everyone[name] for name in subjects}
    compared = {name: everyone[name] for name in theirs}
    large: dict[str, Large] = {}
    index_mb = None
    if options.large_n and NEAREST in chosen:
        tell(f"{NEAREST}: {options.large_n} x {options.large_llms}")
        large, index_mb = time_large(
            options.large_n, options.large_llms, options.dimension, options.alone, options.seed
        )
    found = aims(routers, compared, large, whole=not names and not failed)
    return {
        "format": FORMAT,
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "load": os.getloadavg()[0],
            "python": platform.python_version(),
            "waypost": __version__,
            "numpy": np.__version__,
        },
        "options": asdict(options),
        "data": {
            "made_up": data_folder is None,
            "queries": len(data),
            "llms": len(data.llms),
            "dimension": np.asarray(data.embeddings).shape[1],
            "k": k,
        },
        "routers": {name: asdict(one) for name, one in routers.items()},
        "references": {name: asdict(one) for name, one in compared.items()},
        "large": {name: asdict(one) for name, one in large.items()},
        "index_mb": index_mb,
        "aims": [asdict(aim) for aim in found],
        "failed": failed,
    }


def _made_up(options: Options) -> tuple[RoutingData, QueryBatch]:
    n = options.n
    data = made_up(n + options.batch, options.llms, options.dimension, options.seed)
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
