"""Pretrained models that routers fine-tune: read once a process, known by their digest."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any, Literal

from waypost import weights
from waypost.contracts.errors import (
    EncoderMismatchError,
    MissingExtraError,
    WeightsError,
    names,
)

Kind = Literal["encoder", "causal"]

LOCK = RLock()
"""Held while a model is read or built: requests of several threads may be the first."""

_loaded: dict[tuple[str, str, str], Base] = {}


@dataclass(frozen=True, eq=False)
class Base:
    """A pretrained model in float32, never changed: who trains works on a `copy`.

    Attributes:
        name: Hub name or folder.
        folder: Where its files are.
        model: The transformers model, in evaluation mode, its parameters frozen.
        device: torch device it is on.
        digest: sha256 of its parameters and its tokenizer.
    """

    name: str
    folder: Path
    model: Any
    device: str
    digest: str

    def copy(self) -> Any:
        """Return a model of modules of its own that share this one's frozen parameters."""
        shared = {id(value): value for value in self.model.parameters()}
        return copy.deepcopy(self.model, shared)


def load_base(name: str, kind: Kind, device: str, digest: str | None = None) -> Base:
    """Read a pretrained model, or return the one read before.

    Args:
        name: Hub name or folder; see `waypost.weights.resolve`.
        kind: ``encoder`` (hidden states) or ``causal`` (next-token logits).
        device: ``cpu``, ``cuda``, or ``auto`` (cuda where there is one).
        digest: Of the model that a router was trained on.

    Raises:
        MissingExtraError: without torch or transformers.
        WeightsError: it cannot be had, or its folder cannot be read.
        EncoderMismatchError: it has another digest.
    """
    torch, transformers = _libraries()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = weights.resolve(name)
    with LOCK:
        key = (str(folder), kind, device)
        if key not in _loaded:
            auto = (
                transformers.AutoModel if kind == "encoder" else transformers.AutoModelForCausalLM
            )
            _loaded[key] = _read(name, folder, auto, device)
        base = _loaded[key]
    if digest is not None and base.digest != digest:
        raise EncoderMismatchError(
            f"{name}: {folder} holds other weights than the router was trained on (digest "
            f"{base.digest[:12]}, expected {digest[:12]}); get those weights, or train again"
        )
    return base


def _libraries() -> tuple[Any, Any]:
    for module in ("torch", "transformers"):
        try:
            __import__(module)
        except ImportError:
            raise MissingExtraError(module, "train") from None
    import torch
    import transformers

    return torch, transformers


def _read(name: str, folder: Path, auto: Any, device: str) -> Base:
    import torch

    try:
        model, info = auto.from_pretrained(folder, local_files_only=True, output_loading_info=True)
        model = model.to(device, torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise WeightsError(f"{name}: {folder} does not load on {device}: {error}") from error
    model.eval().requires_grad_(False)
    missing = set(info["missing_keys"])  # made at random, such as a pooler that nobody uses
    if unread := sorted(key for key in missing if not key.startswith("pooler.")):
        raise WeightsError(f"{name}: {folder} lacks parameters of the model: {names(unread)}")
    sha = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        if key not in missing:
            sha.update(key.encode())
            sha.update(value.cpu().contiguous().numpy().data)
    for file in ("tokenizer.json", "tokenizer.model"):
        if (folder / file).is_file():
            sha.update((folder / file).read_bytes())
    return Base(name, folder, model, device, sha.hexdigest())
