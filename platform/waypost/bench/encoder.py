"""Time query encoders and compare their embeddings and the quality of routing on them.

Reports milliseconds per query alone and in batches, the cosine between encoders, and the quality of
nearest-neighbour routing on validation splits of the training data at lambda 0. Only k is fitted,
so the comparison is of the embeddings, not of a router.

Example: waypost bench encoder --data DIR --encoder static --encoder onnx
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import DirectoryPath, Field

from waypost.bench import harness
from waypost.bench.harness import Result, Table, Tell, figure
from waypost.contracts.encoder import Encoder
from waypost.contracts.routing_data import RoutingData, read_routing_data
from waypost.contracts.types import Floats
from waypost.encoders import EncoderSpec, make_encoder
from waypost.encoders.structure import join, structure_features
from waypost.report.numbers import UNKNOWN

NEIGHBOURS = (5, 10, 20, 40, 80, 160)
_FOLDS = 5
_VALIDATION = 0.2


class Options(harness.Options):
    """Options of ``waypost bench encoder``.

    Attributes:
        structure_weights: Weights to measure each encoder with; 0 is without structure features.
        timed_queries: Number of queries drawn for the timing.
    """

    data: DirectoryPath = Field(description="Routing-data folder; only its training split is read.")
    encoder: tuple[str, ...] = Field(
        ("hashing", "static", "onnx", "torch"),
        description="Kind or id; may be given many times. Its structure setting is ignored.",
    )
    seed: int = Field(100, ge=0, description="Seed of the first split.")
    repeats: int = Field(5, ge=1, description="Number of splits, with consecutive seeds.")
    structure_weights: tuple[float, ...] = (0.0, 0.5)
    timed_queries: int = 192


def run(options: Options, tell: Tell) -> Result:
    """Compare encoders on the training split of routing data.

    Each split is stratified by task: four fifths for fitting, one fifth for scoring.

    Returns:
        Figures: ``folder``, ``queries``, ``llms``, ``splits``, ``best_single`` and ``oracle``
        (mean scores), ``rows`` (one for each encoder and weight, with ``timing`` and ``quality``;
        see `_time` and `_quality`), ``cosine`` (pairs of encoders of one model: mean and minimum
        over the queries) and ``neighbours_shared`` (every pair: mean share of the 10 nearest
        neighbours in common).

    Raises:
        SchemaError: The data is not routing data.
        RegistryError: An encoder is unknown.
        WeightsError: A model is not available.
    """
    data = read_routing_data(options.data, "train")
    splits = [_split(data, options.seed + repeat) for repeat in range(options.repeats)]
    bases = [
        EncoderSpec.of(one).model_copy(update={"structure": False, "cache_mb": 0.0})
        for one in options.encoder
    ]
    form = structure_features(data.queries)
    rows, vectors = [], {}
    for base in bases:
        tell(f"{base.id}: embedding {len(data)} queries")
        vectors[base.id] = make_encoder(base).encode(data.queries)
        for weight in options.structure_weights:
            full = base.model_copy(
                update={"structure": weight > 0, "structure_weight": weight or 0.5}
            )
            tell(f"{full.id}: timing and neighbours")
            joined = join(vectors[base.id], form, weight) if weight else vectors[base.id]
            rows.append(
                {
                    "encoder": full.id,
                    "kind": base.kind,
                    "dimension": joined.shape[1],
                    "structure_weight": weight,
                    "timing": _time(make_encoder(full), data.queries, options.timed_queries),
                    "quality": _quality(joined, data.quality, splits),
                }
            )
    best = [_best_single(data.quality, learn)[score] for learn, score in splits]
    figures = {
        "folder": options.data.name,
        "queries": len(data),
        "llms": len(data.llms),
        "splits": {
            "first_seed": options.seed,
            "repeats": options.repeats,
            "validation": _VALIDATION,
        },
        "best_single": float(np.mean([np.nanmean(scores) for scores in best])),
        "oracle": float(np.mean([np.nanmax(data.quality[s], axis=1).mean() for _, s in splits])),
        "rows": rows,
        "cosine": _cosines(dict(zip(bases, vectors.values(), strict=True))),
        "neighbours_shared": _shared(vectors),
    }
    return _result(figures)


def _split(data: RoutingData, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split by task; queries with the same letters and digits go to the same part."""
    rng = np.random.default_rng(seed)
    texts = ["".join(filter(str.isalnum, text.lower())) for text in data.queries]
    groups = np.unique(np.array(texts), return_inverse=True)[1]
    tasks = np.array(data.task_names)
    scored = np.zeros(len(data), bool)
    for task in np.unique(tasks):
        members = np.unique(groups[tasks == task])
        drawn = rng.permutation(members)[: max(1, round(len(members) * _VALIDATION))]
        scored |= np.isin(groups, drawn)
    return np.flatnonzero(~scored), np.flatnonzero(scored)


