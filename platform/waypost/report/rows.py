"""Who stands in a report's tables, and what the references are called there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Report = Mapping[str, Any]

REFERENCES = {
    "random": "random",
    "best_single": "best single",
    "cheapest": "cheapest",
    "smallest": "smallest",
    "largest": "largest",
    "zero_router": "zero router",
    "task_oracle": "task oracle",
    "oracle": "oracle",
}
"""Reference policies and what people call them, in the order of the table."""


def name_of(key: str, row: Mapping[str, Any]) -> str:
    """Return what a reference is called in a table, with the LLM where it is one."""
    model = row.get("model_name")
    return f"*{REFERENCES[key]}*" + (f" ({model})" if model else "")


def references(report: Report) -> dict[str, Mapping[str, Any]]:
    """Return the references there are, in the order of the table."""
    return {key: report["reference"][key] for key in REFERENCES if key in report["reference"]}


def named(report: Report) -> list[tuple[str, Mapping[str, Any]]]:
    """Return every row, references first, by the name it has in a table."""
    named = [(name_of(key, row), row) for key, row in references(report).items()]
    return [*named, *report["routers"].items()]
