"""Read bodies and ``x-waypost-*`` headers strictly, with limits on size and number.

A body of a few megabytes can hold millions of values. Parsing and checking a million values would
block every other request for seconds, because neither can be interrupted.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from waypost.contracts.session import MODES, MOST_TOP_K
from waypost.contracts.wording import did_you_mean, expectation, keys, models_at
from waypost.serve.gateway.errors import Problem
from waypost.serve.gateway.schemas import UNSUPPORTED, Body, Extras

MAX_VALUES = 50_000
"""Most values of a body: members of arrays and objects at all depths."""

MAX_MEMBERS = 2_048
"""Most members of one object."""

MAX_INTEGER = 2**63
MAX_FLOAT = sys.float_info.max


def check_count(raw: bytes) -> None:
    """Refuse a body of too many values before it is parsed.

    The characters that can begin a value are counted in the whole body. Only where there are too
    many (a long text may have many commas) are they counted again outside of strings.

    Raises:
        Problem: 400.
    """
    if _begun(raw) < MAX_VALUES:
        return
    bare = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    # each string is a value or the name of one, between two quotation marks
    if bare.count(b'"') > 4 * MAX_VALUES or _begun(b"".join(bare.split(b'"')[::2])) >= MAX_VALUES:
        raise Problem(
            400, f"the body: expected fewer than {MAX_VALUES} values", code="too_many_values"
        )


def _begun(raw: bytes) -> int:
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{")


def check_values(data: dict[str, Any]) -> None:
    """Refuse infinity (1e999), integers beyond 64 bits and objects of too many members, anywhere.

    Free-form fields are passed to other services. JSON has no infinity, and no limit on integers.

    Raises:
        Problem: 400, naming the place.
    """
    waiting: list[Any] = [data]
    while waiting:
        value = waiting.pop()
        kind = type(value)  # parsed JSON has no subclasses, and this runs for every value
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


MAX_FAULTS = 5
MAX_NAME = 256
MAX_NAMES = 256
_NUMBER = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_BRANCHES = frozenset({"str", "constrained-str", "literal", "dict", "none"})
"""Names that pydantic adds to the path of a fault for a branch of a union."""

BodyT = TypeVar("BodyT", bound=Body)


def read_body(
    model: type[BodyT], raw: bytes, unknown_fields: str = "refuse"
) -> tuple[BodyT, dict[str, Any], dict[str, Any]]:
    """Read a JSON body.

    Args:
        model: What it is to be.
        raw: Its bytes.
        unknown_fields: Whether to ``refuse`` fields that the model lacks; else they are set apart.

    Returns the validated model, the same as plain data, and the fields set apart.

    Raises:
        Problem: 400, naming each wrong field and what was expected.
    """
    check_count(raw)
    try:
        data = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise Problem(400, f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(data, dict):
        raise Problem(400, "the body: expected a JSON object", code="invalid_type")
    check_values(data)
    unknown: dict[str, Any] = {}
    if unknown_fields != "refuse":
        known = frozenset(keys(model))
        unknown = {name: data.pop(name) for name in tuple(data) if name not in known}
    try:
        parsed = model.model_validate(data)
    except ValidationError as error:
        raise _wrong_fields(error, model) from None
    return parsed, data, unknown


def _wrong_fields(error: ValidationError, model: type[Body]) -> Problem:
    messages: dict[str, list[str]] = {}
    codes: dict[str, str] = {}
    deeper: set[str] = set()
    for item in error.errors(include_url=False, include_input=False):
        unknown = item["loc"][-1:] if item["type"] == "extra_forbidden" else ()
        known = item["loc"][: len(item["loc"]) - len(unknown)]
        path = [*(part for part in known if not _is_branch(part)), *unknown]
        names = [""]
        for part in path:
            names.append(names[-1] + (f"[{part}]" if isinstance(part, int) else f".{part}"[:129]))
        name = names[-1]
        message = _expected(item, str(path[0]) if path else "", model)
        codes.setdefault(name, item["type"])
        if message not in messages.setdefault(name, []):
            messages[name].append(message)
        deeper.update(names[:-1])
    # pydantic reports every branch of a union; the deepest faults are the most helpful
    told = {name: found for name, found in messages.items() if name not in deeper}
    shown = [
        f"{name[1:129]}: {' or '.join(found)}" if name else found[0]
        for name, found in list(told.items())[:MAX_FAULTS]
    ]
    more = f" (and {len(told) - MAX_FAULTS} more)" if len(told) > MAX_FAULTS else ""
    first = next(iter(told))
    return Problem(400, "; ".join(shown) + more, param=first[1:129] or None, code=codes[first])


def _expected(item: Mapping[str, Any], field: str, model: type[Body]) -> str:
    """Return what was expected, without the value found: it may be a user's text."""
    kind, loc = item["type"], item["loc"]
    if kind == "extra_forbidden":
        return _unknown(loc, model)
    if field in UNSUPPORTED:
        return UNSUPPORTED[field]
    told = expectation(item)
    is_bound = kind.startswith(("greater_than", "less_than"))
    return told.replace("expected ", "expected a number of ", 1) if is_bound else told


