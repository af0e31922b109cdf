"""Finds routers: built-in ones, those of other distributions, and plug-in folders.

Listing reads names and first docstring lines only and imports no router, so that
``waypost list-routers`` stays quick and one broken plug-in never hides the rest.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, Literal

from waypost.config import read_yaml, settings
from waypost.contracts.errors import (
    ConfigError,
    MissingExtraError,
    PluginError,
    RegistryError,
    names,
)

if TYPE_CHECKING:  # the router contract loads numpy, which a listing does not need
    from waypost.contracts.router import MetaRouter

BUILTIN_NAMESPACE = "waypost_routers"
ENTRY_POINT_GROUP = "waypost.routers"


@dataclass(frozen=True)
class RouterEntry:
    """One router that can be had.

    Attributes:
        name: Registry name.
        source: Where it comes from.
        location: Module, ``module:attribute`` of an entry point, or folder.
        summary: First line of its docstring; empty where that needs an import.
        error: Why it cannot be used, where that is known without loading it.
    """

    name: str
    source: Literal["built-in", "entry point", "folder"]
    location: str
    summary: str = ""
    error: str | None = None


def list_routers(plugin_paths: Sequence[Path] | None = None) -> list[RouterEntry]:
    """Return every router by name; built-in names cannot be taken by plug-ins.

    Args:
        plugin_paths: Folders that hold plug-in folders; default: those of the settings.
    """
    paths = settings().plugin_paths if plugin_paths is None else plugin_paths
    found: dict[str, RouterEntry] = {}
    shadowed: list[RouterEntry] = []
    for entry in (*_builtin(), *_entry_points(), *_folders(paths)):
        first = found.setdefault(entry.name, entry)
        if first is not entry and first.location != entry.location:
            problem = f"the name is taken by the {first.source} router at {first.location}"
            shadowed.append(
                RouterEntry(entry.name, entry.source, entry.location, entry.summary, problem)
            )
    return sorted((*found.values(), *shadowed), key=lambda entry: (entry.name, entry.source))


def router_class(name: str, plugin_paths: Sequence[Path] | None = None) -> type[MetaRouter]:
    """Import one router.

    Raises:
        RegistryError: no router has that name; the message lists those there are.
        PluginError: the plug-in of that name does not load.
        MissingExtraError: it needs a package that is not installed.
    """
    entry = find_router(name, plugin_paths)
    if entry.source == "built-in":
        return _single_router(importlib.import_module(entry.location), entry)
    try:
        if entry.source == "entry point":
            module_name, _, attribute = entry.location.partition(":")
            loaded: Any = importlib.import_module(module_name)
            for part in filter(None, attribute.split(".")):
                loaded = getattr(loaded, part)
            return (
                _checked(loaded, entry)
                if inspect.isclass(loaded)
                else _single_router(loaded, entry)
            )
        return _single_router(load_plugin_module(Path(entry.location)), entry)
    except (PluginError, MissingExtraError):
        raise
    # A plug-in is other people's code: whatever it raises is its fault alone, and is named.
    except Exception as error:
        raise PluginError(
            f"plug-in {name} ({entry.location}) does not load: {type(error).__name__}: {error}"
        ) from error


def find_router(name: str, plugin_paths: Sequence[Path] | None = None) -> RouterEntry:
    """Return the entry of a router.

    Raises:
        RegistryError: no router has that name.
        PluginError: only a broken plug-in has it.
    """
    entries = list_routers(plugin_paths)
    usable = {entry.name: entry for entry in entries if entry.error is None}
    if name in usable:
        return usable[name]
    for entry in entries:
        if entry.name == name:
            raise PluginError(f"plug-in {name}: {entry.error}")
    raise RegistryError(f"no router is named {name!r}; there are: {names(list(usable), limit=40)}")


def make_router(
    name: str, params: Mapping[str, Any] | None = None, plugin_paths: Sequence[Path] | None = None
) -> MetaRouter:
    """Build an untrained router.

    Raises:
        RegistryError, PluginError, MissingExtraError: as `router_class`.
        ConfigError: naming every unknown parameter and every value out of range.
    """
    entry = find_router(name, plugin_paths)
    cls = router_class(name, plugin_paths)
    given = {**_folder_defaults(entry), **(params or {})}
    check = getattr(cls, "check_params", None)
    if check is not None:
        check(given)
    try:
        return cls(**given)
    except TypeError as error:
        raise ConfigError(f"{name}: {error}") from None


class _FreshSourceLoader(SourceFileLoader):
    """Compiles the source each time: no bytecode is read from, or left in, a plug-in folder.

    So the code that runs is the code whose digest an artifact holds.
    """

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def load_plugin_module(folder: Path) -> ModuleType:
    """Import ``router.py`` of a plug-in folder under a name of its own.

    Raises:
        PluginError: there is no ``router.py``.
    """
    path = folder / "router.py"
    if not path.is_file():
        raise PluginError(f"plug-in {folder.name}: {path} does not exist")
    module_name = f"waypost_plugin_{folder.name}"
    loader = _FreshSourceLoader(module_name, str(path))
    spec = importlib.util.spec_from_file_location(module_name, path, loader=loader)
    if spec is None or spec.loader is None:
        raise PluginError(f"plug-in {folder.name}: {path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _builtin() -> list[RouterEntry]:
    spec = importlib.util.find_spec(BUILTIN_NAMESPACE)
    if spec is None or spec.submodule_search_locations is None:
        return []
    found = []
    for module in pkgutil.iter_modules(spec.submodule_search_locations):
        if module.name.startswith("_"):
            continue
        path = Path(module.module_finder.path) / f"{module.name}.py"  # type: ignore[union-attr]
        location = f"{BUILTIN_NAMESPACE}.{module.name}"
        found.append(RouterEntry(module.name, "built-in", location, _summary(path)))
    return found


def _entry_points() -> list[RouterEntry]:
    return [
        RouterEntry(point.name, "entry point", point.value)
        for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    ]


def _folders(paths: Sequence[Path]) -> list[RouterEntry]:
    found = []
    for parent in paths:
        if not parent.is_dir():
            continue
        for folder in sorted(parent.iterdir()):
            if folder.is_dir() and not folder.name.startswith((".", "_")):
                source = folder / "router.py"
                summary, error = _summary_or_error(source)
                found.append(
                    RouterEntry(folder.name, "folder", str(folder.resolve()), summary, error)
                )
    return found


def _folder_defaults(entry: RouterEntry) -> dict[str, Any]:
    config = Path(entry.location) / "config.yaml"
    return read_yaml(config) if entry.source == "folder" and config.is_file() else {}


def _summary(path: Path) -> str:
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return (doc or "").partition("\n")[0]


def _summary_or_error(path: Path) -> tuple[str, str | None]:
    try:
        return _summary(path), None
    except FileNotFoundError:
        return "", f"{path} does not exist"
    except SyntaxError as error:
        return "", f"{path}, line {error.lineno}: {error.msg}"
    except (OSError, ValueError) as error:
        return "", f"{path} cannot be read: {error}"


def _single_router(module: ModuleType, entry: RouterEntry) -> type[MetaRouter]:
    from waypost.contracts.router import MetaRouter

    classes = [
        cls
        for cls in vars(module).values()
        if inspect.isclass(cls)
        and issubclass(cls, MetaRouter)
        and cls.__module__ == module.__name__
        and not inspect.isabstract(cls)
    ]
    if len(classes) != 1:
        found = ", ".join(cls.__name__ for cls in classes) or "none"
        raise PluginError(
            f"{entry.name} ({entry.location}): expected exactly one router class, found {found}"
        )
    return _checked(classes[0], entry)


def _checked(cls: type[Any], entry: RouterEntry) -> type[MetaRouter]:
    from waypost.contracts.router import MetaRouter

    if not issubclass(cls, MetaRouter):
        raise PluginError(f"{entry.name} ({entry.location}): {cls.__name__} is not a MetaRouter")
    # Its own name, not an inherited one: artifacts find the router again by it.
    if vars(cls).get("name") != entry.name:
        cls.name = entry.name
    return cls
