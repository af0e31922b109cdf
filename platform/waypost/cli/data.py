"""``waypost data``: the group and its small subcommands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from waypost.cli.arguments import AS_JSON, CONFIG, OVERRIDES
from waypost.cli.data_describe import describe
from waypost.cli.data_feedback import export_votes, forget, from_feedback, import_votes
from waypost.cli.data_import import import_results
from waypost.cli.data_run import responses, run
from waypost.cli.errors import interruptible
from waypost.cli.output import echo_json, echo_table, progress_bar, progress_bars


@click.group("data")
def command() -> None:
    """Make routing data: the score and cost of each LLM's answers."""


@command.command(
    "queries", epilog="Example: waypost data queries --config data.yaml benchmarks.gsm8k.n=100"
)
@CONFIG
@OVERRIDES
@AS_JSON
def queries(config_path: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Load the questions of benchmarks and split them into train, validation and test.

    First phase of a data run. Near-duplicates stay in one split. Writes queries_train,
    queries_validation and queries_test as JSONL and parquet to the routing-data folder. Calls no
    LLM.
    """
    from waypost.pipelines.data.questions import run

    with progress_bar("loading") as bar:
        found = run(
            config_path, overrides, lambda name, done, total: bar(done, total, name or "splitting")
        )
    if as_json:
        echo_json(found)
        return
    splits = list(found["splits"])
    rows = [(task, *(counts[one] for one in splits)) for task, counts in found["tasks"].items()]
    rows.append(("all", *found["splits"].values()))
    echo_table(["task", *splits], rows)
    click.echo(
        f"{found['questions']} questions in {found['groups']} groups of near-duplicates; "
        f"{found['doubled']} repeated questions left out"
    )
    click.echo(f"wrote {found['folder']}")


@command.command(
    "llm-embeddings", epilog="Example: waypost data llm-embeddings --config data.yaml encoder=onnx"
)
@CONFIG
@OVERRIDES
@AS_JSON
def llm_embeddings(config_path: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Embed each LLM from its description, size, prices and context length.

    Second phase of a data run. Writes llms.json and the embeddings (JSON, safetensors) to the
    routing-data folder.
    """
    from waypost.pipelines.data.llm_embeddings import run

    found = run(config_path, overrides)
    if as_json:
        echo_json(found)
        return
    echo_table(["llm", "embedded text"], list(found["llms"].items()))
    click.echo(f"encoder {found['encoder']}, {found['dimension']} numbers each")
    click.echo(f"wrote {found['folder']}")


@command.command(
    "import-llmrouter",
    epilog="Example: waypost data import-llmrouter LLMRouter/data/example_data routing-data",
)
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def import_llmrouter(source: Path, target: Path, as_json: bool) -> None:
    """Convert LLMRouter's files to a routing-data folder.

    SOURCE is the folder of the files (routing JSONL, LLM JSON; optionally embeddings and router
    configs), or an LLMRouter config whose data_path lists them. Each router config is converted
    to TARGET/train-ROUTER.yaml for waypost train --config.
    """
    from waypost.pipelines.data.llmrouter.importing import import_llmrouter as run

    found = run(source, target)
    if as_json:
        echo_json(found)
        return
    _show_splits(found, ("rows", "queries", "failed_calls", "repeated"))
    if found["embeddings"]:
        click.echo(
            f"{found['embeddings']} query embeddings kept for export; Waypost trains routers with "
            "its own encoders"
        )
    for config in found["configs"]:
        became = "no router here" if config["router"] is None else f"train-{config['router']}.yaml"
        click.echo(f"{config['file']}: {became}")
        if config["unmapped"]:
            click.echo(f"  without a counterpart: {', '.join(config['unmapped'])}")
    if found["unknown_fields"]:
        click.echo(f"fields left out: {', '.join(found['unknown_fields'])}")
    if found["ignored"]:
        click.echo(f"files not read: {', '.join(found['ignored'])}")
    click.echo(f"wrote {target}")


@command.command(
    "export-llmrouter",
    epilog="Example: waypost data export-llmrouter routing-data for-llmrouter --encoder static",
)
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--encoder",
    help="Encoder of the query embeddings.  [default: write the embeddings stored in SOURCE]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def export_llmrouter(source: Path, target: Path, encoder: str | None, as_json: bool) -> None:
    """Write routing data as LLMRouter's files, with a config.yaml that lists them."""
    from waypost.pipelines.data.llmrouter.exporting import export_llmrouter as run

    with progress_bar("embedding") as progress:
        found = run(source, target, encoder, progress)
    if as_json:
        echo_json(found)
        return
    _show_splits(found, ("rows", "queries", "left_out"))
    click.echo(
        "no query embeddings: most of LLMRouter's routers need them; give --encoder"
        if found["embeddings"] is None
        else f"query embeddings: {found['embeddings']}"
    )
    click.echo(f"wrote {target}")


def _show_splits(found: dict[str, Any], keys: tuple[str, ...]) -> None:
    rows = [(name, *(one[key] for key in keys)) for name, one in found["splits"].items()]
    echo_table(["split", *(key.replace("_", " ") for key in keys)], rows)


@command.command(epilog="Example: waypost data verdicts --config serve_configs/starter/data.yaml")
@CONFIG
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    help="LLM to ask; repeat for several.  [default: all but the most expensive]",
)
@click.option("--samples", type=int, default=4, show_default=True, help="Verdicts per answer.")
@OVERRIDES
def verdicts(
    config_path: Path, models: tuple[str, ...], samples: int, overrides: tuple[str, ...]
) -> None:
    """Ask LLMs whether their own recorded answers are correct (for the router automix).

    Adds columns to the routing data written by `waypost data responses`. An interrupted run
    continues with the same command.
    """
    from waypost.pipelines.data.verdicts import run

    with interruptible("continues the run"), progress_bars() as progress:
        folder = run(config_path, overrides, models, samples, progress)
    click.echo(f"wrote {folder}")


