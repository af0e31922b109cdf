"""Routing data of the comparison: a copy of each folder that keeps embeddings."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waypost.contracts.atomic import new_folder
from waypost.contracts.errors import ConfigError, Fault
from waypost.contracts.routing_data import read_routing_data
from waypost.pipelines.data.split import split_folder
from waypost.pipelines.evaluation.resplit import SHARE

_SOURCE = "source.json"


@dataclass(frozen=True)
class Source:
    """Routing data as it was named.

    Attributes:
        folder: With a training and a test split.
        seed: Of the split of both together, as ``waypost evaluate --resplit`` makes it; None
            takes the folder's own.
    """

    folder: Path
    seed: int | None = None

    @property
    def name(self) -> str:
        """What tables and folders of results call it."""
        name = self.folder.resolve().name
        return name if self.seed is None else f"{name}-seed-{self.seed}"


def check_names(sources: list[Source]) -> None:
    """See that every source has a name of its own.

    Raises:
        ConfigError: naming those that stand twice.
    """
    found = [one.name for one in sources]
    faults = [Fault(n, "stands twice") for n in dict.fromkeys(found) if found.count(n) > 1]
    if faults:
        raise ConfigError(faults)


def prepared(source: Source, out: Path) -> Path:
    """Return the copy of a source in a folder of results, made where it is missing.

    Raises:
        ConfigError: the copy there is of other data.
        SchemaError: the source is no routing data, or has no test split.
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
