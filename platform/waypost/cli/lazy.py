"""A click group that imports a command when it is called, not when it is listed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """A group of modules that each define a ``command``.

    Args:
        commands_by_name: Command -> (module, short help). The short help lets ``--help`` run
            without imports.
        entry_point_group: Entry-point group in which other packages register click commands.
        **attributes: Arguments of ``click.Group``.
    """

    def __init__(
        self,
        *args: Any,
        commands_by_name: Mapping[str, tuple[str, str]] | None = None,
        entry_point_group: str | None = None,
        **attributes: Any,
    ) -> None:
        super().__init__(*args, **attributes)
        self.commands_by_name = dict(commands_by_name or {})
        self.entry_point_group = entry_point_group

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands of this package, then those of other packages."""
        own = [*self.commands_by_name, *super().list_commands(ctx)]
        return [*own, *sorted(set(self._entry_points()) - set(own))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None for an unknown name."""
        if cmd_name in self.commands_by_name:
            loaded: Any = import_module(self.commands_by_name[cmd_name][0]).command
        elif (point := self._entry_points().get(cmd_name)) is not None:
            loaded = point.load()
        else:
            return super().get_command(ctx, cmd_name)
        if not isinstance(loaded, click.Command):
            raise click.ClickException(f"{cmd_name}: {loaded!r} is not a click command")
        return loaded

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command; the usage error of an unknown one names a similar command."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            from waypost.contracts.wording import did_you_mean

            near = did_you_mean(args[0], self.list_commands(ctx))
            ctx.fail(f"No such command {args[0]!r}.{near}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without imports."""
        points = self._entry_points()
        rows = []
        for name in self.list_commands(ctx):
            if name in self.commands_by_name:
                rows.append((name, self.commands_by_name[name][1]))
            elif name in self.commands:
                rows.append((name, self.commands[name].get_short_help_str()))
            else:
                rows.append((name, f"(from {points[name].value.partition(':')[0]})"))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _entry_points(self) -> dict[str, Any]:
        if self.entry_point_group is None:
            return {}
        from importlib.metadata import entry_points

        return {point.name: point for point in entry_points(group=self.entry_point_group)}
