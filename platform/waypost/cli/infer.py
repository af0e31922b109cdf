"""``waypost infer``: decide and answer queries without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from waypost.cli.arguments import Folder, mode_options, policy_options, query_options, read_lines
from waypost.cli.output import echo_json, progress_bar, to_json, warnings_only, write_lines
from waypost.storage.uri import Place


@click.command(
    "infer",
    epilog="Example: waypost infer --artifact artifacts/knn --pool serve_configs/router.yaml "
    '--query "What is 2 + 3?"',
)
@click.option(
    "--artifact",
    type=Folder(exists=True),
    help="Folder written by waypost train, or its URI.  [default: artifact of the pool file]",
)
@click.option(
    "--pool",
    "pool_file",
    required=True,
    type=click.Path(path_type=Path),
    help="Serve config, or a YAML with pool (optionally policy, limits) only.",
)
@query_options
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the answers, as JSON lines.",
)
@click.option("--model", help="LLM to call instead of the routed one.")
@mode_options
@policy_options
@click.option("--max-tokens", type=click.IntRange(min=1), help="Token limit of an answer.")
@click.option("--temperature", type=click.FloatRange(0, 2), help="Temperature; 0 is greedy.")
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Queries in flight.",
)
@click.option("--allow-plugin-code", is_flag=True, help="Run plug-in code from the artifact.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (JSON lines for --input).")
@click.pass_context
def command(
    ctx: click.Context,
    artifact: Place | None,
    pool_file: Path,
    query: str | None,
    input_file: Any,
    output: Path | None,
    model: str | None,
    route_on: Any,
    top_k: int,
    lam: float | None,
    allowed: tuple[str, ...],
    max_cost_usd: float | None,
    max_tokens: int | None,
    temperature: float | None,
    concurrency: int,
    allow_plugin_code: bool,
    as_json: bool,
) -> None:
    """Choose an LLM for each query and call it, without a server.

    The LLMs of the pool run in this process or behind their HTTP endpoints. Keys of an --input
    line (allowed_models, lambda, max_cost_usd, route_on, top_k) override the options.
    """
    import asyncio

    from waypost.serve.infer import Generation, answer_all, read_pool
    from waypost.sessions.lines import as_routed
    from waypost.storage import local_copy

    if (query is None) == (input_file is None):
        raise click.UsageError("give either --query or --input")
    if output is not None and input_file is None:
        raise click.UsageError("--output needs --input")
    folder = None if artifact is None else ctx.with_resource(local_copy(artifact))
    plan = read_pool(pool_file, folder, allow_plugin_code=allow_plugin_code)
    names = [served.name for served in plan.models]
    if model is not None and model not in names:
        raise click.UsageError(f"--model: no model is named {model}; the pool has {names}")
    options = {"lambda": lam, "allowed_models": list(allowed) or None, "max_cost_usd": max_cost_usd}
    given = {key: value for key, value in options.items() if value is not None}
    lines = [query or ""] if input_file is None else read_lines(input_file)
    queries = [{**given, **line} for line in as_routed(lines, route_on, top_k)]
    generation = Generation(max_tokens, temperature)
    debug = bool(ctx.find_root().params.get("debug"))
    with progress_bar("answering") as progress, warnings_only("waypost.serve", unless=debug):
        work = answer_all(
            plan, queries, generation, model=model, concurrency=concurrency, progress=progress
        )
        rows = asyncio.run(work)
    if input_file is None:
        _show(rows[0], as_json)
    elif output is not None:
        write_lines(output, rows)
        click.echo(f"wrote {len(rows)} answers to {output}", err=True)
    else:
        for row in rows:
            click.echo(to_json(row))
    if failed := sum("error" in row for row in rows):
        raise click.ClickException(f"{failed} of {len(rows)} queries were not answered")


def _show(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        echo_json(row)
    elif "error" in row:
        click.echo(row["error"], err=True)
    else:
        cost = "" if row["cost_usd"] is None else f", {row['cost_usd']:.3g} USD"
        reason = row["decision"]["reason"]
        click.echo(f"{row['model']} ({reason}){cost}", err=True)
        click.echo(row["answer"])
