"""Markdown from docstrings and from the models of files; `reference` makes its pages of it."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

DOCS = Path(__file__).resolve().parent
EXAMPLES = DOCS / "examples"
MADE = "<!-- Made by `make docs-reference`; do not edit. -->"

UNITS = {
    "_s": "s",
    "_ms": "ms",
    "_mb": "MB",
    "_gib": "GiB",
    "_bytes": "bytes",
    "_usd": "USD",
    "_price": "USD per million tokens",
    "_percent": "%",
    "tokens": "tokens",
    "tokens_per_s": "tokens a second",
    "tokens_per_minute": "tokens a minute",
    "requests_per_minute": "calls a minute",
    "context_length": "tokens",
    "memory": "bytes",
}
"""End of a key -> unit; the longest end that fits counts."""

ELSEWHERE = {"EncoderSpec": "encoders.md"}
"""Models with a page of their own."""

Given = tuple[type[BaseModel], str, str]
"""A model, a file of docs/examples, and where in it data of the model is."""

Examples = dict[tuple[str, str], Any]
"""(name of a model, key) -> the first value that an example gives."""


# -- text ------------------------------------------------------------------------------------------


def code(text: str) -> str:
    """Return the marks of our docstrings as Markdown's."""
    return text.replace("``", "`")


def cell(text: object) -> str:
    """Return a text that fits a cell of a table."""
    return " ".join(code(str(text)).split()).replace("|", "\\|")


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    lines = [[cell(value) for value in line] for line in (head, *rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fenced(text: str, language: str) -> str:
    """Return a block of code."""
    return f"```{language}\n{text.strip()}\n```"


def doc_of(cls: type) -> str:
    """Return the docstring of the module that a class is in."""
    return code(inspect.cleandoc(sys.modules[cls.__module__].__doc__ or ""))


def page(title: str, *parts: str) -> str:
    """Return a page of these parts."""
    text = "\n\n".join(part.strip("\n") for part in (f"# {title}", MADE, *parts) if part)
    return text.strip() + "\n"


_TITLE = re.compile(
    r"^(?:Args|Attributes|Example|Needed parameters|When to take it|Learned by .*):$", re.MULTILINE
)


def sections(doc: str | None) -> dict[str, str]:
    """Split a docstring: what stands before any title, under "", and each section's own text."""
    doc = inspect.cleandoc(doc or "")
    titles = list(_TITLE.finditer(doc))
    ends = [*(title.start() for title in titles), len(doc)]
    found = {"": code(doc[: ends[0]].strip())}
    for title, end in zip(titles, ends[1:], strict=True):
        found[title[0][:-1]] = textwrap.dedent(doc[title.end() : end]).strip("\n")
    return found


def named(section: str, nothing: str = "null") -> Iterator[tuple[str, str]]:
    """Yield (name, text) of entries ``name: text`` and ``a, b: text``; None is ``nothing``."""
    for entry in re.split(r"\n(?=\S)", section):
        names, _, text = entry.partition(":")
        for name in names.split(","):
            yield name.strip(), re.sub(r"\bNone\b", nothing, " ".join(text.split()))


# -- models of files -------------------------------------------------------------------------------


def described(model: type[BaseModel]) -> dict[str, str]:
    """Return what the docstrings of a model and of its bases say of each field."""
    found: dict[str, str] = {}
    for cls in reversed([model, *bases(model)]):
        found |= dict(named(sections(cls.__doc__).get("Attributes", "")))
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        fields = body.body if isinstance(body, ast.ClassDef) else []
        for field, doc in pairwise(fields):
            if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr):
                text = ast.literal_eval(doc.value)
                found |= dict(named(f"{ast.unparse(field.target)}: {' '.join(text.split())}"))
    return found


def bases(model: type[BaseModel]) -> list[type[BaseModel]]:
    """Return the models that a model takes fields from."""
    above = [
        one for one in model.__mro__[1:] if issubclass(one, BaseModel) and one is not BaseModel
    ]
    return [one for one in above if one.model_fields]


def listed(model: type[BaseModel], apart: Iterable[type[BaseModel]] = ()) -> dict[str, Any]:
    """Return the fields of a model without those that it has unchanged from bases ``apart``."""
    stated = vars(model).get("__annotations__", {})
    theirs = {name for base in apart for name in base.model_fields} - set(stated)
    return {name: field for name, field in model.model_fields.items() if name not in theirs}


def inside(annotation: Any) -> list[type[BaseModel]]:
    """Return the models that an annotation names."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [one for part in getattr(annotation, "__args__", ()) for one in inside(part)]


def reached(model: type[BaseModel], found: dict[str, type[BaseModel]]) -> None:
    """Note a model and every model that is the type of a field, by name, in reading order."""
    if model.__name__ not in found:
        found[model.__name__] = model
        for field in model.model_fields.values():
            for one in inside(field.annotation):
                reached(one, found)


def shared_bases(models: Iterable[type[BaseModel]]) -> list[type[BaseModel]]:
    """Return the models that several of these take fields from; their keys get one table."""
    count = Counter(base for model in models for base in bases(model))
    return [base for base, times in count.items() if times > 1]


def note(model: type[BaseModel], data: Mapping[str, Any], found: Examples) -> None:
    """Note the values that data of a model gives, in the models inside it, too."""
    for name, field in model.model_fields.items():
        key = field.alias or name
        if key not in data:
            continue
        value = data[key]
        for one in (model, *bases(model)):
            found.setdefault((one.__name__, key), value)
        values = value if isinstance(value, list) else [value]
        if isinstance(value, dict):
            values = [value, *value.values()]
        for one in inside(field.annotation):
            keys = {other.alias or n for n, other in one.model_fields.items()}
            for part in values:
                if isinstance(part, dict) and part and set(part) <= keys:
                    note(one, part, found)


_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def kind(schema: Mapping[str, Any]) -> str:
    """Return in words the type that a part of a JSON schema asks for."""
    if several := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(kind(one) for one in several))
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}]({ELSEWHERE.get(name, f'#{name.lower()}')})"
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{one}`" for one in schema.get("enum", [schema.get("const")]))
    match schema.get("type"):
        case "array":
            return f"list of {kind(schema.get('items', {}))}"
        case "object":
            inner = schema.get("additionalProperties")
            return f"mapping to {kind(inner)}" if isinstance(inner, dict) and inner else "mapping"
        case "integer" | "number" as plain:
            bounds = [f"{sign} {schema[key]:g}" for key, sign in _BOUNDS.items() if key in schema]
            return f"{plain} {', '.join(bounds)}".strip()
        case other:
            words = {"string": "text", "boolean": "true or false", "null": "null"}
            return words.get(str(other), "anything")


def rows_of(
    model: type[BaseModel], examples: Examples, apart: Iterable[type[BaseModel]] = ()
) -> dict[str, list[str]]:
    """Return the row of each field of a model, by key, without those of the bases ``apart``.

    Raises:
        SystemExit: a key without a description, or without an example.
    """
    schema, texts = model.model_json_schema()["properties"], described(model)
    rows = {}
    for name, field in listed(model, apart).items():
        key, models = field.alias or name, inside(field.annotation)
        text = texts.get(name) or (
            sections(models[0].__doc__)[""].split("\n\n")[0] if models else ""
        )
        at = f"{model.__module__}.{model.__name__}: {key}"
        if not text:
            raise SystemExit(f"{at}: no description; write one into the docstring")
        if (model.__name__, key) not in examples:
            raise SystemExit(f"{at}: no example; write one into a file of docs/examples")
        default = schema[key].get("default", field.get_default(call_default_factory=True))
        nested = isinstance(default, BaseModel) or (isinstance(default, dict) and default)
        shown = "required" if field.is_required() else "its own" if nested else as_json(default)
        ends = sorted((end for end in UNITS if key.endswith(end)), key=len)
        example = as_json(examples[model.__name__, key])
        rows[key] = [f"`{key}`", kind(schema[key]), shown, UNITS[ends[-1]] if ends else "", text]
        rows[key].append(example if len(example) <= 60 else "see below")
    return rows


def as_json(value: Any) -> str:
    """Return a value as code."""
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def keys_table(rows: Iterable[list[str]]) -> str:
    """Return the table of these keys."""
    return table(["key", "type", "default", "unit", "meaning", "example"], rows)


def example(file: str, where: str = "") -> Any:
    """Return the data of an example file, or of a part of it."""
    data = yaml.safe_load((EXAMPLES / file).read_text(encoding="utf-8"))
    for part in filter(None, where.split(".")):
        data = data[int(part) if part.isdigit() else part]
    return data
