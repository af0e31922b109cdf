"""Copy the checkpoint of a policy into an artifact."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_OTHER_FORMATS = frozenset({
    ".bin", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".ot", ".pickle", ".pkl", ".pt", ".pth",
})  # fmt: skip


def copy_checkpoint(source: Path, target: Path) -> None:
    """Put the files of a checkpoint into a new folder: hard links where the file system has them.

    Subfolders, hidden files and weights in other formats than safetensors are left out.

    Args:
        source: Folder in Hugging Face layout, such as `waypost.weights.resolve` returns.
        target: Folder that does not exist yet.

    Raises:
        OSError: A file cannot be read or written.
    """
    target.mkdir(parents=True)
    for file in sorted(source.iterdir()):
        left_out = file.name.startswith(".") or file.suffix in _OTHER_FORMATS
        if left_out or not file.is_file():
            continue
        real = file.resolve()  # in the hub's cache a file is a link to its content
        try:
            os.link(real, target / file.name)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(real, target / file.name)
