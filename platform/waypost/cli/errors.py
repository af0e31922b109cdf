"""Turn exceptions into messages for the user and exit codes."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import click

from waypost.contracts.errors import ConfigError, PluginError, RegistryError, WaypostError

FAILED = 1
WRONG_INPUT = 2
INTERRUPTED = 130


@contextmanager
def reporting(debug: bool) -> Iterator[None]:
    """Print an error as a message and exit; with ``debug`` raise it with its traceback.

    click handles its own errors (wrong options, ``--help``) and a closed output pipe.
    """
    try:
        yield
    except (click.exceptions.Exit, click.ClickException, click.Abort, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None
    except WaypostError as error:
        if debug:
            raise
        click.echo(message(error), err=True)
        raise click.exceptions.Exit(exit_code(error)) from None
    # Any other exception is a bug in Waypost.
    except Exception as error:
        if debug:
            raise
        # Without its message, which may contain a user's text or a key.
        click.echo(
            f"internal error: {type(error).__name__} at {_place(error)}; "
            "run again with --debug (before the command) for the traceback",
            err=True,
        )
        raise click.exceptions.Exit(FAILED) from None


@contextmanager
def interruptible(what_next: str) -> Iterator[None]:
    """Exit on Ctrl-C with a message of what the same command does next."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"interrupted; the same command {what_next}", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None


def exit_code(error: WaypostError) -> int:
    """Return 2 for wrong input (a config or an unknown name), else 1."""
    named_wrongly = isinstance(error, RegistryError) and not isinstance(error, PluginError)
    return WRONG_INPUT if named_wrongly or isinstance(error, ConfigError) else FAILED


def message(error: WaypostError) -> str:
    """Return the message of an error, with one line per fault of a config."""
    if isinstance(error, ConfigError) and len(error.faults) > 1:
        lines = [f"{len(error.faults)} things are wrong:", *(f"  {f}" for f in error.faults)]
        return "\n".join(lines)
    return f"error: {error}"


def _place(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{'/'.join(last.filename.split('/')[-2:])}:{last.lineno}"
