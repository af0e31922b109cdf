"""Options and arguments shared by commands: folders and URIs, queries, data runs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from waypost.contracts.errors import StorageError
from waypost.contracts.session import MODES, MOST_TOP_K, TOP_K
from waypost.storage.uri import Place, Uri, is_uri, place


class Folder(click.ParamType):  # type: ignore[type-arg] # generic from click 8.4 on only
    """Click type of a folder or URI, converted to `waypost.storage.Place`.

    Args:
        exists: Require that a path is an existing folder. A URI is not checked here: reading it
            raises the store's error later.
    """

    name = "folder or URI"

    def __init__(self, *, exists: bool = False) -> None:
        self._path = click.Path(exists=exists, file_okay=not exists, path_type=Path)

    def convert(self, value: Any, param: Any, ctx: Any) -> Place:
        """Return the place; a malformed ``file://`` URI is a usage error."""
        try:
            found = place(value) if is_uri(value) else value
        except StorageError as error:
            self.fail(str(error), param, ctx)
        if isinstance(found, Uri):
            return found
        path: Path = self._path.convert(found, param, ctx)
        return path


Command = TypeVar("Command", bound=Callable[..., Any])


def query_options(command: Command) -> Command:
    """Add --query and --input."""
    command = click.option(
        "--input",
        "input_file",
        type=click.File("r", encoding="utf-8"),
        help="JSON lines: each a string or an object with query or messages; - is standard input.",
    )(command)
    return click.option("--query", callback=_not_empty, help="Text of one query.")(command)


def _not_empty(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.strip():
        raise click.UsageError("--query: empty; expected a text")
    return value


def mode_options(command: Command) -> Command:
    """Add --mode and --top-k."""
    command = click.option(
        "--top-k",
        type=click.IntRange(1, MOST_TOP_K),
        default=TOP_K,
        show_default=True,
        help="Most earlier turns that --mode retrieval adds.",
    )(command)
    return click.option(
        "--mode",
        "route_on",
        type=click.Choice(MODES),
        default=MODES[0],
        show_default=True,
        help="What is routed on of a line with messages: the last user message, all messages, or "
        "the last one with the earlier turns most like it (also of earlier lines of its user_id).",
    )(command)


def policy_options(command: Command) -> Command:
    """Add --lambda, --allowed and --max-cost-usd."""
    command = click.option(
        "--max-cost-usd",
        type=click.FloatRange(min=0),
        help="Upper limit of the predicted cost of a call, in USD.",
    )(command)
    command = click.option(
        "--allowed", multiple=True, help="LLM that may be chosen; repeat for several."
    )(command)
    return click.option(
        "--lambda", "lam", type=click.FloatRange(min=0), help="Cost weight.  [default: 0]"
    )(command)


def read_lines(file: Any) -> list[Any]:
    """Read queries from JSON lines.

    Raises:
        SchemaError: some lines are not queries; the message lists the first 20.
    """
    from waypost.contracts.errors import SchemaError, WaypostError
    from waypost.contracts.records import Query
    from waypost.sessions.lines import as_routed

    queries, wrong = [], []
    for number, line in enumerate(_utf8(file), 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
            Query.of(as_routed([data])[0] if isinstance(data, dict) else data)
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
        for number, line in enumerate(file):
            yield line if number else line.removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise SchemaError(f"{file.name}: is not UTF-8 ({error.reason})") from None


CONFIG = click.option(
    "--config",
    "config_path",
    required=True,
    type=click.Path(path_type=Path),
    help="YAML file of the data run.",
)
OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def command_line(ctx: click.Context) -> str:
    """Return the command line of an evaluation, without options that do not change it."""
    # str() of a place hides the credentials that a URI may contain
    routers = [str(place(one)) if is_uri(one) else one for one in ctx.params["routers"]]
    words = ["waypost", "evaluate", *routers]
    for option in ctx.command.params:
        value = ctx.params[option.name or ""]
        if not isinstance(option, click.Option) or option.name in {"insert_at", "as_json"}:
            continue
        if value is None or value is False:
            continue
        words.append(option.opts[0])
        if isinstance(value, tuple):
            words.append(",".join(v if isinstance(v, str) else f"{v:g}" for v in value))
        elif not isinstance(value, bool):
            words.append(str(value))
    return shlex.join(words)
