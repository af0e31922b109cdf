"""Import the class of a router's entry. The only module that runs the code of plug-ins."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from waypost.contracts.errors import MissingExtraError, PluginError, RegistryError, names
from waypost.registry.entries import RouterEntry, find_router
from waypost.registry.sources import ROUTER

if TYPE_CHECKING:  # the router contract loads numpy, which a listing does not need
    from waypost.contracts.router import MetaRouter


def router_class(name: str, plugin_paths: Sequence[Path] | None = None) -> type[MetaRouter]:
    """Import one router.

    Raises:
        RegistryError: no router has that name; the message lists the known names.
        PluginError: the plug-in of that name does not load.
        MissingExtraError: it needs a package that is not installed.
    """
    return load_class(find_router(name, plugin_paths))


def artifact_commands(name: str) -> str:
    """Return the commands that write artifacts of a router, for messages.

    Args:
        name: Name of a router; another text gives the command of routers in general.
    """
    general = "`waypost train`"
    try:
        return getattr(router_class(name), "artifact_commands", general)
    except (RegistryError, PluginError, MissingExtraError):
        return general


def load_class(entry: RouterEntry) -> type[MetaRouter]:
    """Import the router of an entry; raises as `router_class`.

    Output of the imported code goes to stderr, because a command may write JSON to stdout.
    """
    try:
        with redirect_stdout(sys.stderr):
            return _imported(entry)
    except (PluginError, MissingExtraError):
        raise
    # Mostly third-party code: any exception becomes a PluginError that names the plug-in.
    except (Exception, SystemExit) as error:
        problem = f"{type(error).__name__}: {error}{_line_of(error, entry)}"
        raise PluginError(f"{entry} does not load: {problem}") from error


def _imported(entry: RouterEntry) -> type[MetaRouter]:
    if entry.source == "folder":
        return _single_router(load_plugin_module(Path(entry.location)), entry)
    module_name, _, attribute = entry.location.partition(":")
    loaded: Any = importlib.import_module(module_name.strip())
    for part in filter(None, attribute.strip().split(".")):
        loaded = getattr(loaded, part)
    is_module = inspect.ismodule(loaded)
    return _single_router(loaded, entry) if is_module else _checked(loaded, entry)


class _FreshSourceLoader(SourceFileLoader):
    """Compiles the source each time; never reads or writes bytecode in a plug-in folder.

    The code that runs is thus the code whose digest an artifact holds.
    """

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def load_plugin_module(folder: Path, file: str = ROUTER) -> ModuleType:
    """Import a file of a plug-in folder, ``router.py`` by default, under a unique module name.

    Raises:
        PluginError: there is no such file.
    """
    path = folder / file
    if not path.is_file():
        raise PluginError(f"plug-in {folder.name}: {path} does not exist")
    module_name = f"waypost_plugin_{folder.name}"
    if file != ROUTER:
        module_name += f"_{path.stem}"
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


def _line_of(error: BaseException, entry: RouterEntry) -> str:
    """Return a text that names the line of the plug-in's own file in the traceback."""
    source = str(Path(entry.location) / "router.py")
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == source]
    return f" (router.py, line {lines[-1]})" if lines else ""


def _single_router(module: ModuleType, entry: RouterEntry) -> type[MetaRouter]:
    from waypost.contracts.router import MetaRouter

    own = [
        cls
        for cls in dict.fromkeys(filter(inspect.isclass, vars(module).values()))
        if cls.__module__ == module.__name__ and not cls.__name__.startswith("_")
    ]
    routers = [cls for cls in own if issubclass(cls, MetaRouter)]
    ready = [cls for cls in routers if not inspect.isabstract(cls)] or routers
    if len(ready) == 1:
        return _checked(ready[0], entry)
    found = names([cls.__name__ for cls in ready]) or "none"
    if own and not ready:
        found += f" ({names([cls.__name__ for cls in own])} is not derived from it)"
    raise PluginError(
        f"{entry}: expected exactly one router class, a subclass of waypost.MetaRouter; "
        f"found {found}"
    )


def _checked(cls: Any, entry: RouterEntry) -> type[MetaRouter]:
    from waypost.contracts.router import MetaRouter

    if not inspect.isclass(cls) or not issubclass(cls, MetaRouter):
        what = getattr(cls, "__name__", type(cls).__name__)
        raise PluginError(f"{entry}: {what} is not a subclass of waypost.MetaRouter")
    if inspect.isabstract(cls):
        missing = names(sorted(cls.__abstractmethods__))
        raise PluginError(f"{entry}: {cls.__name__} does not define {missing}")
    # Not an inherited name: artifacts find the router by it.
    own = vars(cls).get("name")
    if own == entry.name:
        return cls
    if own is None:
        cls.name = entry.name
        return cls
    # The class may have another name in its own package. It is not ours, so a subclass is named.
    return type(cls.__name__, (cls,), {"name": entry.name, "__module__": cls.__module__})
