"""Checks of this machine before Ray starts: artifacts, pool names and keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from waypost.config import resolve_path
from waypost.contracts.artifact import MANIFEST
from waypost.contracts.errors import ArtifactFormatError, ConfigError, MissingExtraError
from waypost.engines import engine_class
from waypost.registry import artifact_commands
from waypost.secrets import key_ring
from waypost.serve.changes import change_plan
from waypost.serve.config import ServeArgs, UserConfig
from waypost.serve.config_file import ServeConfig, user_config
from waypost.serve.faults import OWN_LLMS
from waypost.serve.gateway.access import client_keys
from waypost.serve.plan import Plan, make_plan, served_entries
from waypost.serve.prices import library_prices
from waypost.serve.replicas import NodeArgs
from waypost.storage import place

KEY_VARIABLES = frozenset({"API_KEYS", "WAYPOST_API_KEYS_FILE"})


def plans_of(config: ServeConfig) -> dict[str, Plan]:
    """Resolve every application in this process, so that a fault is a plain message.

    Raises:
        ConfigError, ArtifactError: see `make_plan`, `change_plan` and `client_keys`.
    """
    plans = {}
    for name, args in config.args.items():
        application = config.application(name)
        if args.api_keys and not _gives_keys(application, args.gateway):
            client_keys()
        plans[name] = plan_of(args, str(config.path))
        if (changes := user_config(application)) is not None:
            change_plan(plans[name], changes)
    return plans


def plan_of(args: ServeArgs, where: str) -> Plan:
    """Resolve the arguments of a graph; a missing artifact is told with what writes it.

    Raises:
        ConfigError, ArtifactError: see `make_plan`.
        MissingExtraError: the file has a chat page, and its extra is not installed.
    """
    for folder, router in _named(args).items():
        if _is_absent(folder):
            raise ArtifactFormatError(
                f"{resolve_path(folder)}: no {MANIFEST}; expected a folder written by "
                f"{artifact_commands(router)}. {OWN_LLMS}"
            )
    if (missing := _missing_for_chat(args)) is not None:
        raise missing
    return make_plan(args, where)


def _missing_for_chat(args: ServeArgs) -> MissingExtraError | None:
    wanted = args.chat is not None and find_spec("gradio") is None
    return MissingExtraError("gradio", "chat") if wanted else None


def examine(config: ServeConfig) -> list[str]:
    """Check as `plans_of` does, but return what may be otherwise on the machine that will serve.

    Returns:
        A line for each artifact that is not trained yet or lies in a store, which is not read, for
        each key or environment that this machine lacks, and for each price of the price library.

    Raises:
        ConfigError, ArtifactError: the file is wrong, or this machine's keys cannot be read.
    """
    remarks = []
    for name, args in config.args.items():
        application = config.application(name)
        changes = user_config(application)
        where = str(config.path)
        remarks += remarks_on(args, changes, where, application, f"{name}/")
    return remarks


def remarks_on(
    args: ServeArgs,
    changes: UserConfig | None,
    where: str,
    application: Mapping[str, Any] | None = None,
    prefix: str = "",
) -> list[str]:
    """Check one graph; see `examine`.

    Args:
        args: Its arguments.
        changes: Its user_config.
        where: The file, for messages.
        application: Its entry in the file, whose ``runtime_env`` may give keys.
        prefix: What names of LLMs are told with.
    """
    application = application or {}
    named = {**_named(args), **({} if changes is None else _named(changes))}
    absent = {folder: router for folder, router in named.items() if _is_absent(folder)}
    stored = [str(at) for at in map(place, named) if not isinstance(at, Path)]
    remarks = [
        f"{folder} does not exist yet: {artifact_commands(router)} writes it"
        for folder, router in absent.items()
    ]
    remarks += [f"{uri} is not read, so the pool is not compared with it" for uri in stored]
    if not absent and not stored:
        remarks += _unusable_and_priced(args, changes, where)
    if args.api_keys and not _gives_keys(application, args.gateway):
        try:
            client_keys()
        except ConfigError as error:
            remarks.append(str(error))
    if (missing := _missing_for_chat(args)) is not None:
        remarks.append(f"chat: {missing}")
    return [*remarks, *_missing_keys(application, prefix, args)]


def _named(args: ServeArgs | UserConfig) -> dict[str, str]:
    """Return the artifacts, and the name of each one's router as far as the file tells it."""
    if args.artifact:
        return {args.artifact: args.artifact.rstrip("/").rpartition("/")[2]}
    return {folder: name for name, folder in args.routers.items()}


def _is_absent(folder: str) -> bool:
    where = place(folder)
    return isinstance(where, Path) and not (resolve_path(where) / MANIFEST).is_file()


def _unusable_and_priced(args: ServeArgs, changes: UserConfig | None, where: str) -> list[str]:
    try:
        plan = make_plan(args, where)
    except ConfigError as error:
        if all(fault.where.endswith(".environment") for fault in error.faults):
            return [str(fault) for fault in error.faults]
        raise
    if changes is not None:
        change_plan(plan, changes)
    unusable = [model.unavailable for model in plan.models if model.unavailable]
    return [*unusable, *library_prices(plan.models)]


def _missing_keys(application: Mapping[str, Any], prefix: str, args: ServeArgs) -> Iterator[str]:
    for entry in served_entries(args):
        service = entry.config.get("service") if engine_class(entry.engine).sends_keys else None
        node: NodeArgs = args.gateway if entry.placement == "inline" else entry
        if service is None or _gives_keys(application, node) or key_ring().count(str(service)):
            continue
        problem = f"no key for the service {service!r}; set it in API_KEYS"
        yield f"{prefix}{entry.name} would not serve here: {problem}"


def _gives_keys(application: Mapping[str, Any], node: NodeArgs) -> bool:
    """Return whether the replicas of a node get keys from the file, not from this environment."""
    of_application = (application.get("runtime_env") or {}).get("env_vars") or {}
    of_node = node.ray_actor_options.runtime_env.get("env_vars") or {}
    return bool(KEY_VARIABLES & {*of_application, *of_node})