def _unknown(loc: Sequence[int | str], model: type[Body]) -> str:
    name = loc[-1] if len(str(loc[-1])) <= MAX_NAME else ""  # comparing a long one takes long
    known = [key for inner in models_at(model, loc[:-1]) for key in keys(inner)]
    near = did_you_mean(name, known)
    if len(loc) == 1:  # also where a field is near: top_k is not a misspelt top_p
        extra = "fields of an engine that OpenAI's API lacks belong under waypost.extra"
        return f"unknown field{near}; {extra}"
    return f"unknown field{near or '; there are ' + ', '.join(known)}"


def _is_branch(part: int | str) -> bool:
    return isinstance(part, str) and (part in _BRANCHES or "[" in part or "(" in part)


def read_extras(body: Extras | None, headers: Mapping[str, str]) -> Extras:
    """Join the body's extras with the ``x-waypost-*`` headers; the body wins.

    Raises:
        Problem: 400, naming the header that is wrong.
    """
    given = {
        field: read(header, headers[header])
        for field, (header, read) in _HEADERS.items()
        if header in headers
    }
    if not given:
        return body or Extras()
    if body is not None:
        given |= body.model_dump(by_alias=True, exclude_none=True)
    return Extras.model_validate(given)


def _number(header: str, text: str) -> float:
    text = text.strip()
    value = float(text) if len(text) <= 64 and _NUMBER.fullmatch(text) else math.inf
    if value == math.inf:
        raise _wrong_header(header, "expected a number of at least 0")
    return value


def _name(header: str, text: str) -> str | None:
    text = text.strip()
    if len(text) > MAX_NAME:
        raise _wrong_header(header, f"expected at most {MAX_NAME} characters")
    return text or None


def _names(header: str, text: str) -> list[str]:
    # split stops at one name too many; the last part may then hold commas
    listed = [name.strip() for name in text.split(",", 2 * MAX_NAMES) if name.strip()]
    # an empty list of allowed models is a mistake and must not mean all models
    wrong = any("," in name or len(name) > MAX_NAME for name in listed)
    if wrong or not 1 <= len(listed) <= MAX_NAMES:
        expected = f"expected 1 to {MAX_NAMES} names with commas between them"
        raise _wrong_header(header, f"{expected}, of at most {MAX_NAME} characters each")
    return listed


def _mode(header: str, text: str) -> str:
    text = text.strip()
    if text not in MODES:
        raise _wrong_header(header, f"expected {', '.join(MODES[:-1])} or {MODES[-1]}")
    return text


def _top_k(header: str, text: str) -> int:
    text = text.strip()
    value = int(text) if len(text) <= 4 and text.isascii() and text.isdecimal() else 0
    if not 1 <= value <= MOST_TOP_K:
        raise _wrong_header(header, f"expected a whole number from 1 to {MOST_TOP_K}")
    return value


def _wrong_header(header: str, expected: str) -> Problem:
    return Problem(400, f"header {header}: {expected}", param=header, code="invalid_header")


_HEADERS: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "lambda": ("x-waypost-lambda", _number),
    "max_cost_usd": ("x-waypost-max-cost-usd", _number),
    "allowed_models": ("x-waypost-allowed-models", _names),
    "user_id": ("x-waypost-user-id", _name),
    "session_id": ("x-waypost-session-id", _name),
    "route_on": ("x-waypost-route-on", _mode),
    "top_k": ("x-waypost-top-k", _top_k),
    "session_token": ("x-waypost-session-token", lambda header, text: text),
}
