"""LLMRouter's router configs (YAML) as what ``waypost train --config`` takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from waypost.config import read_yaml
from waypost.contracts.errors import RegistryError
from waypost.pipelines.llmrouter.files import leaves
from waypost.registry import find_router, router_class

_NAMES = {"dcrouter": "routerdc", "automix_config": "automix", "routerdc_nq": "routerdc"}

_PARAMETERS: Mapping[str, Mapping[str, str]] = {
    "knnrouter": {"n_neighbors": "k", "weights": "weights"},
    # Not C: ours weighs the mean loss, so that its value does not depend on the number of rows.
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
        "train_mask_rate": "visible",  # what its name says is hidden is what it shows
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
"""Of each router: last part of LLMRouter's key -> our parameter, where the two mean the same."""

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
    """What a config became.

    Attributes:
        path: LLMRouter's file.
        router: Registry name, or None where no router here is meant.
        train: Keys of a `TrainConfig`.
        unmapped: Keys that have no counterpart, in the file's order; paths are not told.
    """

    path: Path
    router: str | None
    train: dict[str, Any] = field(default_factory=dict)
    unmapped: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        """Name of the file that `waypost train --config` takes."""
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
    """Map one config; a value that our parameter does not allow counts as unmapped.

    Raises:
        ConfigError: the file is not YAML.
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
    """Return ``hidden`` and ``layers``; ours are all of one width, so other lists map to none."""
    if not isinstance(value, list) or len({str(width) for width in value}) != 1:
        return {}
    found = {"hidden": value[0], "layers": len(value)}
    if len(value) == 1 and "layers" not in known:
        del found["layers"]
    is_allowed = all(key in known and known[key].allows(one) for key, one in found.items())
    return found if is_allowed else {}


def _router(path: Path, data: Mapping[str, Any]) -> str | None:
    """Return the router a config is for, told by its file or by where its model is saved."""
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
    """Write the YAML; what has no counterpart stands above it as a comment, by key."""
    lines = [f"# From LLMRouter's {config.path.name}."]
    if config.unmapped:
        lines.append("# Without a counterpart here:")
        lines += [f"#   {key}" for key in config.unmapped]
    text = yaml.safe_dump(config.train, sort_keys=False)
    path.write_text("\n".join(lines) + "\n" + text, encoding="utf-8")
