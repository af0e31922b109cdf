"""Parts that the schemas of the gateway's answers are made of."""

from __future__ import annotations

from typing import Any

REF = "#/components/schemas/{model}"


def ref(name: str) -> dict[str, str]:
    """Return a reference to a schema of the document."""
    return {"$ref": REF.format(model=name)}


def closed(properties: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return an object of exactly these members."""
    return {
        "type": "object",
        "required": [name for name in properties if name not in optional],
        "properties": properties,
        "additionalProperties": False,
    }


def opened(properties: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return an object of these members and of what else an upstream said."""
    told = "also fields of the upstream that OpenAI's API lacks, as it sent them"
    return {**closed(properties, optional), "additionalProperties": True, "description": told}


def listed(items: dict[str, Any]) -> dict[str, Any]:
    """Return an array of values of one schema."""
    return {"type": "array", "items": items}


def by_model(value: dict[str, Any]) -> dict[str, Any]:
    """Return an object with a value of one schema by LLM."""
    return {"type": "object", "additionalProperties": value}


TEXT: dict[str, Any] = {"type": "string"}
TEXT_OR_NULL: dict[str, Any] = {"type": ["string", "null"]}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
NUMBER: dict[str, Any] = {"type": "number"}
NUMBER_OR_NULL: dict[str, Any] = {"type": ["number", "null"]}
NULL: dict[str, Any] = {"type": "null"}
LOGPROBS: dict[str, Any] = {"type": ["object", "null"]}
