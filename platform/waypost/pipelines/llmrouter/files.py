"""Which file of a folder, or of a config's ``data_path``, is what."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waypost.config import read_yaml
from waypost.contracts.errors import ConfigError, Fault, names
from waypost.contracts.tables import SPLITS

_SPLIT_WORDS = {"train": "train", "valid": "validation", "dev": "validation", "test": "test"}
_CONFIG_KEYS = ("data_path", "hparam", "model_path")


@dataclass(frozen=True)
class Source:
    """LLMRouter's files.

    Attributes:
        routing: Routing JSONL by split; has ``train``.
        llms: LLM JSON.
        vectors: Query embeddings, or None.
        configs: Router configs.
        ignored: Files that are none of these.
    """

    routing: dict[str, Path]
    llms: Path
    vectors: Path | None = None
    configs: tuple[Path, ...] = ()
    ignored: tuple[Path, ...] = ()


def find_files(source: str | Path) -> Source:
    """Find the files in a folder, told by their names, or those that one config names.

    Raises:
        ConfigError: naming what is missing and what is there twice.
    """
    source = Path(source)
    return _of_folder(source) if source.is_dir() else _of_config(source)


def _of_config(path: Path) -> Source:
    data_path = read_yaml(path).get("data_path")
    if not isinstance(data_path, dict):
        raise ConfigError([Fault(f"{path}: data_path", "expected the paths of LLMRouter's files")])
    faults: list[Fault] = []

    def resolve(key: str, required: bool) -> Path | None:
        value = data_path.get(key)
        if not isinstance(value, str) or not value:
            if required:
                faults.append(Fault(f"{path}: data_path.{key}", "expected the path of a file"))
            return None
        # LLMRouter counts relative paths from its own root; the config lies somewhere below it.
        tried = [folder / value for folder in path.absolute().parents]
        found = next((one for one in tried if one.is_file()), None)
        if found is None:
            problem = "no such file, seen from the config's folder and those above"
            faults.append(Fault(f"{path}: data_path.{key}", problem))
        return found

    routing = {
        split: resolve(f"routing_data_{split}", split == "train") for split in ("train", "test")
    }
    llms = resolve("llm_data", True)
    vectors = resolve("query_embedding_data", False)
    if faults or llms is None:
        raise ConfigError(faults)
    found = {split: one for split, one in routing.items() if one is not None}
    return Source(found, llms, vectors, (path,))


def _of_folder(folder: Path) -> Source:
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and not _hidden(path, folder)
    )
    routing: dict[str, list[Path]] = {split: [] for split in SPLITS}
    llms, vectors, configs, ignored = [], [], [], []
    for path in files:
        name = path.name.lower()
        if path.suffix == ".jsonl" and "routing" in name:
            routing[_split_of(name)].append(path)
        elif path.suffix == ".json" and "llm" in name and "embedding" not in name:
            llms.append(path)
        elif path.suffix == ".pt" and "embedding" in name and "llm_" not in name:
            vectors.append(path)
        elif path.suffix in (".yaml", ".yml") and set(_CONFIG_KEYS) & set(read_yaml(path)):
            configs.append(path)
        else:
            ignored.append(path)
    faults = [
        *_one(
            folder, "routing JSONL of the training split (*routing*train*.jsonl)", routing["train"]
        ),
        *_one(folder, "LLM JSON (*llm*.json)", llms),
    ]
    several = {"query embeddings": vectors, **{s: routing[s] for s in SPLITS if s != "train"}}
    for what, found in several.items():
        faults += _one(folder, what, found) if len(found) > 1 else []
    if faults:
        raise ConfigError(faults)
    return Source(
        {split: found[0] for split, found in routing.items() if found},
        llms[0],
        vectors[0] if vectors else None,
        tuple(configs),
        tuple(ignored),
    )


def _one(folder: Path, what: str, found: list[Path]) -> list[Fault]:
    if len(found) == 1:
        return []
    if not found:
        return [Fault(str(folder), f"holds no {what}")]
    listed = names([str(path.relative_to(folder)) for path in found])
    return [
        Fault(
            str(folder),
            f"holds more than one {what}: {listed}; give LLMRouter's config that names the right "
            "ones instead of the folder",
        )
    ]


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _split_of(name: str) -> str:
    """Return the split a routing file's name tells; one that tells none is training data."""
    for word, split in _SPLIT_WORDS.items():
        if re.search(rf"(^|[^a-z]){word}", name):
            return split
    return "train"


def leaves(data: Any, prefix: str = "") -> dict[str, Any]:
    """Return a config's values by dotted key; lists are values."""
    if not isinstance(data, dict):
        return {prefix: data}
    found: dict[str, Any] = {}
    for key, value in data.items():
        found |= leaves(value, f"{prefix}.{key}" if prefix else str(key))
    return found
