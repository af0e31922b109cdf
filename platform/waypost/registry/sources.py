"""What the source of a router says of itself, read without running any of it."""

from __future__ import annotations

import ast
import importlib.util
from functools import lru_cache
from importlib.machinery import ModuleSpec
from pathlib import Path

from waypost.config import read_yaml
from waypost.contracts.errors import ConfigError

ROUTER = "router.py"
BENCHMARK_YAML, BENCHMARK_PY = "benchmark.yaml", "benchmark.py"
"""Files that make a folder a plug-in: a router, a benchmark, or both."""

CONFIG = "config.yaml"
"""Optional file of a plug-in folder: defaults of the router's parameters."""

Found = tuple[str, str | None]
"""The first line of the docstring, and what is wrong with the source; None is nothing."""


def read_module(module: str) -> Found:
    """Read a module's source; a module that has none is imported to know more."""
    if (path := module_file(module)) is not None:
        return read_source(path)
    top = module.partition(".")[0]
    return "", None if _spec(top) else f"no module named {top!r} is installed"


def module_file(module: str) -> Path | None:
    """Return a module's source file without importing it or its package; None if there is none."""
    top, _, rest = module.partition(".")
    spec = _spec(top)
    if spec is None:
        return None
    if rest:
        inside = "/".join(rest.split("."))
        bases = [Path(base) / inside for base in spec.submodule_search_locations or ()]
        files = [file for base in bases for file in (base.with_suffix(".py"), base / "__init__.py")]
    else:
        files = [Path(spec.origin)] if spec.origin else []
    return next((file for file in files if file.suffix == ".py" and file.is_file()), None)


def read_folder(folder: Path) -> Found:
    """Read the source of a plug-in folder and its config file."""
    summary, error = read_source(folder / ROUTER)
    if error is None and (folder / CONFIG).exists():
        try:
            read_yaml(folder / CONFIG)
        except ConfigError as wrong:
            return summary, str(wrong)
    return summary, error


def is_benchmark(folder: Path) -> bool:
    """Say whether a plug-in folder holds a benchmark."""
    return any((folder / name).is_file() for name in (BENCHMARK_YAML, BENCHMARK_PY))


def _spec(module: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(module)
    except (ImportError, ValueError):  # ValueError: a loaded module without a spec
        return None


def read_source(path: Path) -> Found:
    """Read a Python file; one that is missing is an error."""
    try:
        now = path.stat()
    except FileNotFoundError:
        return "", f"{path} does not exist"
    except OSError as error:
        return "", f"{path} cannot be read: {error}"
    return _read_once(path, now.st_mtime_ns, now.st_size)


@lru_cache(maxsize=512)  # a router is looked up each time one is made: for every fold of a fit
def _read_once(path: Path, _changed_ns: int, _size: int) -> Found:
    try:
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    except SyntaxError as error:
        return "", f"{path}, line {error.lineno}: {error.msg}"
    except (OSError, ValueError, RecursionError) as error:
        return "", f"{path} cannot be read: {error}"
    return (doc or "").partition("\n")[0], None
