"""Compare tuned routers with their defaults on questions that no sweep has seen.

Each router is tuned on the training split with its file of tune_configs. Then the tuned and the
default router are evaluated on the test split. KEY=VALUE changes a key of every file. Running the
same command again continues an interrupted run.

Example: waypost bench tuned --pooled DIR --data DIR --router knnrouter budget.trials=20
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import DirectoryPath, Field, model_validator

from waypost.bench import harness
from waypost.bench.harness import Result, Table, Tell
from waypost.contracts.atomic import new_folder, write_text
from waypost.contracts.errors import ConfigError, Fault, SchemaError, WaypostError
from waypost.contracts.routing_data import read_routing_data
from waypost.pipelines.data.split import split_folder
from waypost.pipelines.evaluation.inputs import reason
from waypost.pipelines.evaluation.resplit import SHARE
from waypost.ray_session import ray_session
from waypost.report.numbers import UNKNOWN, fixed, plain, usd
from waypost.tune.config import TuneConfig, read_sweep
from waypost.tune.journal import TrialRow
from waypost.tune.sweep import SweepCallbacks, run_sweep

SAME = "default kept"
"""The sweep found no setting that is better than the default beyond the noise."""

BETTER, HIGHER = "better", "higher, within the interval"
EQUAL = "equal"
LOWER, WORSE = "lower, within the interval", "worse"
_SOURCE = "source.json"


class Options(harness.Options):
    """Options of ``waypost bench tuned``."""

    pooled: tuple[DirectoryPath, ...] = Field(
        (),
        description="Routing-data folder whose training and test questions are pooled and split "
        "again, as with evaluate --resplit. May be given many times.",
    )
    data: tuple[DirectoryPath, ...] = Field(
        (),
        description="Routing-data folder whose own test split is used. May be given many times.",
    )
    router: tuple[str, ...] = Field(
        ("knnrouter", "mlprouter", "mfrouter", "graphrouter", "auto"),
        description="May be given many times.",
    )
    configs: DirectoryPath = Field(
        Path("tune_configs"), description="Folder with ROUTER.yaml, the sweep of each."
    )
    encoder: str = Field("onnx", description="Query encoder.")
    seed: int = Field(0, ge=0, description="Seed of the splits of --pooled.")
    out: Path = Field(
        Path("runs/tuned"),
        description="Folder of the sweeps and the result; results already in it are kept.",
    )
    fresh: bool = Field(False, description="Delete earlier results in --out first.")
    overrides: tuple[str, ...] = Field(
        (),
        description="Keys to change in every file.",
        json_schema_extra={"argument": "[KEY=VALUE]..."},
    )

    @model_validator(mode="after")
    def _are_named(self) -> Options:
        if not self.pooled and not self.data:
            raise ValueError("name routing data: --pooled DIR, --data DIR, or both")
        return self


@dataclass(frozen=True)
class Source:
    """Routing data named by an option.

    Attributes:
        folder: Routing-data folder with a training and a test split.
        seed: Seed of a new split of both, as with ``waypost evaluate --resplit``; None uses the
            folder's own split.
    """

    folder: Path
    seed: int | None = None

    @property
    def name(self) -> str:
        """Name in tables and of the folder of results."""
        name = self.folder.resolve().name
        return name if self.seed is None else f"{name}-seed-{self.seed}"


def run(options: Options, tell: Tell) -> Result:
    """Tune and evaluate the routers; results already in ``out`` are kept.

    Returns:
        Figures: ``data`` (by name: questions, rows by router, failed routers with the reason) and
        ``counts``. They are also written to ``result.json`` in ``out``.

    Raises:
        ConfigError: The sweeps' files have faults (all are listed), or ``out`` has results on
            other data.
        SchemaError, WeightsError: Data or encoder cannot be loaded.
    """
    configs, out = read_configs(options), options.out
    sources = [*(Source(one, options.seed) for one in options.pooled), *map(Source, options.data)]
    check_names(sources)
    data: dict[str, Any] = {}
    with ExitStack() as stack:
        # Ray is started for the first sweep that needs it and is shared by all later ones
        begin = cache(lambda: stack.enter_context(ray_session(threads=1)))
        for source in sources:
            if options.fresh:
                shutil.rmtree(out / source.name, ignore_errors=True)
            folder = prepared(source, out)
            splits = [read_routing_data(folder, name) for name in ("train", "test")]
            found = data[source.name] = {
                "train": len(splits[0]),
                "test": len(splits[1]),
                "llms": len(splits[0].llms),
                "digests": [one.digest for one in splits],
                "rows": {},
                "failed": {},
            }
            for name, config in configs.items():
                what = f"{source.name}: {name}"
                try:
                    row = _row(config, folder, out / source.name, what, begin, tell)
                    found["rows"][name] = row
                # A router that fails, for example on unsuitable data, must not stop the others.
                except WaypostError as error:
                    found["failed"][name] = reason(error)
    rows = [row for one in data.values() for row in one["rows"].values()]
    figures = plain({"data": data, "counts": counted(rows)})
    _write_json(out / "result.json", {"options": options.model_dump(mode="json"), **figures})
    return result(figures, options)


def read_configs(options: Options) -> dict[str, TuneConfig]:
    """Read the sweeps' files.

    Raises:
        ConfigError: With all faults of all files.
    """
    overrides = [f"encoder={options.encoder}", *options.overrides]
    found: dict[str, TuneConfig] = {}
    faults: list[Fault] = []
    for name in dict.fromkeys(options.router):
        try:
            found[name] = read_sweep(options.configs / f"{name}.yaml", overrides)
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)
    return found


def _row(
    config: TuneConfig,
    folder: Path,
    place: Path,
    what: str,
    begin: Callable[[], object],
    tell: Tell,
) -> dict[str, Any]:
    """Return a router's row: the stored one if its sweep has the same config, else a new one."""
    kept, asked = place / f"{config.router}.json", plain(config.model_dump(mode="json"))
    if (row := _kept(kept, asked)) is not None:
        tell(f"{what}: there already")
        return row
    tell(f"{what}: up to {config.budget.trials} trials")
    begin()

    def tried(row: TrialRow, total: int) -> None:
        if row.deal == 0:
            tell.bar(row.number + 1, total, "trials")

    watcher = SweepCallbacks(embedded=tell.bar, row=tried, step=tell)
    report = run_sweep(config, folder, place / config.router, callbacks=watcher)
    if "quality" not in (report.get("test") or {}):
        failed = (report.get("test") or {}).get("failed") or "no test split"
        raise SchemaError(f"{config.router}: could not be tested: {failed}")
    found: dict[str, Any] = plain(row_of(report))
    _write_json(kept, {"asked": asked, "row": found})
    return found


