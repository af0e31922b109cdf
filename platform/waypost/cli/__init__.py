"""The ``waypost`` command: one file per command, imported when the command is called.

Exit codes: 0 success, 1 failure, 2 wrong arguments or configuration, 130 interrupted. An error is
one message on stderr; ``--debug`` adds the traceback.
"""

from __future__ import annotations

import click

from waypost import __version__
from waypost.cli.errors import reporting
from waypost.cli.lazy import LazyGroup

COMMANDS = {
    "init": ("waypost.cli.init", "Write the files of a pool of your own."),
    "doctor": ("waypost.cli.doctor", "Check this machine, and what a Serve file needs."),
    "list-routers": ("waypost.cli.list_routers", "List the available routers."),
    "list-benchmarks": ("waypost.cli.list_benchmarks", "List the available benchmarks."),
    "new-router": ("waypost.cli.new_router", "Write a working router plug-in to start from."),
    "data": ("waypost.cli.data", "Make routing data: the score and cost of each LLM's answers."),
    "train": ("waypost.cli.train", "Train a router on routing data and write an artifact."),
    "calibrate": ("waypost.cli.calibrate", "Choose a lambda by what it costs."),
    "evaluate": (
        "waypost.cli.evaluate",
        "Compare routers on measured outcomes and write a report.",
    ),
    "tune": (
        "waypost.cli.tune",
        "Search a router's parameters by cross-validation and train the best.",
    ),
    "route": ("waypost.cli.route", "Choose an LLM for each query, without calling it."),
    "infer": (
        "waypost.cli.infer",
        "Choose an LLM for each query and call it, without a server.",
    ),
    "serve": ("waypost.cli.serve", "Check CONFIG strictly, then serve it until Ctrl-C."),
    "monitoring": (
        "waypost.cli.monitoring",
        "Write alert rules and dashboards for Prometheus and Grafana.",
    ),
    "submit": ("waypost.cli.submit", "Run a command as a job on a Ray cluster."),
    "encoder": ("waypost.cli.encoder", "Prepare query encoders."),
    "chat": ("waypost.cli.chat", "Serve a page to talk to a pool; it shows the routing."),
    "rl": ("waypost_rl.commands", "Train and serve an LLM that routes (Router-R1)."),
    "bench": ("waypost.cli.bench", "Measure parts of the system on this machine."),
}
"""Command name -> (module with its ``command``, its line in ``waypost --help``)."""


class WaypostGroup(LazyGroup):
    """The top-level group, which turns errors into messages and exit codes."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; the module's docstring lists the exit codes."""
        with reporting(debug=bool(ctx.params.get("debug"))):
            return super().invoke(ctx)


@click.group(
    cls=WaypostGroup,
    commands_by_name=COMMANDS,
    entry_point_group="waypost.commands",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: waypost train --router knnrouter --data DIR --out artifacts/knn",
)
@click.option("--debug", is_flag=True, help="Show log messages and tracebacks.")
@click.version_option(__version__, prog_name="waypost")
def command(debug: bool) -> None:
    """Waypost routes each query to the LLM that answers it well enough for the least money."""
    from waypost.cli.output import start_logging

    start_logging(debug)


def main() -> None:
    """Run the command line (entry point of the console script)."""
    from waypost.config import PATIENT_THREADS, set_default_environment

    set_default_environment(PATIENT_THREADS)
    command(prog_name="waypost")
