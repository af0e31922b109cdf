"""Reads bodies and ``x-waypost-*`` headers strictly: whatever is wrong is named in a 400."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from waypost.serve.bodies import UNSUPPORTED, Body, Extras
from waypost.serve.problems import Problem

MAX_FAULTS = 5
MAX_INTEGER = 2**63
_BRANCHES = frozenset({"str", "constrained-str", "literal", "dict", "none"})
"""What pydantic adds to the path of a fault for the branch of a union."""

BodyT = TypeVar("BodyT", bound=Body)


def read_body(model: type[BodyT], raw: bytes) -> tuple[BodyT, dict[str, Any]]:
    """Read a JSON body.

    Returns the checked model and the same as plain data.

    Raises:
        Problem: 400, naming each wrong field and what was expected.
    """
    try:
        data = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise Problem(400, f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(data, dict):
        raise Problem(400, "the body: expected a JSON object", code="invalid_type")
    try:
        parsed = model.model_validate(data)
    except ValidationError as error:
        raise _wrong_fields(error) from None
    _check_numbers(data)
    return parsed, data


def _wrong_fields(error: ValidationError) -> Problem:
    # a union reports every branch: those that got furthest into the value say most
    messages: dict[str, list[str]] = {}
    codes: dict[str, str] = {}
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        path = [part for part in item["loc"] if not _is_branch(part)]
        dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
        name = dotted[1:129]
        message = _expected(item["type"], item["msg"], str(path[0]) if path else "")
        codes.setdefault(name, item["type"])
        if message not in messages.setdefault(name, []):
            messages[name].append(message)
    told = {
        name: f"{name}: {' or '.join(found)}" if name else found[0]
        for name, found in messages.items()
        if not any(other.startswith((f"{name}.", f"{name}[")) for other in messages)
    }
    more = f" (and {len(told) - MAX_FAULTS} more)" if len(told) > MAX_FAULTS else ""
    first = next(iter(told))
    shown = "; ".join(list(told.values())[:MAX_FAULTS])
    return Problem(400, shown + more, param=first or None, code=codes[first])


def _expected(kind: str, message: str, field: str) -> str:
    if kind == "extra_forbidden":
        return "unknown field; what an engine knows beyond OpenAI's goes to waypost.extra"
    return UNSUPPORTED.get(field) or message.removeprefix("Value error, ")


def _is_branch(part: int | str) -> bool:
    return isinstance(part, str) and (part in _BRANCHES or "[" in part or "(" in part)


def _check_numbers(value: Any, path: str = "") -> None:
    # free-form fields go on to other services, and JSON has no infinity (1e999) and no limit
    if isinstance(value, dict):
        for key, item in value.items():
            _check_numbers(item, f"{path}.{key}"[:128])
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_numbers(item, f"{path}[{index}]"[:128])
    elif isinstance(value, int | float) and not -MAX_INTEGER <= value < MAX_INTEGER:
        expected = "expected a number within 64 bits"
        raise Problem(400, f"{path[1:]}: {expected}", param=path[1:], code="number_too_large")


def read_extras(body: Extras | None, headers: Mapping[str, str]) -> Extras:
    """Join the body's extras with the ``x-waypost-*`` headers; the body wins.

    Raises:
        Problem: 400, naming the header that is wrong.
    """
    given: dict[str, Any] = {}
    for field, key in (("lambda", "lambda"), ("max_cost_usd", "max-cost-usd")):
        header = f"x-waypost-{key}"
        if header in headers:
            given[field] = _number(header, headers[header])
    for field in ("user_id", "session_id"):
        if value := headers.get(f"x-waypost-{field.replace('_', '-')}", "").strip():
            given[field] = value[:256]
    if listed := headers.get("x-waypost-allowed-models"):
        given["allowed_models"] = [name.strip()[:256] for name in listed.split(",") if name.strip()]
    given = {key: value for key, value in given.items() if value not in ([], None)}
    if body is not None:
        given |= body.model_dump(by_alias=True, exclude_none=True, exclude={"extra"})
    return Extras.model_validate(given)


def _number(header: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        message = f"header {header}: expected a number of at least 0"
        raise Problem(400, message, param=header, code="invalid_header")
    return value
