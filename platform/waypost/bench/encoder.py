"""`waypost bench encoder`: what each encoder costs and what routing on it earns.

Quality is that of masked nearest neighbours on scores, lambda 0: it needs no training beyond k,
so it compares the vectors and not a router. Only the training split is read.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.encoder import Encoder
from waypost.contracts.routing_data import RoutingData, read_routing_data
from waypost.contracts.types import Floats
from waypost.encoders import EncoderSpec, make_encoder
from waypost.encoders.structure import join, structure_features

DEFAULT_ENCODERS = ("hashing", "static", "onnx", "torch")
NEIGHBOURS = (5, 10, 20, 40, 80, 160)
REPEATS = 5
_FOLDS = 5
_VALIDATION = 0.2


@dataclass(frozen=True)
class Timing:
    """Milliseconds a query; p50 and p99 of one text at a time, means in batches."""

    p50_ms: float
    p99_ms: float
    batch16_ms: float
    batch64_ms: float


@dataclass(frozen=True)
class Quality:
    """Mean score earned on the validation parts, over the repeats.

    Attributes:
        mean: Mean over the repeats.
        standard_error: Of that mean, from the spread of the repeats. They share queries, so it
            understates what another data set would show.
        gain: Mean difference to the best single LLM of each training part.
        gain_standard_error: Of the gain, likewise; the pairing removes what all share.
        neighbours: The k that cross-validation chose in each repeat.
    """

    mean: float
    standard_error: float
    gain: float
    gain_standard_error: float
    neighbours: tuple[int, ...]


def run(
    data_dir: str | Path,
    split_seed: int = 100,
    encoders: Sequence[str | EncoderSpec] = DEFAULT_ENCODERS,
    out_json: str | Path | None = None,
    *,
    structure_weights: Sequence[float] = (0.0, 0.5),
    repeats: int = REPEATS,
    timed_queries: int = 192,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Compare encoders on the training split of routing data.

    Args:
        data_dir: Folder of routing data.
        split_seed: Seed of the first of `repeats` random splits, by task, into four fifths to
            learn from and one fifth to score on; the following seeds make the others.
        encoders: Kinds, ids or specs. Their structure setting is overruled by the next.
        structure_weights: Each encoder is measured with each; 0 is without structure features.
        out_json: Where to write the result as well; None is nowhere.
        repeats: Number of splits.
        timed_queries: Queries drawn for the timing.
        progress: Told what is being measured.

    Returns:
        JSON-able data: ``folder``, ``queries``, ``llms``, ``splits``, ``best_single`` and
        ``oracle`` (mean scores), ``rows`` (one an encoder and weight, with ``timing`` and
        ``quality``), ``cosine`` (pairs of encoders of one model, mean and least over the
        queries) and ``neighbours_shared`` (every pair: mean share of the 10 nearest neighbours
        in common).

    Raises:
        SchemaError: where the data is not routing data.
        RegistryError: where an encoder is unknown.
        WeightsError: where a model cannot be had.
    """
    data = read_routing_data(data_dir, "train")
    options: dict[str, Any] = {
        "structure_weights": structure_weights,
        "repeats": repeats,
        "timed_queries": timed_queries,
        "progress": progress,
    }
    result = {"folder": Path(data_dir).name, **compare(data, split_seed, encoders, **options)}
    if out_json is not None:
        Path(out_json).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def compare(
    data: RoutingData,
    split_seed: int,
    encoders: Sequence[str | EncoderSpec],
    *,
    structure_weights: Sequence[float],
    repeats: int,
    timed_queries: int,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Compare encoders on routing data in memory; see `run`."""
    splits = [_split(data, split_seed + repeat) for repeat in range(repeats)]
    specs = [EncoderSpec.of(item) if isinstance(item, str) else item for item in encoders]
    bases = [spec.model_copy(update={"structure": False, "cache_mb": 0.0}) for spec in specs]
    form = structure_features(data.queries)
    rows, vectors = [], {}
    for base in bases:
        progress(f"{base.id}: embedding {len(data)} queries")
        vectors[base.id] = make_encoder(base).encode(data.queries)
        for weight in structure_weights:
            full = base.model_copy(
                update={"structure": weight > 0, "structure_weight": weight or 0.5}
            )
            progress(f"{full.id}: timing and neighbours")
            joined = join(vectors[base.id], form, weight) if weight else vectors[base.id]
            rows.append(
                {
                    "encoder": full.id,
                    "kind": base.kind,
                    "dimension": joined.shape[1],
                    "structure_weight": weight,
                    "timing": asdict(_time(make_encoder(full), data.queries, timed_queries)),
                    "quality": asdict(_quality(joined, data.quality, splits)),
                }
            )
    best = [_best_single(data.quality, learn)[score] for learn, score in splits]
    return {
        "queries": len(data),
        "llms": len(data.llms),
        "splits": {"first_seed": split_seed, "repeats": repeats, "validation": _VALIDATION},
        "best_single": float(np.mean([np.nanmean(scores) for scores in best])),
        "oracle": float(np.mean([np.nanmax(data.quality[s], axis=1).mean() for _, s in splits])),
        "rows": rows,
        "cosine": _cosines(dict(zip(bases, vectors.values(), strict=True))),
        "neighbours_shared": _shared(vectors),
    }


def _split(data: RoutingData, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split by task; queries whose letters are the same fall on one side."""
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


def _time(encoder: Encoder, queries: Sequence[str], count: int) -> Timing:
    """Time an encoder on queries drawn with a fixed seed, after one warm-up."""
    drawn = np.random.default_rng(0).permutation(len(queries))[:count]
    texts = [queries[position] for position in drawn]
    encoder.encode(texts[:2])
    single = [_milliseconds(encoder, [text]) for text in texts]
    batched = {
        size: sum(_milliseconds(encoder, texts[i : i + size]) for i in range(0, len(texts), size))
        for size in (16, 64)
    }
    return Timing(
        p50_ms=float(np.median(single)),
        p99_ms=float(np.quantile(single, 0.99)),
        batch16_ms=batched[16] / len(texts),
        batch64_ms=batched[64] / len(texts),
    )


def _milliseconds(encoder: Encoder, texts: Sequence[str]) -> float:
    start = time.perf_counter()
    encoder.encode(texts)
    return (time.perf_counter() - start) * 1e3


def _quality(
    vectors: NDArray[np.float32],
    scores: Floats,
    splits: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]],
) -> Quality:
    means, gains, chosen = [], [], []
    for seed, (learn, score) in enumerate(splits):
        neighbours = _choose(vectors[learn], scores[learn], seed)
        earned = _earned(vectors[learn], scores[learn], vectors[score], scores[score])
        best = _best_single(scores, learn)[score]
        means.append(float(np.nanmean(earned[neighbours])))
        gains.append(float(np.nanmean(earned[neighbours] - best)))
        chosen.append(neighbours)
    return Quality(
        mean=float(np.mean(means)),
        standard_error=_standard_error(means),
        gain=float(np.mean(gains)),
        gain_standard_error=_standard_error(gains),
        neighbours=tuple(chosen),
    )


