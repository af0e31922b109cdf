"""Read summary and family of a router from its source, without running it."""

from __future__ import annotations

import ast
import importlib.util
from functools import lru_cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import NamedTuple

from waypost.config import read_yaml
from waypost.contracts.errors import ConfigError

ROUTER = "router.py"
BENCHMARK_YAML, BENCHMARK_PY = "benchmark.yaml", "benchmark.py"
"""Files that make a folder a plug-in: a router, a benchmark, or both."""

CONFIG = "config.yaml"
"""Optional file of a plug-in folder: defaults of the router's parameters."""

SINGLE_ROUND, MULTI_ROUND = "single-round", "multi-round"


class Found(NamedTuple):
    """Facts read from a router's source.

    Attributes:
        summary: First line of the docstring.
        family: See `waypost.contracts.records.RouterFamily`.
        error: The fault of the source; None where there is none.
    """

    summary: str = ""
    family: str = SINGLE_ROUND
    error: str | None = None


def read_module(module: str) -> Found:
    """Read a module's source. For a module without one, only check that its package exists."""
    if (path := module_file(module)) is not None:
        return read_source(path)
    top = module.partition(".")[0]
    return Found(error=None if _spec(top) else f"no module named {top!r} is installed")


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
    found = read_source(folder / ROUTER)
    if found.error is None and (folder / CONFIG).exists():
        try:
            read_yaml(folder / CONFIG)
        except ConfigError as wrong:
            return found._replace(error=str(wrong))
    return found


def is_benchmark(folder: Path) -> bool:
    """Return whether a plug-in folder holds a benchmark."""
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
        return Found(error=f"{path} does not exist")
    except OSError as error:
        return Found(error=f"{path} cannot be read: {error}")
    return _read_once(path, now.st_mtime_ns, now.st_size)


@lru_cache(maxsize=512)  # a router is looked up for every fold of a fit
def _read_once(path: Path, _changed_ns: int, _size: int) -> Found:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        return Found(error=f"{path}, line {error.lineno}: {error.msg}")
    except (OSError, ValueError, RecursionError) as error:
        return Found(error=f"{path} cannot be read: {error}")
    return Found((ast.get_docstring(tree) or "").partition("\n")[0], _family(tree))


def _family(tree: ast.Module) -> str:
    """Return the family that a class names; else that of the base it is derived from."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for node in (part for one in classes for part in one.body):
        if isinstance(node, ast.AnnAssign | ast.Assign) and isinstance(node.value, ast.Constant):
            targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
            if any(isinstance(one, ast.Name) and one.id == "router_family" for one in targets):
                return str(node.value.value)
    bases = [ast.unparse(base) for one in classes for base in one.bases]
    return MULTI_ROUND if any(base.endswith("StepRouter") for base in bases) else SINGLE_ROUND
