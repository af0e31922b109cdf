"""``waypost bench``: measure parts of the system on this machine."""

from __future__ import annotations

import inspect
import shlex
from functools import partial
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

import click

from waypost.cli.lazy import LazyGroup

if TYPE_CHECKING:
    from waypost.bench.harness import Report

PRINTED = (
    click.Option(
        ["--insert", "insert_at"],
        metavar="FILE:MARKER",
        help="Write the tables into FILE between <!-- MARKER begin --> and <!-- MARKER end -->.",
    ),
    click.Option(["--json", "as_json"], is_flag=True, help="Print JSON."),
    click.Option(
        ["--out", "out_file"],
        type=click.Path(dir_okay=False, path_type=Path),
        help="File for the JSON result.",
    ),
)
"""Output options of every bench."""

_NOT_REPEATED = {"insert_at", "as_json", "out_file", "out", "fresh"}


class BenchGroup(LazyGroup):
    """Group of all benches, the modules of `waypost.bench`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the benches."""
        from waypost.bench.harness import benches

        self.commands_by_name = {name: ("", line) for name, line in benches().items()}
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command made from a bench's options; None for an unknown name."""
        return command_of(cmd_name) if cmd_name in self.list_commands(ctx) else None


@click.group("bench", cls=BenchGroup)
def command() -> None:
    """Measure parts of the system on this machine."""


def command_of(name: str) -> click.Command:
    """Build the command of a bench from its module; see `waypost.bench`."""
    from waypost.bench.harness import module_of

    bench = import_module(module_of(name))
    *text, example = inspect.cleandoc(bench.__doc__ or "").split("\n\n")
    quick = getattr(bench, "QUICK", None)
    hints = get_type_hints(bench.Options, include_extras=True)
    params: list[click.Parameter] = [
        _parameter(key, field, hints[key], quick or {})
        for key, field in bench.Options.model_fields.items()
        if field.description
    ]
    if quick is not None:
        help_text = "Run a small version, to check that the bench works."
        params.append(click.Option(["--quick"], is_flag=True, help=help_text))
    params += [one for one in PRINTED if one.name != "out_file" or "out" not in hints]
    run = click.pass_context(partial(_run, name=name))
    return click.Command(name, params=params, callback=run, help="\n\n".join(text), epilog=example)


def _parameter(key: str, field: Any, hint: Any, quick: dict[str, Any]) -> click.Parameter:
    """Build an option; its default is None, so that the default of the pydantic model applies."""
    from pydantic import DirectoryPath

    extra, default = field.json_schema_extra or {}, field.default
    if metavar := extra.get("argument"):
        return click.Argument([key], nargs=-1, metavar=metavar)
    help_text = field.description
    if not (field.is_required() or isinstance(default, bool) or default in (None, ())):
        told = _told(default)
        also = f"; {_told(quick[key])} with --quick" if key in quick else ""
        help_text += f"  [default: {told}{also}]"
    name = "--" + key.replace("_", "-")
    more: dict[str, Any] = {"help": help_text, "default": None}
    if metavar := extra.get("metavar"):
        return click.Option([name], metavar=metavar, **more)
    if hint is bool:
        names = f"{name}/--no-{name[2:]}" if default else name
        return click.Option([names], is_flag=True, **more)
    multiple, optional = get_origin(hint) is tuple, get_origin(hint) in (Union, UnionType)
    inner = get_args(hint)[0] if multiple or optional else hint
    low = next((one.ge for one in field.metadata if hasattr(one, "ge")), None)
    types: dict[Any, Any] = {
        int: click.IntRange(min=low),
        float: click.FloatRange(min=low),
        DirectoryPath: click.Path(exists=True, file_okay=False, path_type=Path),
        Path: click.Path(path_type=Path),
    }
    more |= {"multiple": multiple, "required": field.is_required()}
    return click.Option([name], type=types.get(inner, str), **more)


def _told(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _run(
    ctx: click.Context,
    *,
    name: str,
    insert_at: str | None,
    as_json: bool,
    out_file: Path | None = None,
    quick: bool = False,
    **given: Any,
) -> None:
    from waypost.bench import _groups, harness
    from waypost.cli.output import echo_json, insert_target, progress_bar, to_json
    from waypost.config import parse
    from waypost.report.compact import check_marker, insert

    target = None if insert_at is None else insert_target(insert_at)
    if target is not None:
        check_marker(*target)
    bench: Any = import_module(harness.module_of(name))
    said = {key: value for key, value in given.items() if value not in (None, ())}
    options = parse(bench.Options, {**(bench.QUICK if quick else {}), **said}, f"bench {name}")
    with _groups.ended_on_sigterm(), progress_bar(name) as bar:
        report = harness.measure(
            name, options, harness.Tell(lambda line: click.echo(line, err=True), bar)
        )
    if out_file is not None:
        out_file.write_text(to_json(report.data, indent=2) + "\n", encoding="utf-8")
    if target is not None:
        insert(*target, report.markdown(line_of(ctx)))
    if as_json:
        echo_json(report.data)
    else:
        show(report)
    for what, why in report.result.failed.items():
        click.echo(f"{what}: measurement failed: {why}", err=True)
    if report.result.failed:
        ctx.exit(1)


def show(report: Report) -> None:
    """Print a report on stdout."""
    from waypost.cli.output import echo_table
    from waypost.report.compact import measured

    for one in report.tables:
        click.echo(f"{one.title}\n")
        echo_table(one.heads, one.rows, right=one.heads[1:])
        click.echo("")
    click.echo(f"{report.facts} {measured(report.data['machine'])}")


def line_of(ctx: click.Context) -> str:
    """Return the command line without its output options."""
    words = ["waypost", "bench", ctx.command.name or ""]
    given: list[str] = []
    for one in ctx.command.params:
        value = ctx.params[one.name or ""]
        off = value is False and not one.secondary_opts
        if one.name in _NOT_REPEATED or value is None or value == () or off:
            continue
        values = value if isinstance(value, tuple) else (value,)
        if isinstance(one, click.Argument):
            given += map(str, values)
        elif isinstance(value, bool):
            words.append(one.opts[0] if value else one.secondary_opts[0])
        else:
            for part in values:
                words += [one.opts[0], str(part)]
    return shlex.join([*words, *given])
