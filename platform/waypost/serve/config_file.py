"""Check a whole Serve config file strictly, before anything starts.

Ray itself accepts unknown keys at the top level and in ``http_options``, so that it ignores a typo
there. Here every key that is unknown to the models of the installed Ray is a fault. Waypost's own
models check the arguments of its builder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from waypost.config import parse, read_yaml
from waypost.contracts.errors import ConfigError, Fault, MissingExtraError, names
from waypost.contracts.generation import deployment_name
from waypost.contracts.wording import did_you_mean, faults, keys, models_at, unknown_key
from waypost.serve.config import ServeArgs, UserConfig
from waypost.serve.faults import engine_faults, raise_faults, twice_faults

BUILDER = "waypost.serve.app:build"
TUNABLE = frozenset({"Gateway", "Router"})
"""Deployments that take a ``user_config``."""


@dataclass(frozen=True)
class ServeConfig:
    """A checked file.

    Attributes:
        path: The file.
        data: Its content as plain data.
        args: Arguments of each application built by `BUILDER`, by application name.
    """

    path: Path
    data: dict[str, Any]
    args: Mapping[str, ServeArgs]

    @property
    def host(self) -> str:
        """The address it listens on."""
        return str(self.data["http_options"]["host"])

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.data["http_options"].get("port", 8000))

    def application(self, name: str) -> dict[str, Any]:
        """Return the entry of an application."""
        return next(a for a in self.data["applications"] if a.get("name", "default") == name)

    def url(self, application: str) -> str:
        """Return the URL of an application, without a slash at the end."""
        prefix = self.application(application).get("route_prefix", "/")
        return f"http://{self.host}:{self.port}{prefix}".rstrip("/")


def validate_serve_config(path: str | Path, port: int | None = None) -> ServeConfig:
    """Read and check a Serve config file. Its artifacts and environments are not opened.

    Args:
        path: The file.
        port: Replaces ``http_options.port``; None keeps it.

    Raises:
        ConfigError: with every fault, each with its key.
        MissingExtraError: Ray Serve is not installed.
    """
    path = Path(path)
    data = read_yaml(path)
    where = str(path)
    if port is not None and isinstance(data.get("http_options"), dict):
        data["http_options"]["port"] = port
    found = [*_schema_faults(data, where), *_host_faults(data, where)]
    args: dict[str, ServeArgs] = {}
    applications = data.get("applications")
    for index, application in enumerate(applications if isinstance(applications, list) else ()):
        place = f"{where}: applications.{index}"
        if not isinstance(application, dict) or application.get("import_path") != BUILDER:
            found.extend(_builder_faults(application, place))
            continue
        wrong, parsed = check_application(application, place)
        found.extend(wrong)
        if parsed is not None:
            args[application.get("name", "default")] = parsed
    raise_faults(found)
    return ServeConfig(path, data, args)


def _schema_faults(data: dict[str, Any], where: str) -> list[Fault]:
    try:
        from ray.serve.schema import ServeDeploySchema
    except ImportError:
        raise MissingExtraError("ray", "serve") from None
    found = list(_unknown_keys(ServeDeploySchema, data, f"{where}: "))
    try:
        ServeDeploySchema.model_validate(data)
    except ValidationError as error:
        known = {fault.where for fault in found}
        found.extend(fault for fault in faults(error, where) if fault.where not in known)
    return found


def user_config(application: dict[str, Any]) -> UserConfig | None:
    """Return the ``user_config`` of an application, which all its deployments have alike.

    Raises:
        ConfigError: with every fault of it.
    """
    for deployment in application.get("deployments") or ():
        if deployment["name"] in TUNABLE and deployment.get("user_config"):
            return parse(UserConfig, deployment["user_config"], "user_config")
    return None


def _host_faults(data: dict[str, Any], where: str) -> list[Fault]:
    options = data.get("http_options")
    if isinstance(options, dict) and isinstance(options.get("host"), str):
        return []
    problem = "missing; Ray would listen on every interface. Give 127.0.0.1, or 0.0.0.0 on purpose"
    return [Fault(f"{where}: http_options.host", problem)]


def _builder_faults(application: Any, where: str) -> Iterator[Fault]:
    """Yield a fault where an import path is one of Waypost's, but not its builder."""
    path = application.get("import_path") if isinstance(application, dict) else None
    if isinstance(path, str) and path.startswith("waypost."):
        yield Fault(f"{where}.import_path", f"expected {BUILDER} (found {path})")


