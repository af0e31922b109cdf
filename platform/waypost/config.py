"""Strict YAML configs as pydantic models, `key=value` overrides, and environment variables.

Only this module reads the environment. Every loader reports all faults of a file at once, each with
its file and key.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from waypost.contracts.errors import ConfigError, Fault, RegistryError
from waypost.contracts.wording import faults, kind


class StrictModel(BaseModel):
    """Base of every config model. Unknown keys are faults; instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


ModelT = TypeVar("ModelT", bound=BaseModel)
T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """Settings from environment variables, read once.

    Attributes:
        root: Folder that relative paths of a config resolve against (``WAYPOST_ROOT``, else
            the working directory).
        cache: Folder of converted weights and distilled encoders (``WAYPOST_CACHE``, else
            ``$XDG_CACHE_HOME/waypost``, else ``~/.cache/waypost``).
        shipped: Folder of the same form as ``cache`` that is searched first and only read, such as
            one in an image (``WAYPOST_SHIPPED``); None where there is none.
        offline: Whether downloads are refused (``WAYPOST_OFFLINE`` or ``HF_HUB_OFFLINE`` set to 1).
        plugin_paths: Folders searched for plug-ins, nearest first: ``./custom_routers``,
            ``~/.waypost/plugins``, then those of ``WAYPOST_PLUGINS`` (colon-separated).
        pool: The local pool to serve, ``small`` or ``full`` (``WAYPOST_POOL``).
        environments: Interpreters of other environments by name (``WAYPOST_ENV_<NAME>``, name
            in lower case with ``-`` for ``_``).
    """

    root: Path
    cache: Path
    shipped: Path | None
    offline: bool
    plugin_paths: tuple[Path, ...]
    pool: str
    environments: Mapping[str, Path]

    @property
    def named_plugin_paths(self) -> tuple[Path, ...]:
        """Plug-in folders of ``WAYPOST_PLUGINS``; the user expects these to exist."""
        return self.plugin_paths[2:]

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from ``env`` (default: this process's environment)."""
        env = os.environ if env is None else env
        home = Path(env.get("HOME") or Path.home())
        cache_home = Path(env.get("XDG_CACHE_HOME") or home / ".cache")
        extra = [Path(part) for part in env.get("WAYPOST_PLUGINS", "").split(":") if part]
        prefix = "WAYPOST_ENV_"
        return cls(
            root=Path(env.get("WAYPOST_ROOT") or Path.cwd()).resolve(),
            cache=Path(env.get("WAYPOST_CACHE") or cache_home / "waypost"),
            shipped=Path(env["WAYPOST_SHIPPED"]) if env.get("WAYPOST_SHIPPED") else None,
            offline=any(_is_set(env.get(name)) for name in ("WAYPOST_OFFLINE", "HF_HUB_OFFLINE")),
            plugin_paths=(
                Path.cwd() / "custom_routers",
                home / ".waypost" / "plugins",
                *extra,
            ),
            pool=env.get("WAYPOST_POOL") or "small",
            environments={
                name.removeprefix(prefix).lower().replace("_", "-"): Path(value)
                for name, value in env.items()
                if name.startswith(prefix) and value
            },
        )


PATIENT_THREADS = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
"""Environment variables that make waiting OpenMP threads sleep. By default they spin, which makes
generation several times slower on shared cores (DECISIONS.md, 9). OpenMP reads the variables when
torch is loaded, so set them earlier."""


def set_default_environment(values: Mapping[str, str]) -> None:
    """Set variables of this process that the user has not set."""
    for name, value in values.items():
        os.environ.setdefault(name, value)


def _is_set(value: str | None) -> bool:
    return (value or "").lower() in {"1", "true", "yes", "on"}


def environment_value(name: str) -> str | None:
    """Return one environment variable, or None if it is unset or empty."""
    return os.environ.get(name) or None


@cache
def settings() -> Settings:
    """Return this process's settings (read once; tests call ``settings.cache_clear()``)."""
    return Settings.from_env()


def resolve_path(path: str | Path, root: Path | None = None) -> Path:
    """Return an absolute path: ``path`` itself, or relative to ``root`` (default WAYPOST_ROOT)."""
    candidate = Path(path).expanduser()
    return candidate if candidate.is_absolute() else (root or settings().root) / candidate


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice (YAML would silently keep the last)."""


def _construct_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is given twice", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML mapping.

    Raises:
        ConfigError: The file is missing, is not YAML, has a key twice, or is not a mapping. The
            message has line and column.
    """
    path = Path(path)
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506
    except FileNotFoundError:
        raise ConfigError([Fault(str(path), "no such file")]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Fault(str(path), f"cannot be read: {error}")]) from None
    except yaml.YAMLError as error:
        raise ConfigError([Fault(str(path), f"is not valid YAML: {error}")]) from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError([Fault(str(path), f"expected keys and values, found {kind(data)}")])
    return data


def parse(model: type[ModelT], data: Any, where: str = "config") -> ModelT:
    """Validate data against a model.

    Args:
        model: The pydantic model.
        data: Plain data, as read from YAML or JSON.
        where: File (and key) of the data, for messages.

    Raises:
        ConfigError: With one fault for each invalid key.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError(faults(error, where, model)) from None


def collecting(found: list[Fault], where: str, call: Callable[[], T]) -> T | None:
    """Return the result of a call, or None after noting its faults, so that others are found too.

    Args:
        found: The list that faults are added to.
        where: Place of a fault that names none: a router or an encoder that is not found.
        call: The call; it may raise a ConfigError or a RegistryError.
    """
    try:
        return call()
    except ConfigError as error:
        found.extend(error.faults)
    except RegistryError as error:
        found.append(Fault(where, str(error)))
    return None


def load_config(model: type[ModelT], path: str | Path, overrides: Sequence[str] = ()) -> ModelT:
    """Read a YAML file into a model, after applying ``key=value`` overrides.

    Raises:
        ConfigError: With all faults of file and overrides.
    """
    return parse(model, apply_overrides(read_yaml(path), overrides), str(path))


def apply_overrides(data: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return ``data`` with dotted ``key=value`` settings applied; values are YAML scalars.

    Raises:
        ConfigError: With every override that has no ``=``, has a parent key that is not a
            mapping, or has a value that is not YAML.
    """
    result: dict[str, Any] = _copy(data)
    wrong: list[Fault] = []
    for item in overrides:
        key, sign, text = item.partition("=")
        if not sign or not key:
            wrong.append(Fault(f"option {item!r}", "expected key=value"))
            continue
        *parents, leaf = key.split(".")
        node: Any = result
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                wrong.append(Fault(f"option {item!r}", f"{parent} is {kind(node)}, not a mapping"))
                break
        else:
            try:
                node[leaf] = yaml.safe_load(text)
            except yaml.YAMLError:
                wrong.append(Fault(f"option {item!r}", "the value is not valid YAML"))
    if wrong:
        raise ConfigError(wrong)
    return result


def _copy(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: _copy(value) for key, value in data.items()}
    return [_copy(value) for value in data] if isinstance(data, list) else data
