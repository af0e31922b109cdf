"""The model hub and its local cache. A failure to reach the hub is remembered in the process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from waypost.config import environment_value
from waypost.contracts.errors import WeightsError
from waypost.weights.folders import missing_file

_PROBE_S = 3.0
_unreachable: list[str] = []  # holds the reason after the first failure


def cached(repo: str, *, onnx: bool) -> Path:
    """Return the snapshot of a repository in the local hub cache.

    Works without the package huggingface_hub.

    Raises:
        WeightsError: there is no complete snapshot.
    """
    folder = _cache_folder() / f"models--{repo.replace('/', '--')}"
    main = folder / "refs" / "main"
    names = [main.read_text(encoding="utf-8").strip()] if main.is_file() else []
    snapshots = folder / "snapshots"
    others = sorted(snapshots.iterdir(), reverse=True) if snapshots.is_dir() else []
    lacks = None
    for path in [*(snapshots / name for name in names), *others]:
        lacks = missing_file(path, onnx=onnx)
        if lacks is None:
            return path
    raise WeightsError(f"the snapshot lacks {lacks}" if lacks else f"not in {_cache_folder()}")


def _cache_folder() -> Path:
    if folder := environment_value("HF_HUB_CACHE"):
        return Path(folder).expanduser()
    if home := environment_value("HF_HOME"):
        return Path(home).expanduser() / "hub"
    cache = environment_value("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "huggingface" / "hub"


def download(repo: str, *, onnx: bool) -> Path:
    """Download a repository into the hub cache.

    Raises:
        WeightsError: the hub cannot be reached, refuses, or has no usable files. An unreachable
            hub takes at most a few seconds, once per process.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise WeightsError("the package huggingface_hub is not installed") from None
    if _unreachable:
        raise WeightsError(_unreachable[0])
    _probe(repo)
    wanted = ["*.json", "*.txt", "*.jinja", "*.safetensors"]
    ignored = ["onnx/*", "openvino/*"]
    if onnx:
        wanted = ["tokenizer*.json", "config.json", "onnx/*int8*.onnx", "onnx/*_quantized.onnx"]
        ignored = ["*avx512*"]
    error, path = _in_time(
        lambda: snapshot_download(
            repo, cache_dir=_cache_folder(), allow_patterns=wanted, ignore_patterns=ignored
        ),
        None,
    )
    if error is not None:
        raise WeightsError(_first_line(error))
    folder = Path(str(path))
    if lacks := missing_file(folder, onnx=onnx):
        raise WeightsError(f"the repository has no {lacks}")
    return folder


def forget() -> None:
    """Clear the remembered failure to reach the hub (for tests)."""
    _unreachable.clear()


def _probe(repo: str) -> None:
    """Request the repository's facts once, with a time-out of `_PROBE_S`.

    Raises:
        WeightsError: the repository does not exist or is closed, or the hub is not reachable.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import HfHubHTTPError

    error, _ = _in_time(lambda: HfApi().model_info(repo, timeout=_PROBE_S), _PROBE_S)
    if error is None:
        return
    if isinstance(error, HfHubHTTPError) and getattr(error, "response", None) is not None:
        raise WeightsError(_first_line(error))
    _unreachable.append(f"not reachable ({type(error).__name__}: {_first_line(error)})")
    raise WeightsError(_unreachable[0])


def _in_time(call: Callable[[], object], limit_s: float | None) -> tuple[Exception | None, object]:
    """Run a call in a daemon thread, because name resolution has no time-out."""
    result: list[object] = []
    failure: list[Exception] = []

    def run() -> None:
        try:
            result.append(call())
        except Exception as error:  # noqa: BLE001 - returned to the caller
            failure.append(error)

    thread = threading.Thread(target=run, name="hub", daemon=True)
    thread.start()
    thread.join(limit_s)
    if failure:
        return failure[0], None
    if not result:
        return TimeoutError(f"no answer in {limit_s:g} s"), None
    return None, result[0]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
