"""Choose a lambda by a share of the strong LLM, by dollars, or by lost quality."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from waypost.contracts.cost import column_mean
from waypost.contracts.errors import ConfigError, Fault, SchemaError
from waypost.contracts.router import TrainableRouter
from waypost.contracts.routing_data import read_routing_data
from waypost.contracts.tables import SPLITS, split_path
from waypost.loading import load_router, manifest_of
from waypost.metrics.comparison import lambda_grid
from waypost.metrics.costs import costs_of
from waypost.metrics.operating_points import KEY, Curve, read_curve
from waypost.pipelines.data.embedding_cache import query_embeddings
from waypost.pipelines.data.embeddings import Progress
from waypost.pipelines.validation import choices_of
from waypost.storage import Place, local_copy

FIRST = ("validation", "test", "train")
"""Split of a data folder that is measured: the first that there is."""


def kept_curve(artifact: str | Place) -> Curve:
    """Return the curve that training kept in an artifact.

    Raises:
        ConfigError: It kept none.
        ArtifactError, StorageError: The artifact cannot be read.
    """
    curve = read_curve(manifest_of(artifact).metrics)
    if curve is None:
        problem = (
            "its training kept no curve (it was not validated, the router ranks by no cost, or an "
            "earlier version wrote it): give --data DIR, or train it again"
        )
        raise ConfigError([Fault(str(artifact), problem)])
    return curve


def measured_curve(
    artifact: str | Place,
    data_folder: str | Place,
    *,
    split: str | None = None,
    lambdas: Sequence[float] | None = None,
    progress: Progress | None = None,
    allow_plugin_code: bool = False,
) -> Curve:
    """Measure the curve of an artifact on routing data.

    Args:
        artifact: Path or URI of the artifact.
        data_folder: Routing data.
        split: The split; None takes the first of `FIRST` that there is.
        lambdas: Ascending cost weights from 0; None is a scale from quality alone to cost alone.
        progress: Called with (done, total) embedded texts.
        allow_plugin_code: Run plug-in code packed in the artifact.

    Raises:
        ConfigError: There is no such split.
        SchemaError: No choice has a measured score.
        ArtifactError, StorageError: Artifact or data cannot be read.
    """
    router = load_router(artifact, allow_plugin_code=allow_plugin_code)
    with local_copy(data_folder) as folder:
        there = [name for name in SPLITS if split_path(folder, name).is_file()]
        wanted = split or next((name for name in FIRST if name in there), None)
        if wanted not in there:
            problem = (
                f"has no split {wanted or 'of routing data'}; it has {', '.join(there) or 'none'}"
            )
            raise ConfigError([Fault(str(data_folder), problem)])
        data = read_routing_data(folder, wanted)
        if router.needs_embeddings and router.encoder is not None:
            vectors = query_embeddings(data.queries, router.encoder, folder, progress)
            data = data.with_embeddings(vectors, router.encoder.id)
    found = choices_of(
        router, _strong(router), data, lambdas or lambda_grid(column_mean(costs_of(data).usd))
    )
    result = found.result(f"the {wanted} split of the data")
    if KEY not in result:
        raise SchemaError(f"{data_folder}: no choice of {router.name} has a measured score there")
    return Curve.from_dict(result[KEY])


def _strong(router: TrainableRouter) -> str:
    return router.model_names[int(np.argmax(router.mean_quality_))]
