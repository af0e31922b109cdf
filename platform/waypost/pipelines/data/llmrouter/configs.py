"""Find LLMRouter's files, and map its router configs to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from waypost.config import read_yaml
from waypost.contracts.errors import ConfigError, Fault, RegistryError, names
from waypost.contracts.tables import SPLITS
from waypost.registry import find_router, router_class

_SPLIT_WORDS = {"train": "train", "valid": "validation", "dev": "validation", "test": "test"}
_CONFIG_KEYS = ("data_path", "hparam", "model_path")


@dataclass(frozen=True)
class Source:
    """LLMRouter's files.

    Attributes:
        routing: Routing JSONL by split; ``train`` is required.
        llms: LLM JSON.
        vectors: Query embeddings, or None.
        configs: Router configs.
        ignored: Other files.
    """

    routing: dict[str, Path]
    llms: Path
    vectors: Path | None = None
    configs: tuple[Path, ...] = ()
    ignored: tuple[Path, ...] = ()


def find_files(source: str | Path) -> Source:
    """Find the files of a folder by their names, or the files that a config names.

    Raises:
        ConfigError: Files are missing or ambiguous.
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
        # LLMRouter resolves relative paths from its own root, above the config.
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
    """Return the split named by a routing file's name; train without one."""
    for word, split in _SPLIT_WORDS.items():
        if re.search(rf"(^|[^a-z]){word}", name):
            return split
    return "train"


def leaves(data: Any, prefix: str = "") -> dict[str, Any]:
    """Return the values of a config by dotted key; lists are values."""
    if not isinstance(data, dict):
        return {prefix: data}
    found: dict[str, Any] = {}
    for key, value in data.items():
        found |= leaves(value, f"{prefix}.{key}" if prefix else str(key))
    return found


_NAMES = {"dcrouter": "routerdc", "automix_config": "automix", "routerdc_nq": "routerdc"}

_PARAMETERS: Mapping[str, Mapping[str, str]] = {
    "knnrouter": {"n_neighbors": "k", "weights": "weights"},
    # Not C: ours weighs the mean loss, so its value is independent of the number of rows.
    "svmrouter": {"kernel": "kernel", "gamma": "gamma"},
    "mlprouter": {
        "lr": "learning_rate",
        "learning_rate_init": "learning_rate",
        "epochs": "epochs",
        "batch_size": "batch_size",
        "alpha": "weight_decay",
    },
    "mfrouter": {
        "latent_dim": "width",
        "lr": "learning_rate",
        "batch_size": "batch_size",
    },
    "routerdc": {
        "training_steps": "steps",
        "batch_size": "batch_size",
        "learning_rate": "learning_rate",
        "temperature": "temperature",
        "top_k": "positives",
        "last_k": "negatives",
        "n_clusters": "clusters",
        "H": "cluster_negatives",
        "cluster_loss_weight": "cluster_weight",
        "source_max_token_len": "max_tokens",
        "device": "device",
    },
    "graphrouter": {
        "hidden_dim": "hidden",
        "learning_rate": "learning_rate",
        "weight_decay": "weight_decay",
        "train_epoch": "epochs",
        "train_mask_rate": "visible",  # despite its name it is the visible share
    },
    "causallm_router": {
        "lora_r": "rank",
        "lora_alpha": "alpha",
        "max_length": "max_tokens",
        "num_epochs": "epochs",
        "batch_size": "batch_size",
        "learning_rate": "learning_rate",
    },
    "hybrid_llm": {"router_mode": "label"},
    "automix": {"num_samples": "verdicts", "routing_method": "family"},
}
"""By router: last part of LLMRouter's key -> our parameter of the same meaning."""

_VALUES = {
    ("weights", "distance"): "softmax",
    ("routing_method", "Threshold"): "threshold",
    ("routing_method", "DoubleThreshold"): "double_threshold",
    ("routing_method", "SelfConsistency"): "self_consistency",
    ("routing_method", "POMDP"): "pomdp",
}
_SKIPPED = ("data_path.", "model_path.ini_model_path", "model_path.save_model_path")


@dataclass(frozen=True)
class MappedConfig:
    """Result of mapping a config.

    Attributes:
        path: LLMRouter's file.
        router: Registry name; None where no router here matches.
        train: Keys of a `TrainConfig`.
        unmapped: Keys without a counterpart, in the file's order, without paths.
    """

    path: Path
    router: str | None
    train: dict[str, Any] = field(default_factory=dict)
    unmapped: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        """Name of the file for `waypost train --config`."""
        return f"train-{self.router}.yaml"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON-able form."""
        return {
            "file": str(self.path),
            "router": self.router,
            "parameters": self.train.get("parameters", {}),
            "unmapped": list(self.unmapped),
        }


def map_config(path: Path) -> MappedConfig:
    """Map a config; values that our parameter does not allow are unmapped.

    Raises:
        ConfigError: The file is not YAML.
    """
    data = read_yaml(path)
    found = {
        key: value
        for key, value in leaves(data).items()
        if not key.startswith(_SKIPPED) and not key.endswith("load_model_path")
    }
    router = _router(path, data)
    if router is None:
        return MappedConfig(path, None, unmapped=tuple(found))
    known = getattr(router_class(router), "parameter_constraints", {})
    train: dict[str, Any] = {"router": router}
    parameters: dict[str, Any] = {}
    unmapped: list[str] = []
    for key, value in found.items():
        last = key.rsplit(".", 1)[-1]
        ours = _PARAMETERS.get(router, {}).get(last)
        wanted = _VALUES.get((last, value), value) if isinstance(value, str) else value
        if last == "seed" and isinstance(value, int) and value >= 0:
            train["seed"] = value
        elif last == "hidden_layer_sizes" and (layers := _layers(value, known)):
            parameters |= layers
        elif ours is not None and ours in known and known[ours].allows(wanted):
            parameters[ours] = wanted
        else:
            unmapped.append(key)
    if parameters:
        train["parameters"] = parameters
    return MappedConfig(path, router, train, tuple(unmapped))


def _layers(value: Any, known: Mapping[str, Any]) -> dict[str, int]:
    """Return ``hidden`` and ``layers``; empty unless all layers have one width, as ours do."""
    if not isinstance(value, list) or len({str(width) for width in value}) != 1:
        return {}
    found = {"hidden": value[0], "layers": len(value)}
    if len(value) == 1 and "layers" not in known:
        del found["layers"]
    is_allowed = all(key in known and known[key].allows(one) for key, one in found.items())
    return found if is_allowed else {}


def _router(path: Path, data: Mapping[str, Any]) -> str | None:
    """Return the router of a config, by its file name or the path of its saved model."""
    saved = data.get("model_path")
    saved = saved.get("save_model_path") if isinstance(saved, dict) else None
    candidates = [path.stem, *(Path(saved).parts if isinstance(saved, str) else ())]
    for candidate in candidates:
        name = _NAMES.get(candidate, candidate)
        try:
            find_router(name)
        except RegistryError:
            continue
        return name
    return None


def write_config(path: Path, config: MappedConfig) -> None:
    """Write the YAML, with unmapped keys as comments at the top."""
    lines = [f"# From LLMRouter's {config.path.name}."]
    if config.unmapped:
        lines.append("# Without a counterpart here:")
        lines += [f"#   {key}" for key in config.unmapped]
    text = yaml.safe_dump(config.train, sort_keys=False)
    path.write_text("\n".join(lines) + "\n" + text, encoding="utf-8")