def _time(encoder: Encoder, queries: Sequence[str], count: int) -> dict[str, float]:
    """Return milliseconds per query: p50 and p99 of one text at a time, means in batches."""
    drawn = np.random.default_rng(0).permutation(len(queries))[:count]
    texts = [queries[position] for position in drawn]
    encoder.encode(texts[:2])

    def times(size: int) -> list[float]:
        parts = [texts[i : i + size] for i in range(0, len(texts), size)]
        return harness.milliseconds(lambda i: encoder.encode(parts[i]), len(parts), 0)

    single = harness.percentiles(times(1))
    return {
        "p50_ms": single["p50"],
        "p99_ms": single["p99"],
        "batch16_ms": sum(times(16)) / len(texts),
        "batch64_ms": sum(times(64)) / len(texts),
    }


def _quality(
    vectors: NDArray[np.float32],
    scores: Floats,
    splits: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]],
) -> dict[str, Any]:
    """Return the quality of nearest-neighbour routing on the validation parts of the splits.

    Returns:
        ``mean`` score; ``gain``, its mean difference to the best single LLM of each training
        part; ``standard_error`` and ``gain_standard_error`` from the spread of the repeats (which
        share queries, so the error on new data is larger); ``neighbours``, the k chosen by
        cross-validation in each repeat.
    """
    means, gains, chosen = [], [], []
    for seed, (learn, score) in enumerate(splits):
        neighbours = _choose(vectors[learn], scores[learn], seed)
        earned = _earned(vectors[learn], scores[learn], vectors[score], scores[score])
        best = _best_single(scores, learn)[score]
        means.append(float(np.nanmean(earned[neighbours])))
        gains.append(float(np.nanmean(earned[neighbours] - best)))
        chosen.append(neighbours)
    return {
        "mean": float(np.mean(means)),
        "standard_error": _standard_error(means),
        "gain": float(np.mean(gains)),
        "gain_standard_error": _standard_error(gains),
        "neighbours": chosen,
    }


def _standard_error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def _choose(vectors: NDArray[np.float32], scores: Floats, seed: int) -> int:
    """Return the k with the highest score in cross-validation on the training part."""
    folds = np.random.default_rng(seed).permutation(len(vectors)) % _FOLDS
    total = dict.fromkeys(NEIGHBOURS, 0.0)
    for fold in range(_FOLDS):
        inside, outside = folds != fold, folds == fold
        earned = _earned(vectors[inside], scores[inside], vectors[outside], scores[outside])
        for k, values in earned.items():
            total[k] += float(np.nansum(values))
    return max(NEIGHBOURS, key=lambda k: (total[k], -k))


def _earned(
    known: NDArray[np.float32],
    known_scores: Floats,
    asked: NDArray[np.float32],
    asked_scores: Floats,
) -> dict[int, Floats]:
    """Return, for each k, the score of the LLM with the highest mean over the k neighbours.

    Missing scores are left out of the means. An LLM without scores in the neighbourhood has its
    mean over all of ``known_scores``.
    """
    order = nearest(known, asked, min(max(NEIGHBOURS), len(known)))
    measured = ~np.isnan(known_scores)
    filled = np.where(measured, known_scores, 0.0)
    overall = filled.sum(axis=0) / np.maximum(measured.sum(axis=0), 1)
    sums = np.cumsum(filled[order], axis=1)
    counts = np.cumsum(measured[order], axis=1)
    rows = np.arange(len(asked))
    earned = {}
    for k in NEIGHBOURS:
        last = min(k, order.shape[1]) - 1
        count = counts[:, last]
        predicted = np.where(count > 0, sums[:, last] / np.maximum(count, 1), overall)
        earned[k] = asked_scores[rows, predicted.argmax(axis=1)]
    return earned


