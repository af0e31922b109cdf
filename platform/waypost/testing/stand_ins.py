"""Small models of random weights, in place of those that a router would fine-tune."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from string import ascii_uppercase
from tempfile import TemporaryDirectory
from typing import Literal

from waypost.testing.tiny_encoder import write_tiny_encoder
from waypost.testing.tiny_model import write_tiny_model

_folders: list[TemporaryDirectory[str]] = []  # each is removed when the process ends


@cache
def stand_in(kind: Literal["encoder", "causal"]) -> str:
    """Return the folder of a model of that kind, made at its first use in a process."""
    _folders.append(TemporaryDirectory(prefix="waypost-stand-in-"))
    folder = Path(_folders[-1].name)
    if kind == "encoder":
        return str(write_tiny_encoder(folder))
    return str(write_tiny_model(folder, letters=ascii_uppercase))
