"""Model folders on disk: what counts as whole, and how one appears in the cache at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waypost.contracts.atomic import replacing_folder
from waypost.contracts.errors import WeightsError

MARKER = "waypost.json"
"""Written last into a folder of the cache; says where the folder came from."""

FORMAT = 1
"""Raised when the conversion changes, so that folders of an older one are made again."""


def slug(model: str) -> str:
    """Return a file name for a model: ``a/b#c`` becomes ``a--b--c``."""
    return model.replace("/", "--").replace("#", "--")


def missing_file(folder: Path, *, onnx: bool = False) -> str | None:
    """Name what a model folder lacks to be loaded, or None where it is whole.

    Args:
        folder: The folder, in Hugging Face layout.
        onnx: Whether an ONNX export and its tokenizer are wanted, rather than safetensors.
    """
    if not folder.is_dir():
        return "the folder"
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        return "tokenizer.json"
    if onnx:
        return None if find_onnx(folder) else "an int8 ONNX file"
    if not (folder / "config.json").is_file():
        return "config.json"
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return next((name for name in sorted(shards) if not (folder / name).is_file()), None)
    return None if any(folder.glob("*.safetensors")) else "model.safetensors"


def find_onnx(folder: Path) -> Path | None:
    """Return the int8 ONNX file of a folder that suits this processor, or None.

    The hub's exports are named by instruction set; the others run anywhere.
    """
    import platform

    arm = platform.machine().lower() in {"arm64", "aarch64"}
    names = (
        "model_int8.onnx",
        "model_quantized.onnx",
        "model_qint8_arm64.onnx" if arm else "model_quint8_avx2.onnx",
    )
    candidates = (folder / parent / name for name in names for parent in ("onnx", "."))
    return next((path for path in candidates if path.is_file()), None)


def is_published(folder: Path) -> bool:
    """Say whether a folder of the cache is whole and of this version's form."""
    try:
        data = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and data.get("format") == FORMAT


@contextmanager
def publishing(folder: Path, origin: dict[str, Any]) -> Iterator[Path]:
    """Give an empty folder to fill; it takes its final name only when the block ends well.

    Call it under `locked`. Leftovers of earlier, killed attempts are removed first.

    Args:
        folder: The final name.
        origin: JSON-able facts for the marker file.
    """
    scratch = folder.parent / f".{folder.name}.partial"

    def failed(why: str) -> WeightsError:
        return WeightsError(f"{folder}: cannot be made: {why}; set WAYPOST_CACHE to another place")

    with replacing_folder(folder, failed, work=scratch) as content:
        yield content
        marker = {"format": FORMAT, **origin}
        (content / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of one cache folder across processes and threads; waits for it."""
    import fcntl

    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # released when the handle closes, or the process dies
        yield
