#!/usr/bin/env bash
# A click command keeps the help option of the first context that it was shown in.
#
# Versions:  click 8.5.1
# Expected:  help_option_names is a setting of a context, so two contexts of one command can have
#            different names.
# Happens:   the first get_help() creates the command's help option and stores it on the command. A
#            later context with other names prints the first names. The output of a documentation
#            generator therefore depends on earlier calls in the process.
# Here:      every context is created below the context of the top command (docs/reference.py, tests/docs).
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
