"""API keys: read from one source, rotated per service, and redacted in all output.

The source is either the environment variable ``API_KEYS`` or the file named by
``WAYPOST_API_KEYS_FILE`` (JSON or YAML), never both. It contains

- a mapping of service to a key or a list of keys: ``{"openai": ["k1", "k2"], "nvidia": "k3"}``, or
- a list of keys, or a comma list (``k1,k2``): these serve any service.

Service names are compared without regard to case. Every key becomes a `Secret`, and `redact`
removes all of them from a text.
"""

from __future__ import annotations

import hmac
import json
import logging
import stat
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import yaml

from waypost.config import environment_value
from waypost.contracts.errors import ConfigError, Fault

logger = logging.getLogger(__name__)

ANY_SERVICE = "*"
"""Service name of keys for all services."""

HIDDEN = "[secret]"
"""Replacement for a key in a text."""

SHORTEST_REDACTED = 8
"""Minimum characters of a key that `redact` removes. Shorter keys are placeholders (``EMPTY``,
``none``), whose removal would garble other text."""

REFUSED_REST_S = 300.0
"""Seconds for which a key is skipped after the service refused it (HTTP 401, 403)."""

LIMITED_REST_S = 20.0
"""Seconds for which a key is skipped after a 429 without a waiting time."""

_known: dict[str, str] = {}  # every spelling of every key -> its replacement; entries are kept
_known_lock = threading.Lock()


class Secret:
    """An API key whose value only `reveal` returns.

    ``repr``, ``str`` and every format give ``[secret]``; JSON and pickle refuse it. Two secrets
    are equal when their values are.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value
        _remember(value)

    def reveal(self) -> str:
        """Return the key itself. Use it only for the header of a request."""
        return self._value

    def __repr__(self) -> str:
        return HIDDEN

    def __format__(self, spec: str) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a Secret does not leave its process: send the service's name instead")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self


def _remember(value: str) -> None:
    if len(value) < SHORTEST_REDACTED:
        return
    # A key may occur inside JSON, inside a URL, or in Python's own notation.
    spellings = {value, json.dumps(value)[1:-1], quote(value, safe=""), repr(value)[1:-1]}
    with _known_lock:
        _known.update((spelling, HIDDEN) for spelling in spellings)


def redact(text: str) -> str:
    """Return the text with every key that this process has read replaced by ``[secret]``."""
    with _known_lock:
        # longest first: one key may be the beginning of another
        spellings = sorted(_known, key=len, reverse=True)
    for spelling in spellings:
        if spelling in text:
            text = text.replace(spelling, HIDDEN)
    return text


class RedactingFilter(logging.Filter):
    """A filter that redacts known keys in log records: message, traceback and extra fields.

    Add it to handlers (`guard_logging`): a filter on a logger does not apply to the records of
    child loggers.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the record in place and return True."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):  # arguments that do not fit the message
            message = f"{record.msg} {record.args}"
        record.msg, record.args = redact(message), None
        if record.exc_info:
            # formatted here and then removed, so that no later formatter renders the exception
            record.exc_text = logging.Formatter().formatException(record.exc_info)
            record.exc_info = None
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
        for name, value in vars(record).items():
            if isinstance(value, str) and name not in {"msg", "exc_text"}:
                setattr(record, name, redact(value))
        return True


def guard_logging(handlers: Iterable[logging.Handler] | None = None) -> None:
    """Add a `RedactingFilter` to handlers (default: the root logger's) that have none."""
    for handler in logging.getLogger().handlers if handlers is None else handlers:
        if not any(isinstance(item, RedactingFilter) for item in handler.filters):
            handler.addFilter(RedactingFilter())