def _kept(path: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None  # truncated when a run was killed
    return found["row"] if found["asked"] == asked else None


def _write_json(path: Path, data: Any) -> None:
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


# -- data: a copy of each folder, which also receives the embeddings ------------------------------


def check_names(sources: Sequence[Source]) -> None:
    """Check that the names of the sources are unique.

    Raises:
        ConfigError: With the names that occur more than once.
    """
    found = [one.name for one in sources]
    faults = [Fault(n, "is given twice") for n in dict.fromkeys(found) if found.count(n) > 1]
    if faults:
        raise ConfigError(faults)


def prepared(source: Source, out: Path) -> Path:
    """Return the copy of a source in the folder of results; create it if it is missing.

    Raises:
        ConfigError: The existing copy is of other data.
        SchemaError: The source is not routing data, or has no test split.
    """
    splits = [read_routing_data(source.folder, name) for name in ("train", "test")]
    digests: dict[str, Any] = {"digests": [one.digest for one in splits]}
    target, note = out / source.name / "data", out / source.name / _SOURCE
    if target.is_dir() and note.is_file():
        if json.loads(note.read_text(encoding="utf-8")) != digests:
            problem = "holds results on other data; give another --out"
            raise ConfigError([Fault(str(out / source.name), problem)])
        return target
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.seed is None:
        with new_folder(target) as folder:
            files = ("llms.json", "routing_*.parquet", "query_embeddings-*.safetensors")
            for path in (path for pattern in files for path in source.folder.glob(pattern)):
                shutil.copyfile(path, folder / path.name)
    else:
        split_folder(source.folder, target, test=SHARE, seed=source.seed, pooled=True)
    note.write_text(json.dumps(digests), encoding="utf-8")
    return target


# -- rows -----------------------------------------------------------------------------------------


def row_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of a router from its sweep's report.

    Args:
        report: Report of `run_sweep` on data with a test split.

    Returns:
        JSON-able: ``quality`` and ``cost_usd_per_1k`` (default, tuned, best single LLM) on the
        test split at lambda 0; ``difference`` (tuned less default) with ``low`` and ``high`` of
        its paired 95 % interval (all 0 if the default was kept); ``verdict``; ``trials``;
        ``seconds`` of the search; ``fit_seconds`` of all its fits; ``cross_validated`` scores
        (default, taken); the taken ``setting`` and ``why`` it was taken; ``queries``.
    """
    taken, test = report["taken"], report["test"]
    same = taken["is_default"]
    row: dict[str, Any] = {
        "queries": test["queries"],
        "trials": report["trials"]["tried"],
        "failed": report["trials"]["failed"],
        "seconds": report["seconds"],
        "fit_seconds": report["fit_seconds"],
        "cross_validated": {"default": taken["default_score"], "taken": taken["score"]},
        "setting": taken["setting"],
        "why": taken["why"],
    }
    for key in ("quality", "cost_usd_per_1k"):
        found = test[key]
        row[key] = {
            "default": found["tuned"] if same else found.get("default"),
            "tuned": found["tuned"],
            "best_single": found["best single LLM"],
        }
    for key in ("difference", "low", "high"):
        row[key] = 0.0 if same else test.get(key)
    row["verdict"] = SAME if same else verdict(row["difference"], row["low"], row["high"])
    return row


def verdict(difference: float | None, low: float | None, high: float | None) -> str | None:
    """Return the verdict on a difference and its interval; None if one of them is unknown."""
    if difference is None or low is None or high is None:
        return None
    if low > 0:
        return BETTER
    if high < 0:
        return WORSE
    if difference == 0:
        return EQUAL
    return HIGHER if difference > 0 else LOWER


def counted(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count rows: all, not worse, higher, better (beyond the interval), default kept."""
    known = [row["verdict"] for row in rows if row["verdict"] is not None]
    return {
        "rows": len(rows),
        "not_worse": sum(one != WORSE for one in known),
        "higher": sum(one in (BETTER, HIGHER) for one in known),
        "better": known.count(BETTER),
        "kept": known.count(SAME),
    }


HEADS = (
    "router", "trials", "default", "tuned", "tuned less default", "verdict", "USD per 1k: default",
    "tuned", "search s",
)  # fmt: skip


def result(figures: Mapping[str, Any], options: Options) -> Result:
    """Return the result of these figures."""
    tables, counts = [], figures["counts"]
    failed: dict[str, str] = {}
    for name, one in figures["data"].items():
        title = f"{name}: {one['train']} training and {one['test']} test questions x {one['llms']}"
        rows = [_cells(router, row) for router, row in one["rows"].items()]
        rows += [[router, *[UNKNOWN] * (len(HEADS) - 1)] for router in one["failed"]]
        tables.append(Table(f"{title} LLMs", HEADS, rows))
        failed |= {f"{name}: {router}": why for router, why in one["failed"].items()}
    split = ""
    if options.pooled:
        split = f", questions pooled and split again with seed {options.seed}"
    facts = (
        f"Of {counts['rows']} routers tuned, {counts['not_worse']} are not worse on test within "
        f"the interval; {counts['higher']} are higher, {counts['better']} of them beyond the "
        f"interval, and {counts['kept']} kept the default. Quality of the choices at lambda 0 on "
        "the test split, which no sweep has seen; differences with paired 95 % bootstrap "
        "intervals. Settings are chosen by cross-validation in the training split, and the "
        "default stays unless another is better beyond the noise: then both are one router. "
        f"Encoder {options.encoder}{split}."
    )
    return Result(tables, facts, figures=figures, failed=failed)


def _cells(router: str, row: Mapping[str, Any]) -> list[str]:
    quality, cost = row["quality"], row["cost_usd_per_1k"]
    difference = fixed(row["difference"], 4, sign=True)
    if row["difference"] == 0 and row["low"] == row["high"] == 0:
        difference = "0"
    elif row["low"] is not None and row["high"] is not None:
        low, high = (fixed(row[key], 4, sign=True) for key in ("low", "high"))
        difference += f" [{low}, {high}]"
    return [
        router,
        str(row["trials"]),
        fixed(quality["default"], 4),
        fixed(quality["tuned"], 4),
        difference,
        row["verdict"] or UNKNOWN,
        usd(cost["default"]),
        usd(cost["tuned"]),
        fixed(row["seconds"], 0),
    ]
