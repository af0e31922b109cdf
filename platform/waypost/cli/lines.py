"""Options and input that ``route`` and ``infer`` share: which queries, and how to choose."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def query_options(command: Command) -> Command:
    """Add --query and --input."""
    command = click.option(
        "--input",
        "input_file",
        type=click.File("r", encoding="utf-8"),
        help="JSON lines, each a text or an object with at least query; - is standard input.",
    )(command)
    return click.option("--query", help="One text.")(command)


def policy_options(command: Command) -> Command:
    """Add --lambda, --allowed and --max-cost-usd."""
    command = click.option(
        "--max-cost-usd",
        type=click.FloatRange(min=0),
        help="Most that the predicted cost of a call may be.",
    )(command)
    command = click.option(
        "--allowed", multiple=True, help="LLM that may be chosen; may be given many times."
    )(command)
    return click.option(
        "--lambda", "lam", type=click.FloatRange(min=0), help="Cost weight.  [default: 0]"
    )(command)


def read_lines(file: Any) -> list[Any]:
    """Read queries from JSON lines.

    Raises:
        SchemaError: naming every line that is not a query (the first 20).
    """
    from waypost.contracts.errors import SchemaError, WaypostError
    from waypost.contracts.records import Query

    queries, wrong = [], []
    for number, line in enumerate(_utf8(file), 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
            Query.of(data)
            queries.append(data)
        except json.JSONDecodeError as error:
            wrong.append(f"line {number}: not JSON: {error.msg} at column {error.colno}")
        except RecursionError:
            wrong.append(f"line {number}: nested too deep")
        except WaypostError as error:
            wrong.append(f"line {number}: {error}")
    if wrong:
        more = f"\n  and {len(wrong) - 20} more" if len(wrong) > 20 else ""
        raise SchemaError(f"{file.name}:\n  " + "\n  ".join(wrong[:20]) + more)
    return queries


def _utf8(file: Any) -> Iterator[str]:
    from waypost.contracts.errors import SchemaError

    try:
        yield from file
    except UnicodeDecodeError as error:
        raise SchemaError(f"{file.name}: is not UTF-8 ({error.reason})") from None