class KeyRing:
    """A rotation of the keys of each service. Thread-safe.

    A refused or rate-limited key is skipped for its back-off time. If all keys of a service are
    in back-off, `take` returns the one whose back-off ends first.

    Args:
        keys: Service -> its keys; under `ANY_SERVICE` the keys for all services.
        clock: Returns monotonic seconds; for tests.
    """

    def __init__(
        self,
        keys: Mapping[str, Iterable[str]] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys: dict[str, list[Secret]] = {}
        for service, values in (keys or {}).items():
            self._keys.setdefault(service.casefold(), []).extend(map(Secret, values))
        self._next: dict[str, int] = {}
        self._rests_until: dict[Secret, float] = {}
        self._clock = clock
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(f'{name}: {len(k)}' for name, k in self._keys.items())})"

    def add(self, service: str, key: str) -> None:
        """Add a key of a service, unless it is there."""
        with self._lock:
            keys = self._keys.setdefault(service.casefold(), [])
            if Secret(key) not in keys:
                keys.append(Secret(key))

    def services(self) -> tuple[str, ...]:
        """Return the names of the services that have keys, in small letters."""
        return tuple(self._keys)

    def count(self, service: str) -> int:
        """Return the number of keys of a service."""
        return len(self._of(service))

    def ready(self, service: str) -> int:
        """Return the number of keys of a service that are not in back-off."""
        now = self._clock()
        with self._lock:
            return sum(self._rests_until.get(key, 0.0) <= now for key in self._of(service))

    def take(self, service: str) -> Secret | None:
        """Return the next key of a service, or None if it has none."""
        keys = self._of(service)
        if not keys:
            return None
        now = self._clock()
        with self._lock:
            start = self._next.get(service.casefold(), 0)
            turns = [keys[(start + step) % len(keys)] for step in range(len(keys))]
            # min is stable: of several keys without back-off it returns the next in turn
            key = min(turns, key=lambda key: max(self._rests_until.get(key, 0.0) - now, 0.0))
            self._next[service.casefold()] = (keys.index(key) + 1) % len(keys)
            return key

    def refused(self, key: Secret) -> None:
        """Record that the service refused this key: skip it for `REFUSED_REST_S` seconds."""
        self._rest(key, REFUSED_REST_S)

    def limited(self, key: Secret, retry_after_s: float | None = None) -> None:
        """Record a rate limit: skip the key for ``retry_after_s`` or `LIMITED_REST_S` seconds."""
        self._rest(key, LIMITED_REST_S if retry_after_s is None else retry_after_s)

    def _rest(self, key: Secret, seconds: float) -> None:
        with self._lock:
            until = self._clock() + seconds
            self._rests_until[key] = max(until, self._rests_until.get(key, 0.0))

    def _of(self, service: str) -> list[Secret]:
        return self._keys.get(service.casefold()) or self._keys.get(ANY_SERVICE, [])


@cache
def key_ring() -> KeyRing:
    """Return this process's key ring, read once, so that all engines share one rotation.

    Raises:
        ConfigError: See `load_keys`.
    """
    return load_keys()


def load_keys() -> KeyRing:
    """Read the keys of this process from ``API_KEYS`` or ``WAYPOST_API_KEYS_FILE``.

    Returns an empty ring if neither is set. Logs a warning if other users may read the file.

    Raises:
        ConfigError: Both are set, the file cannot be read, or it has none of the accepted forms.
            The message has no part of the content.
    """
    text, file = environment_value("API_KEYS"), environment_value("WAYPOST_API_KEYS_FILE")
    if text and file:
        raise ConfigError(
            [Fault("API_KEYS", "WAYPOST_API_KEYS_FILE is set as well; unset one of the two")]
        )
    if text:
        return KeyRing(parse_keys(_json_or_text(text), "API_KEYS"))
    if file:
        return KeyRing(parse_keys(_read_file(Path(file).expanduser()), file))
    return KeyRing()


def _json_or_text(text: str) -> Any:
    stripped = text.strip()
    if not stripped.startswith(("{", "[")):
        return stripped
    try:
        return json.loads(stripped)
    except json.JSONDecodeError as error:
        line, column = error.lineno, error.colno
    # raised outside the handler: the decoder's error contains the whole text
    raise ConfigError([Fault("API_KEYS", f"is not valid JSON (line {line}, column {column})")])


def _read_file(path: Path) -> Any:
    problem = ""
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            logger.warning("%s holds API keys and is open to others: chmod 600 it", path)
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        problem = f"cannot be read ({type(error).__name__})"
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        problem = f"is neither JSON nor YAML{place}"
    except yaml.YAMLError:
        problem = "is neither JSON nor YAML"
    raise ConfigError([Fault(str(path), problem)])


def parse_keys(data: Any, where: str) -> dict[str, list[str]]:
    """Convert an accepted form to a mapping service -> keys.

    Args:
        data: Mapping, list or comma list, as read.
        where: Source of the data, for messages.

    Raises:
        ConfigError: With every entry that is not a key, by its position, without its value.
    """
    if not isinstance(data, dict):
        data = {ANY_SERVICE: data}
    keys: dict[str, list[str]] = {}
    wrong: list[Fault] = []
    for service, value in data.items():
        entries = value.split(",") if isinstance(value, str) else value
        place = where if service == ANY_SERVICE else f"{where}: {service}"
        if not isinstance(service, str) or not isinstance(entries, list) or not entries:
            wrong.append(Fault(place, "expected a key or a list of keys"))
            continue
        for index, entry in enumerate(entries):
            if isinstance(entry, str) and entry.strip() and entry.strip().isprintable():
                keys.setdefault(service, []).append(entry.strip())
            else:
                wrong.append(Fault(f"{place}[{index}]", "expected a key, printable text"))
    if wrong:
        raise ConfigError(wrong)
    return keys
