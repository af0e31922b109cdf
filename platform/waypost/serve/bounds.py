"""How many values a JSON body may hold, and how large: a few megabytes can hold millions.

Reading and checking a million of them would hold up every other request for seconds, because
neither can be interrupted.
"""

from __future__ import annotations

import sys
from typing import Any

from waypost.serve.problems import Problem

MAX_VALUES = 50_000
"""Most values of a body: members of arrays and objects, at every depth."""

MAX_MEMBERS = 2_048
"""Most members of one object."""

MAX_INTEGER = 2**63
MAX_FLOAT = sys.float_info.max


def check_count(raw: bytes) -> None:
    """Refuse a body of too many values before it is parsed.

    What can begin a value is counted, first in all of the body, and only where that is a lot
    (a long text may well have as many commas) outside of its strings.

    Raises:
        Problem: 400.
    """
    if _begun(raw) < MAX_VALUES:
        return
    bare = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    # each string is a value or the name of one, and is between two quotation marks
    if bare.count(b'"') > 4 * MAX_VALUES or _begun(b"".join(bare.split(b'"')[::2])) >= MAX_VALUES:
        raise Problem(
            400, f"the body: expected fewer than {MAX_VALUES} values", code="too_many_values"
        )


def _begun(raw: bytes) -> int:
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{")


def check_values(data: dict[str, Any]) -> None:
    """Refuse infinity (1e999), integers beyond 64 bits and objects of too many members, anywhere.

    Free-form fields go on to other services, and JSON has no infinity and no limit.

    Raises:
        Problem: 400, naming the place.
    """
    waiting: list[Any] = [data]
    while waiting:
        value = waiting.pop()
        kind = type(value)  # parsed JSON has no subclasses, and this is run for every value
        if kind is dict:
            if len(value) > MAX_MEMBERS:
                _refuse(data, value, f"expected at most {MAX_MEMBERS} members", "too_many_values")
            waiting.extend(value.values())
        elif kind is list:
            waiting.extend(value)
        elif kind is int and not -MAX_INTEGER <= value < MAX_INTEGER:
            _refuse(data, value, "expected an integer of at most 64 bits", "number_too_large")
        elif kind is float and not -MAX_FLOAT <= value <= MAX_FLOAT:
            _refuse(data, value, "expected a finite number", "number_too_large")


def _refuse(data: dict[str, Any], wrong: Any, expected: str, code: str) -> None:
    path = _path_to(data, wrong)
    message = f"{path}: {expected}" if path else f"the body: {expected}"
    raise Problem(400, message, param=path or None, code=code)


def _path_to(data: dict[str, Any], wrong: Any) -> str:
    """Return the dotted path of a value, cut to a length fit for a message."""
    waiting: list[tuple[str, Any]] = [("", data)]
    while waiting:
        path, value = waiting.pop()
        if value is wrong:
            return path.removeprefix(".")
        if isinstance(value, dict):
            waiting.extend((f"{path}.{key}"[:128], item) for key, item in value.items())
        elif isinstance(value, list):
            waiting.extend((f"{path}[{i}]"[:128], item) for i, item in enumerate(value))
    raise AssertionError("the value stands in the data")  # it was found there