def nearest(known: NDArray[np.float32], asked: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Return positions of the nearest rows of ``known`` by cosine, shape (n_asked, count)."""
    similarity = asked @ known.T
    top = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
    inner = np.argsort(-np.take_along_axis(similarity, top, axis=1), axis=1, kind="stable")
    return np.take_along_axis(top, inner, axis=1)


def _best_single(scores: Floats, learn: NDArray[np.intp]) -> Floats:
    return scores[:, int(np.nanmean(scores[learn], axis=0).argmax())]


def _cosines(vectors: dict[EncoderSpec, NDArray[np.float32]]) -> list[dict[str, Any]]:
    """Compare encoders of the same model; vectors of different models have no common axes."""
    items = [(spec, v) for spec, v in vectors.items() if spec.kind in ("onnx", "torch")]
    pairs = [(a, b) for i, a in enumerate(items) for b in items[i + 1 :]]
    found = []
    for (spec, one), (other_spec, other) in pairs:
        if spec.model == other_spec.model and spec.max_tokens == other_spec.max_tokens:
            cosines = np.einsum("ij,ij->i", one, other)
            pair = [spec.id, other_spec.id]
            found.append(
                {"pair": pair, "mean": float(cosines.mean()), "least": float(cosines.min())}
            )
    return found


def _shared(vectors: dict[str, NDArray[np.float32]], count: int = 10) -> list[dict[str, Any]]:
    """Return for each pair the mean share of a query's nearest neighbours in common."""
    sets = {
        name: [set(row.tolist()) for row in nearest(v, v[:512], count + 1)[:, 1:]]
        for name, v in vectors.items()
    }
    names = list(sets)
    return [
        {
            "pair": [a, b],
            "share": float(
                np.mean([len(x & y) / count for x, y in zip(sets[a], sets[b], strict=True)])
            ),
        }
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    ]


def _result(figures: Mapping[str, Any]) -> Result:
    rows = []
    for row in figures["rows"]:
        timing, quality = row["timing"], row["quality"]
        rows.append(
            [
                _label(row["encoder"]),
                str(row["dimension"]),
                *(figure(timing[key]) for key in ("p50_ms", "p99_ms", "batch16_ms", "batch64_ms")),
                f"{quality['mean']:.4f} ± {quality['standard_error']:.4f}",
                f"{quality['gain']:+.4f} ± {quality['gain_standard_error']:.4f}",
                row["encoder"],
            ]
        )
    title = (
        f"{figures['folder']}: {figures['queries']} queries, {figures['llms']} LLMs; best single "
        f"{figures['best_single']:.4f}, oracle {figures['oracle']:.4f}"
    )
    heads = ("encoder", "d", "p50 ms", "p99 ms", "x16", "x64", "kNN score", "gain", "id")
    pairs: dict[str, list[str]] = {}
    for item in figures["neighbours_shared"]:
        name = " and ".join(map(_label, item["pair"]))
        pairs[name] = [f"{item['share']:.2f}", UNKNOWN, UNKNOWN]
    for item in figures["cosine"]:
        name = " and ".join(map(_label, item["pair"]))
        pairs[name][1:] = [f"{item['mean']:.5f}", f"{item['least']:.5f}"]
    tables = [Table(title, heads, rows)]
    if pairs:
        two = ("encoders", "nearest 10 in common", "mean cosine", "least")
        tables.append(Table("Vectors of two", two, [[name, *row] for name, row in pairs.items()]))
    facts = (
        "Milliseconds a query: alone (p50, p99), and in batches of 16 and 64. Scores with the "
        "standard error over the splits; gain over the best single LLM of each training part."
    )
    return Result(tables, facts, figures=figures)


def _label(encoder: str) -> str:
    spec = EncoderSpec.of(encoder)
    return f"{spec.kind}+structure" if spec.structure else str(spec.kind)
