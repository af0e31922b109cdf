"""Model folders on disk: completeness checks, and atomic creation in the cache."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waypost.contracts.atomic import replacing_folder
from waypost.contracts.errors import WeightsError

MARKER = "waypost.json"
"""Name of the file with a cache folder's origin, which is written last."""

FORMAT = 1
"""Increased when the conversion changes, so that older folders are written again."""


def slug(model: str) -> str:
    """Return the file name of a model: ``a/b#c`` becomes ``a--b--c``."""
    return model.replace("/", "--").replace("#", "--")


def missing_file(folder: Path, *, onnx: bool = False) -> str | None:
    """Return the name of a file that a model folder lacks, or None if it is complete.

    Args:
        folder: The folder, in Hugging Face layout.
        onnx: Require an ONNX export and its tokenizer instead of safetensors.
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
    """Return the folder's int8 ONNX file that runs on this processor, or None.

    Some exports on the hub are named after an instruction set; the others run everywhere.
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
    """Return whether a folder of the cache is complete and has the current `FORMAT`."""
    try:
        data = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and data.get("format") == FORMAT


@contextmanager
def publishing(folder: Path, origin: dict[str, Any]) -> Iterator[Path]:
    """Yield an empty folder to fill; rename it to ``folder`` if the block ends without error.

    Call it under `locked`. Leftovers of earlier, killed attempts are removed first.

    Args:
        folder: The final path.
        origin: Facts for the marker file, serialisable as JSON.
    """
    scratch = folder.parent / f".{folder.name}.partial"

    def failed(why: str) -> WeightsError:
        return WeightsError(f"{folder}: cannot be written: {why}; change WAYPOST_CACHE")

    with replacing_folder(folder, failed, work=scratch) as content:
        yield content
        marker = {"format": FORMAT, **origin}
        (content / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait for the lock of a cache folder and hold it, across processes and threads."""
    import fcntl

    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # released when the handle closes or the process ends
        yield