def _standard_error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def _choose(vectors: NDArray[np.float32], scores: Floats, seed: int) -> int:
    """Return the k that earns most in cross-validation inside the training part."""
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
    """Return, for each k, the score of the LLM whose mean over the k neighbours is highest.

    Unmeasured scores are left out of the means; an LLM that no neighbour measured counts with
    its mean over all that are known.
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
    """Return positions in `known` of the nearest rows by cosine, shape (n_asked, count)."""
    similarity = asked @ known.T
    top = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
    inner = np.argsort(-np.take_along_axis(similarity, top, axis=1), axis=1, kind="stable")
    return np.take_along_axis(top, inner, axis=1)


def _best_single(scores: Floats, learn: NDArray[np.intp]) -> Floats:
    return scores[:, int(np.nanmean(scores[learn], axis=0).argmax())]


def _cosines(vectors: dict[EncoderSpec, NDArray[np.float32]]) -> list[dict[str, Any]]:
    """Compare encoders of one model in one space: the rest have no common axes."""
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
    """Say for each pair how many of a query's nearest neighbours are the same in both."""
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


def render(result: dict[str, Any], console: Any) -> None:
    """Print a result of `run` as tables.

    Args:
        result: What `run` returned.
        console: A ``rich.console.Console``.
    """
    from rich.table import Table

    table = Table(
        title=f"{result['folder']}: {result['queries']} queries, {result['llms']} LLMs; "
        f"best single {result['best_single']:.4f}, oracle {result['oracle']:.4f}"
    )
    table.add_column("encoder", no_wrap=True)
    for head in ("d", "p50 ms", "p99 ms", "x16", "x64", "kNN score", "gain"):
        table.add_column(head, justify="right", no_wrap=True)
    labels = {row["encoder"]: _label(row["encoder"]) for row in result["rows"]}
    for row in result["rows"]:
        timing, quality = row["timing"], row["quality"]
        table.add_row(
            labels[row["encoder"]],
            str(row["dimension"]),
            *(f"{timing[key]:.3g}" for key in ("p50_ms", "p99_ms", "batch16_ms", "batch64_ms")),
            f"{quality['mean']:.4f}±{quality['standard_error']:.4f}",
            f"{quality['gain']:+.4f}±{quality['gain_standard_error']:.4f}",
        )
    console.print(table)
    for item in result["cosine"]:
        console.print(
            f"cosine {' and '.join(map(_label, item['pair']))}: "
            f"mean {item['mean']:.5f}, least {item['least']:.5f}"
        )
    for item in result["neighbours_shared"]:
        pair = " and ".join(map(_label, item["pair"]))
        console.print(f"nearest 10 in common, {pair}: {item['share']:.2f}")
    for encoder, label in labels.items():
        console.print(f"{label}: {encoder}", soft_wrap=True)


def _label(encoder: str) -> str:
    spec = EncoderSpec.of(encoder)
    return f"{spec.kind}+structure" if spec.structure else str(spec.kind)