def check_application(
    data: dict[str, Any], where: str, key: str = "args"
) -> tuple[list[Fault], ServeArgs | None]:
    """Return the faults of an application's arguments and deployments, and the arguments.

    Args:
        data: The entry of an application built by `BUILDER`.
        where: File and key of the entry, for messages.
        key: Key of the arguments there, for messages; "" where they are all that is there.
    """
    raw = data.get("args") or {}
    place = f"{where}.{key}" if key else where
    found: list[Fault] = []
    parsed = None
    try:
        parsed = parse(ServeArgs, raw, place)
    except ConfigError as error:
        found.extend(error.faults)
    pool = raw.get("pool") if isinstance(raw, dict) else None
    entries = pool if isinstance(pool, list) else []
    if parsed is None:  # the models look at names only where each key is right
        found.extend(twice_faults(entries, place))
    found.extend(engine_faults(entries, place))
    if parsed is not None:
        found.extend(_deployment_faults(data.get("deployments"), parsed, where))
    return found, parsed


def _deployment_faults(deployments: Any, args: ServeArgs, where: str) -> Iterator[Fault]:
    known = ["Gateway"]
    if args.router.placement == "deployment":
        known.append("Router")
    known.extend(deployment_name(e.name) for e in args.pool if e.placement == "deployment")
    for index, deployment in enumerate(deployments if isinstance(deployments, list) else ()):
        if not isinstance(deployment, dict):
            continue
        place, name = f"{where}.deployments.{index}", deployment.get("name")
        if name not in known:
            yield Fault(
                f"{place}.name",
                f"no such deployment{did_you_mean(name, known)}; there are {names(known)}",
            )
        config = deployment.get("user_config")
        if config is not None and name in known and name not in TUNABLE:
            yield Fault(f"{place}.user_config", f"{name} takes none")
        elif config is not None:
            try:
                further = parse(UserConfig, config, f"{place}.user_config").pool
            except ConfigError as error:
                yield from error.faults
            else:
                pool = [entry.model_dump() for entry in further]
                yield from engine_faults(pool, f"{place}.user_config")
        yield from _scaling_faults(deployment, place)
    yield from _unequal_configs(deployments, known, where)


def _unequal_configs(deployments: Any, known: list[str], where: str) -> Iterator[Fault]:
    """Yield a fault where gateway and router have different configs."""
    given = {
        deployment.get("name"): deployment.get("user_config") or {}
        for deployment in (deployments if isinstance(deployments, list) else ())
        if isinstance(deployment, dict)
    }
    both = [name for name in sorted(TUNABLE) if name in known]
    if any(given.get(name, {}) != given.get(both[0], {}) for name in both):
        yield Fault(f"{where}.deployments", f"{names(both)} take the same user_config")


def _scaling_faults(deployment: dict[str, Any], where: str) -> Iterator[Fault]:
    scaling = deployment.get("autoscaling_config")
    if not isinstance(scaling, dict):
        return
    target, most = scaling.get("target_ongoing_requests"), deployment.get("max_ongoing_requests")
    if isinstance(target, int | float) and isinstance(most, int) and target > most:
        yield Fault(
            f"{where}.autoscaling_config.target_ongoing_requests",
            f"is above max_ongoing_requests ({most}), so that no replica would ever be added",
        )


def _unknown_keys(model: type[BaseModel], data: Any, prefix: str) -> Iterator[Fault]:
    """Yield a fault for every key that is unknown to a model or the models inside it."""
    if not isinstance(data, dict):
        return
    known = keys(model)
    for key, value in data.items():
        if key not in known:
            yield Fault(f"{prefix}{key}", unknown_key(key, known))
            continue
        for inner in models_at(model, [key])[:1]:
            yield from _unknown_keys(inner, value, f"{prefix}{key}.")
        for inner in models_at(model, [key, 0])[:1]:
            for index, item in enumerate(value if isinstance(value, list) else ()):
                yield from _unknown_keys(inner, item, f"{prefix}{key}.{index}.")