@command.command(epilog="Example: waypost data split DIR NEW --pool --test 0.2 --seed 1")
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--test", type=float, default=0.2, show_default=True, help="Test fraction.")
@click.option(
    "--validation",
    type=float,
    default=0.0,
    show_default=True,
    help="Validation fraction; 0 makes no validation split.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--pool",
    is_flag=True,
    help="Split train and test together; drop test questions that also are in train.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def split(
    source: Path,
    target: Path,
    test: float,
    validation: float,
    seed: int,
    pool: bool,
    as_json: bool,
) -> None:
    """Split routing data again, stratified by task; near-duplicates stay in one split.

    Writes the folder TARGET with every column of SOURCE. Without --pool only the training split
    is split, and the test split of SOURCE is not copied.
    """
    from waypost.pipelines.data.split import split_folder

    found = split_folder(source, target, test=test, validation=validation, seed=seed, pooled=pool)
    if as_json:
        echo_json(found)
        return
    names = list(found["splits"])
    rows = [(task or "(none)", *counts.values()) for task, counts in found["tasks"].items()]
    rows += [
        (f"all {key}", *(found["splits"][name][key] for name in names))
        for key in ("queries", "groups")
    ]
    echo_table(["task", *names], rows)
    if found["leaked"] is not None:
        click.echo(
            f"test questions of {source} with a near-duplicate in its train: {found['leaked']}; "
            f"left out as the same question: {found['left_out']}"
        )
    click.echo(f"test questions with a near-duplicate in train now: {found['leaks']}")
    click.echo(f"wrote {target}")


@command.command(epilog="Example: waypost data users ../shared/data/mmlu_pro users-data --seed 1")
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--users", type=click.IntRange(min=8), default=200, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--auc",
    type=float,
    default=0.9,
    show_default=True,
    help="AUC of the true utilities on pairs; it sets the noise of what users say.",
)
@click.option(
    "--events",
    type=click.IntRange(min=1),
    default=40,
    show_default=True,
    help="Events of a user seen in training.",
)
@click.option(
    "--visible",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Visible events of a new user.",
)
@click.option(
    "--targets",
    type=click.IntRange(min=1),
    default=40,
    show_default=True,
    help="Preferences of a new user to predict.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def users(source: Path, target: Path, as_json: bool, **options: Any) -> None:
    """Make up users over recorded answers, to measure personal routing.

    Each user weighs correctness, price, brevity and waiting by weights of their own, likes some LLM
    families better than others, and asks about a few subjects. What they say of the answers of
    SOURCE (routing data with a test split) is written to TARGET: routing data with
    feedback_SPLIT.parquet, and users.parquet with everything hidden. New users' visible events are
    about training questions, their targets about questions of their split.
    """
    from waypost.pipelines.data.users import write_world

    found = write_world(source, target, **options)
    if as_json:
        echo_json(found)
        return
    keys = ("users", "events", "queries")
    rows = [(name, *(found[key][name] for key in keys)) for name in found["users"]]
    echo_table(["split", *keys], rows)
    click.echo(
        f"users weigh {', '.join(found['wants'])}; noise: beta {found['beta']:.3f}, at which the "
        f"true utilities have AUC {found['oracle_auc']:.3f}"
    )
    click.echo(f"wrote {target}")


for one in (
    run, responses, describe, from_feedback, forget, import_results, import_votes, export_votes,
):  # fmt: skip
    command.add_command(one)
