"""The command line of a bench again, for below its tables."""

from __future__ import annotations

import shlex

import click


def command_of(ctx: click.Context) -> str:
    """Return the command line again, without where its result goes."""
    words = ["waypost", "bench", ctx.command.name or ""]
    given: list[str] = []
    for one in ctx.command.params:
        value = ctx.params[one.name or ""]
        told_elsewhere = one.name in {"insert_at", "as_json", "out", "fresh"}
        if told_elsewhere or value in (None, ()) or value == one.get_default(ctx):
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
