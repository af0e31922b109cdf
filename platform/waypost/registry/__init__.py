"""Find and build routers: built-in, from other distributions, and from plug-in folders."""

from waypost.registry.classes import artifact_commands, load_plugin_module, router_class
from waypost.registry.entries import (
    BUILTIN_NAMESPACE,
    ENTRY_POINT_GROUP,
    PLATFORM_ROUTERS,
    RouterEntry,
    find_router,
    list_routers,
    searching,
)
from waypost.registry.making import (
    RouterFacts,
    check_router,
    make_router,
    make_trainable,
    run_defaults,
)

__all__ = [
    "BUILTIN_NAMESPACE",
    "ENTRY_POINT_GROUP",
    "PLATFORM_ROUTERS",
    "RouterEntry",
    "RouterFacts",
    "artifact_commands",
    "check_router",
    "find_router",
    "list_routers",
    "load_plugin_module",
    "make_router",
    "make_trainable",
    "router_class",
    "run_defaults",
    "searching",
]
