"""Pack the source of plug-ins into an artifact, and compare it with the plug-ins found here."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from waypost.contracts.artifact import PLUGIN, Manifest
from waypost.contracts.errors import RegistryError, names
from waypost.registry.entries import find_router

_LEFT_OUT = ("__pycache__", "*.pyc", ".*", "test_*.py")


def pack_plugin(source: Path, target: Path) -> None:
    """Copy a plug-in folder without hidden files, compiled files and tests."""
    for name in _files(source):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def foreign_plugins(manifest: Manifest) -> list[str]:
    """Return the packed plug-ins without an equal plug-in folder (name and source) here.

    The code of the others can run here without the artifact, too.
    """
    return [name for name in manifest.plugins if not _is_found_here(name, manifest)]


def why_foreign(foreign: Sequence[str]) -> str:
    """Say in which way plug-ins are foreign: not here at all, or with another source."""
    absent = [name for name in foreign if not _is_known(name)]
    others = [name for name in foreign if name not in absent]
    said = []
    if absent:
        said.append(f"{names(absent)}, which is not on this machine")
    if others:
        said.append(f"{names(others)}, which differs from the code on this machine")
    return ", and ".join(said)


def _is_known(name: str) -> bool:
    try:
        return find_router(name).source == "folder"
    except RegistryError:
        return False


def _is_found_here(name: str, manifest: Manifest) -> bool:
    try:
        entry = find_router(name)
    except RegistryError:
        return False
    if entry.source != "folder":
        return False
    start = f"{PLUGIN}/{name}/"
    packed = {
        file.removeprefix(start): sha256
        for file, sha256 in manifest.files.items()
        if file.startswith(start)
    }
    source = Path(entry.location)
    try:
        here = {file: _sha256(source / file) for file in _files(source)}
    except OSError:
        return False
    return packed == here


def _files(folder: Path) -> Iterator[str]:
    """Yield the relative paths of the files that belong to a plug-in."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not _left_out(name))
        for name in sorted(files):
            if not _left_out(name):
                yield (Path(parent) / name).relative_to(folder).as_posix()


def _left_out(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _LEFT_OUT)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
