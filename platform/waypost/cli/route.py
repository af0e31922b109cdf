"""``waypost route``: decide for each query without calling an LLM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from waypost.cli.arguments import Folder, mode_options, policy_options, query_options, read_lines
from waypost.cli.output import echo_json, echo_table, progress_bar, to_json, write_lines
from waypost.storage.uri import Place

if TYPE_CHECKING:
    from waypost.contracts.records import Decision
    from waypost.contracts.router import TrainableRouter
    from waypost.sessions.retrieval import Retrieved

_CHUNK = 256


@click.command(
    "route",
    epilog='Example: waypost route --artifact artifacts/knn --query "What is 2 + 3?" --lambda 0.2',
)
@click.option(
    "--artifact",
    required=True,
    type=Folder(exists=True),
    help="Folder written by waypost train, or its URI.",
)
@query_options
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the decisions, as JSON lines.",
)
@mode_options
@policy_options
@click.option("--allow-plugin-code", is_flag=True, help="Run plug-in code from the artifact.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (JSON lines for --input).")
def command(
    artifact: Place,
    query: str | None,
    input_file: Any,
    output: Path | None,
    route_on: Any,
    top_k: int,
    lam: float | None,
    allowed: tuple[str, ...],
    max_cost_usd: float | None,
    allow_plugin_code: bool,
    as_json: bool,
) -> None:
    """Choose an LLM for each query, without calling it.

    Keys of an --input line (allowed_models, lambda, max_cost_usd, route_on, top_k) override the
    options. A row of the output has all keys of its line, and those of the decision.
    """
    from waypost.contracts.policy import PolicySettings
    from waypost.loading import load_router
    from waypost.sessions.lines import as_routed
    from waypost.sessions.retrieval import retrieve_all

    if (query is None) == (input_file is None):
        raise click.UsageError("give either --query or --input")
    if output is not None and input_file is None:
        raise click.UsageError("--output needs --input")
    lines = [query or ""] if input_file is None else read_lines(input_file)
    router = load_router(artifact, allow_plugin_code=allow_plugin_code)
    router.policy = PolicySettings(
        lam=lam or 0.0, allowed_models=allowed or None, max_cost_usd=max_cost_usd
    )
    queries, found = retrieve_all(as_routed(lines, route_on, top_k), router.encoder)
    if input_file is None:
        _show(router.route_single(queries[0]), as_json)
        return
    decisions = _decisions(router, queries)
    if output is not None:
        write_lines(output, _rows(queries, found, decisions))
        click.echo(f"wrote {len(decisions)} decisions to {output}", err=True)
    elif as_json:
        for row in _rows(queries, found, decisions):
            click.echo(to_json(row))
    else:
        columns = ("line", "model", "quality", "cost USD", "confidence")
        echo_table(columns, [(i, *_cells(d, d.model)) for i, d in enumerate(decisions, 1)])


def _decisions(router: TrainableRouter, queries: Sequence[Any]) -> list[Decision]:
    from waypost.contracts.errors import PluginError, PolicyError

    found: list[Decision] = []
    with progress_bar("routing") as progress:
        for start in range(0, len(queries), _CHUNK):
            part = queries[start : start + _CHUNK]
            try:
                found += router.route_batch(part)
            except (PolicyError, PluginError):
                _name_the_query(router, part, start)
                raise
            progress(len(found), len(queries))
    return found


def _name_the_query(router: TrainableRouter, part: Sequence[Any], start: int) -> None:
    from waypost.contracts.errors import PluginError, PolicyError

    for number, query in enumerate(part, start + 1):
        try:
            router.route_single(query)
        except (PolicyError, PluginError) as error:
            raise type(error)(f"query {number}: {error}") from None


def _rows(
    queries: Sequence[dict[str, Any]],
    found: Sequence[Retrieved | None],
    decisions: Sequence[Decision],
) -> Iterator[dict[str, Any]]:
    for query, turns, decision in zip(queries, found, decisions, strict=True):
        given = {key: value for key, value in query.items() if key != "session"}
        more = {} if turns is None else {"retrieved": turns.told()}
        yield {**given, **decision.to_dict(), **more}


def _show(decision: Decision, as_json: bool) -> None:
    if as_json:
        echo_json(decision.to_dict())
        return
    click.echo(f"{decision.model}: {decision.reason}")
    rows = [_cells(decision, name) for name in decision.ranking]
    echo_table(("model", "quality", "cost USD", "confidence"), rows)


def _cells(decision: Decision, name: str) -> tuple[str, ...]:
    quality, cost = decision.quality.get(name), decision.cost_usd.get(name)
    chosen = name == decision.model and decision.confidence is not None
    return (
        name,
        "" if quality is None else f"{quality:.3f}",
        "" if cost is None else f"{cost:.3g}",
        f"{decision.confidence:.2f}" if chosen else "",
    )
