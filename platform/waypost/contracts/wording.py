"""Messages for wrong config values: translate pydantic's errors into faults."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from waypost.contracts.errors import Fault

_WORDS = {
    "missing": "missing; it is required",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "finite_number": "expected a finite number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "string_type": "expected text",
    "list_type": "expected a list",
    "tuple_type": "expected a list",
    "dict_type": "expected keys and values",
    "mapping_type": "expected keys and values",
    "model_type": "expected keys and values",
    "model_attributes_type": "expected keys and values",
    "path_type": "expected a path",
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected at least {ge}",
    "less_than": "expected less than {lt}",
    "less_than_equal": "expected at most {le}",
    "literal_error": "expected {expected}",
    "union_tag_invalid": "{discriminator} expected one of {expected_tags}",
    "union_tag_not_found": "{discriminator} is missing",
    "enum": "expected {expected}",
    "string_too_short": "expected at least {min_length} characters",
    "string_too_long": "expected at most {max_length} characters",
    "too_short": "expected at least {min_length} entries, found {actual_length}",
    "too_long": "expected at most {max_length} entries",
}
_FOUND_IS_CLEAR = {
    "missing",
    "union_tag_not_found",
    "string_too_short",
    "string_too_long",
    "too_short",
    "too_long",
}


_SHORT = 3


def kind(value: object) -> str:
    """Name the YAML type of a value, for messages."""
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true/false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else "a value")


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return " (did you mean 'seed'?)" where a known name is nearly the given one, else ""."""
    if not isinstance(name, str):
        return ""
    by_lower = {one.lower(): one for one in known}
    # In a short name one letter is a larger share: kk and k have 0.67 in common, tua and tau too.
    cutoff = 0.7 if len(name) > _SHORT else 0.6
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=cutoff)
    return f" (did you mean {by_lower[close[0]]!r}?)" if close else ""


def faults(error: ValidationError, where: str, model: type[BaseModel] | None = None) -> list[Fault]:
    """Translate pydantic's errors into faults that name the key.

    Args:
        error: What validation raised.
        where: File (and key) that the data came from.
        model: The model that was validated; used to suggest a near key for an unknown one.
    """
    found = []
    for item in error.errors(include_url=False):
        loc = item["loc"]
        key = ".".join(str(part) for part in loc if not _is_union_branch(part))
        found.append(Fault(f"{where}: {key}" if key else where, _problem(item, model)))
    return found


def unknown_key(key: object, known: Iterable[str]) -> str:
    """Return a message that a key is unknown, with a known key that is near."""
    return f"unknown key{did_you_mean(key, known)}"


def _problem(item: Mapping[str, Any], model: type[BaseModel] | None) -> str:
    type_, loc, value = item["type"], item["loc"], item["input"]
    if type_ == "extra_forbidden":
        known = [name for inner in models_at(model, loc[:-1]) for name in keys(inner)]
        return unknown_key(loc[-1], known)
    problem = expectation(item)
    if type_ in _FOUND_IS_CLEAR or type_ not in _WORDS:
        return problem
    context = _context(item)
    expected = context.get("expected") or context.get("expected_tags") or ""
    allowed = re.findall(r"'([^']+)'", expected)
    if type_ == "union_tag_invalid":  # the tag names a form, so that it may be shown
        return f"{problem}, found {context['tag']!r}{did_you_mean(context['tag'], allowed)}"
    return f"{problem}, found {_shown(value)}{did_you_mean(value, allowed)}"


def expectation(item: Mapping[str, Any]) -> str:
    """Return what one of pydantic's errors expected, without the value that was found."""
    type_ = item["type"]
    if type_ == "string_too_short" and item["ctx"]["min_length"] == 1:
        return "empty; expected at least one character"
    if type_ == "too_short" and item["ctx"]["actual_length"] == 0:
        return "empty; expected at least one"
    if type_ not in _WORDS:
        return str(item["msg"]).removeprefix("Value error, ")
    return _WORDS[type_].format_map(_context(item))


def _context(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _whole(limit) for name, limit in item.get("ctx", {}).items()}


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


_WORD = re.compile(r"[a-z]{1,12}")


def _shown(value: object) -> str:
    """Describe the value found; a text that is no plain word may be a misplaced API key."""
    if isinstance(value, str) and _WORD.fullmatch(value):
        return repr(value)
    is_plain = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_plain else kind(value)


def _is_union_branch(part: int | str) -> bool:
    # pydantic adds names like "function-after[...]" or "list[str]" for the branches of a union
    return isinstance(part, str) and ("[" in part or "(" in part)


def keys(model: type[BaseModel]) -> list[str]:
    """Return the names of a model's fields as data has them (aliases)."""
    return [field.alias or name for name, field in model.model_fields.items()]


def models_at(model: type[BaseModel] | None, loc: Sequence[int | str]) -> list[type[BaseModel]]:
    """Return the possible models at a location inside a model; empty where it is not known."""
    here: list[Any] = [] if model is None else [model]
    for part in loc:
        here = [inner for one in here for inner in _step(one, part)]
    return [one for each in here for one in _models(each)]


def _step(annotation: Any, part: int | str) -> Iterator[Any]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            if (field.alias or name) == part:
                yield field.annotation
        if part == annotation.__name__ or part in _tags(annotation):  # the branch of a union
            yield annotation
    elif origin is Annotated:
        yield from _step(arguments[0], part)
    elif origin in {Union, UnionType}:
        for one in arguments:
            yield from _step(one, part)
    elif arguments:  # of a list or tuple, its items; of a mapping, its values
        yield arguments[0] if arguments[-1] is Ellipsis else arguments[-1]


def _tags(model: type[BaseModel]) -> set[Any]:
    literals = (f.annotation for f in model.model_fields.values())
    return {tag for one in literals if get_origin(one) is Literal for tag in get_args(one)}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is Annotated:
        yield from _models(get_args(annotation)[0])
    elif get_origin(annotation) in {Union, UnionType}:
        for one in get_args(annotation):
            yield from _models(one)
