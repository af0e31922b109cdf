#!/usr/bin/env bash
# A click command keeps the help option of the first context that it was shown in.
#
# Versions:  click 8.5.1
# Expected:  help_option_names is a setting of a context, so that two contexts of one command may
#            show different names.
# Happens:   the first get_help() makes the command's help option and keeps it on the command; a later
#            context with other names shows the first one's. What a documentation generator prints
#            therefore depends on who looked at the command before it in the process.
# Here:      every context is made below the top command's own (docs/reference.py, tests/docs).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet "click==8.5.1"
"$work/venv/bin/python" - <<'PYTHON'
import click


@click.command()
def command() -> None:
    """Do nothing."""


def shown(names: list[str]) -> str:
    context = click.Context(command, info_name="it", help_option_names=names)
    return command.get_help(context).splitlines()[-1].strip()


first, second = shown(["--help"]), shown(["-h", "--help"])
print(f"help_option_names=['--help']:       {first}")
print(f"help_option_names=['-h', '--help']: {second}")
if not first.startswith("--help") or second != first:
    raise SystemExit("changed: look at this finding anew")
PYTHON
