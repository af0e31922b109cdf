"""List and find routers by name.

Listing reads names and first docstring lines only and imports no router, so that
``waypost list-routers`` is fast and a broken plug-in does not hide the others.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from waypost.config import settings
from waypost.contracts.errors import PluginError, RegistryError, names
from waypost.contracts.wording import did_you_mean
from waypost.registry.sources import (
    ROUTER,
    SINGLE_ROUND,
    is_benchmark,
    module_file,
    read_folder,
    read_module,
)

BUILTIN_NAMESPACE = "waypost_routers"
ENTRY_POINT_GROUP = "waypost.routers"

PLATFORM_ROUTERS: Mapping[str, str] = {
    "agreementrouter": "waypost.tune.consensus.agreement",
    "auto": "waypost.tune.auto.router",
    "consensusrouter": "waypost.tune.consensus.router",
    "router_r1": "waypost_rl.router",
}
"""Built-in routers outside of `BUILTIN_NAMESPACE`: name -> module. ``auto`` composes others."""


@dataclass(frozen=True)
class RouterEntry:
    """One available router.

    Attributes:
        name: Registry name.
        source: Kind of its origin.
        location: Module, ``module:attribute`` of an entry point, or folder.
        summary: First line of its docstring; empty where that needs an import.
        family: See `waypost.contracts.records.RouterFamily`; read from the source.
        error: Why it cannot be used, where that is known without loading it.
        distribution: Name and version of the package of an entry point.
    """

    name: str
    source: Literal["built-in", "entry point", "folder"]
    location: str
    summary: str = ""
    family: str = SINGLE_ROUND
    error: str | None = None
    distribution: tuple[str, str] | None = None

    def __str__(self) -> str:
        kind = "router" if self.source == "built-in" else "plug-in"
        return f"{kind} {self.name} ({self.location})"


_searched: ContextVar[tuple[Path, ...] | None] = ContextVar("plugin_paths", default=None)


@contextmanager
def searching(plugin_paths: Sequence[Path]) -> Iterator[None]:
    """Search these folders for plug-ins, instead of those of the settings.

    The members of a composed router are thus found beside its own source.
    """
    token = _searched.set(tuple(plugin_paths))
    try:
        yield
    finally:
        _searched.reset(token)


def searched_paths() -> tuple[Path, ...] | None:
    """Return the folders set by `searching`, or None where those of the settings are used."""
    return _searched.get()


def list_routers(plugin_paths: Sequence[Path] | None = None) -> list[RouterEntry]:
    """Return every router by name; built-in names cannot be taken by plug-ins.

    Args:
        plugin_paths: Folders that hold plug-in folders; default: those of `searching`, else of
            the settings.
    """
    paths = plugin_paths if plugin_paths is not None else searched_paths()
    found: dict[str, RouterEntry] = {}
    shadowed: list[RouterEntry] = []
    plugins = _folders(settings().plugin_paths if paths is None else paths)
    if paths is None:
        plugins += [
            RouterEntry(path.name, "folder", str(path), error="WAYPOST_PLUGINS: no such folder")
            for path in settings().named_plugin_paths
            if not path.is_dir()
        ]
    builtin = [_builtin(name, module) for name, module in _builtin_modules().items()]
    for entry in (*builtin, *_entry_points(), *plugins):
        first = found.setdefault(entry.name, entry)
        if first is not entry and first.location != entry.location:
            problem = f"the name is taken by the {first.source} router at {first.location}"
            shadowed.append(replace(entry, error=problem))
    return sorted((*found.values(), *shadowed), key=lambda entry: (entry.name, entry.source))


def find_router(name: str, plugin_paths: Sequence[Path] | None = None) -> RouterEntry:
    """Return the entry of a router.

    Raises:
        RegistryError: no router has that name; the message lists the known names.
        PluginError: only a broken plug-in has that name.
    """
    # No plug-in can take a built-in name, so packages and folders are not searched for it. The
    # search takes milliseconds, and every fold of a fit looks up a router.
    if (module := _builtin_modules().get(name)) and (own := _builtin(name, module)).error is None:
        return own
    entries = list_routers(plugin_paths)
    usable = {entry.name: entry for entry in entries if entry.error is None}
    if name in usable:
        return usable[name]
    for entry in entries:
        if entry.name == name:
            raise PluginError(f"{entry}: {entry.error}")
    near, there = did_you_mean(name, usable), names(list(usable), limit=40)
    raise RegistryError(f"no router is named {name!r}{near}; there are: {there}")


def _builtin_modules() -> dict[str, str]:
    spec = importlib.util.find_spec(BUILTIN_NAMESPACE)
    places = None if spec is None else spec.submodule_search_locations
    listed = [] if places is None else [module.name for module in pkgutil.iter_modules(places)]
    modules = {name: f"{BUILTIN_NAMESPACE}.{name}" for name in listed if not name.startswith("_")}
    return modules | {n: module for n, module in PLATFORM_ROUTERS.items() if module_file(module)}


def _builtin(name: str, module: str) -> RouterEntry:
    return RouterEntry(name, "built-in", module, *read_module(module))


def _entry_points() -> list[RouterEntry]:
    found = []
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        said = read_module(point.value.partition(":")[0].strip())
        dist = None if point.dist is None else (point.dist.name, point.dist.version)
        found.append(RouterEntry(point.name, "entry point", point.value, *said, dist))
    return found


def _folders(paths: Sequence[Path]) -> list[RouterEntry]:
    found = []
    for parent in paths:
        try:
            folders = sorted(parent.iterdir()) if parent.is_dir() else []
        except OSError as failure:
            problem = f"the folder cannot be read: {failure.strerror}"
            found.append(RouterEntry(parent.name, "folder", str(parent), error=problem))
            continue
        if parent / ROUTER in folders:
            problem = "is a plug-in itself: WAYPOST_PLUGINS names the folder that holds it"
            found.append(RouterEntry(parent.name, "folder", str(parent), error=problem))
            continue
        for folder in folders:
            if folder.is_dir() and not folder.name.startswith((".", "_")):
                if is_benchmark(folder) and not (folder / ROUTER).exists():
                    continue
                said = read_folder(folder)
                found.append(RouterEntry(folder.name, "folder", str(folder.resolve()), *said))
    return found
