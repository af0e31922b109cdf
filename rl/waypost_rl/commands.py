"""``waypost rl``: train and serve an LLM that routes."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from waypost.contracts.errors import ConfigError, Fault

if TYPE_CHECKING:
    from waypost_rl.importing import Imported

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("rl")
def command() -> None:
    """Train and serve an LLM that routes (Router-R1)."""


@command.command(
    "train",
    epilog="Example: waypost rl train --config rl/waypost_rl/configs/router_r1.yaml steps=60",
)
@click.option(
    "--config",
    "config_path",
    required=True,
    type=_FILE,
    help="YAML of the run; its keys are in the documentation.",
)
@click.option(
    "--dry-run", is_flag=True, help="Check config, data, pool and prompts; train nothing."
)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def train(config_path: Path, dry_run: bool, overrides: tuple[str, ...]) -> None:
    """Train a policy by PPO, or continue its run.

    Needs the environment of Router-R1 (make env-router-r1, or pip install "waypost[router-r1]" into
    one of its own). The folder `out` of the config holds the run: checkpoints, metrics.jsonl,
    transcripts, TensorBoard, and at the end policy/ and report.md. The same command continues a run
    that was cut off.

    KEY=VALUE overrides a key of the config, such as steps=60 or ppo.learning_rate=1e-5.
    """
    from waypost_rl.training.entry import check, read_run_config, start

    config = read_run_config(config_path, overrides)
    if dry_run:
        for line in check(config):
            click.echo(line)
        return
    words = ["waypost", "rl", "train", "--config", str(config_path), *overrides]
    try:
        done = start(config, shlex.join(words))
    except KeyboardInterrupt:
        click.echo("interrupted; the same command continues from the last checkpoint", err=True)
        raise click.exceptions.Exit(130) from None
    ended = f" (ended early: {done.ended})" if done.ended else ""
    click.echo(f"{done.steps} steps{ended}, reward {done.reward:.3f} at the end -> {config.out}")


@command.command(
    "evaluate",
    epilog="Example: waypost rl evaluate --config rl/waypost_rl/configs/router_r1.yaml --singles",
)
@click.option(
    "--config",
    "config_path",
    required=True,
    type=_FILE,
    help="YAML of the run: its candidates, pool, prompt and reward.",
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="NAME=MODEL",
    help="Checkpoint to measure, a folder or a hub name; repeat to compare with the first."
    "  [default: the run's policy]",
)
@click.option("--split", default="test", show_default=True, help="Split of the questions.")
@click.option("--limit", type=click.IntRange(min=1), help="Maximum questions, drawn by the seed.")
@click.option(
    "--alpha",
    "alphas",
    multiple=True,
    type=click.FloatRange(0, 1, max_open=True),
    help="Weight of cost; repeat for several.  [default: those of the config]",
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Of the policies' samples: 0 takes the most likely token, 1 samples as in training.",
)
@click.option("--singles", is_flag=True, help="Measure each candidate alone, too.")
@click.option("--router", "routers", multiple=True, help="Artifact of a router to measure, too.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="JSON of the result.")
@click.option(
    "--insert",
    "insert_at",
    metavar="FILE:MARKER",
    help="Write the tables into FILE between <!-- MARKER begin --> and <!-- MARKER end -->.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def evaluate(
    config_path: Path,
    policies: tuple[str, ...],
    split: str,
    limit: int | None,
    alphas: tuple[float, ...],
    temperature: float,
    singles: bool,
    routers: tuple[str, ...],
    out: Path | None,
    insert_at: str | None,
    as_json: bool,
    overrides: tuple[str, ...],
) -> None:
    """Measure policies on held-out questions against the pool of a run.

    Prints reward, outcome, exact match, F1, cost, turns and whom each subject asked, with intervals
    of the paired differences from the first policy. A router chooses at lambda 0.
    """
    from waypost.contracts.atomic import write_text
    from waypost.report.compact import check_marker, insert
    from waypost_rl.evaluation import Subjects, evaluate_run
    from waypost_rl.training.entry import read_run_config

    file, _, marker = (insert_at or "").rpartition(":")
    if insert_at is not None:
        check_marker(Path(file), marker)
    config = read_run_config(config_path, overrides)
    subjects = Subjects(_pairs(policies, "--policy", "MODEL"), routers, singles)
    found = evaluate_run(
        config,
        subjects,
        split=split,
        limit=limit,
        alphas=alphas or None,
        temperature=temperature,
        tell=_Progress(),
    )
    text = json.dumps(found.data, indent=1, ensure_ascii=False, allow_nan=False)
    if out is not None:
        write_text(out, text + "\n")
    if insert_at is not None:
        insert(Path(file), marker, "\n".join(found.lines))
    click.echo(text if as_json else "\n".join(found.lines))


@command.command("plot", epilog="Example: waypost rl plot runs/router_r1 --out curves.png")
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--control",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Run without learning (learn=false), drawn beside the reward.",
)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
def plot(run: Path, control: Path | None, out: Path) -> None:
    """Draw reward, its parts, divergence and routes of a run by step, as PNG."""
    from waypost_rl.training.logs import read_metrics
    from waypost_rl.training.report import draw_curves

    steps = read_metrics(run)
    if not steps:
        raise ConfigError([Fault(str(run), "has no metrics.jsonl: it is not a training run")])
    draw_curves(steps, out, [] if control is None else read_metrics(control))


class _Progress:
    """Prints a line every ten seconds to stderr."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self._last >= 10:
            self._last = time.monotonic()
            click.echo(f"{what}: {done}/{total} episodes", err=True)


def _artifact_options(candidate_help: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the options of the commands that write an artifact for a pool."""
    options = [
        click.option(
            "--pool",
            "pool_file",
            required=True,
            type=_FILE,
            help="Serve file with the policy and the LLMs that it may query.",
        ),
        click.option(
            "--out", required=True, help="Folder or URI of the artifact; replaced if it exists."
        ),
        click.option(
            "--copy",
            is_flag=True,
            help="Put the policy's weights into the artifact, as its folder policy (hard links "
            "where possible).",
        ),
        click.option(
            "--policy", help="Entry that serves the policy.  [default: the entry with its model]"
        ),
        click.option(
            "--candidate", "candidates", multiple=True, metavar="NAME=ENTRY", help=candidate_help
        ),
        click.option("--fallback", help="Entry that answers where the policy does not."),
        click.option(
            "--data",
            "data_folder",
            help="Routing data of the LLMs: their scores choose the fallback.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
        click.argument("parameters", nargs=-1, metavar="[KEY=VALUE]..."),
    ]

    def add(function: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            function = option(function)
        return function

    return add


@command.command(
    "import",
    epilog="Example: waypost rl import models/router-r1 --pool serve_configs/router_r1.yaml "
    "--policy policy --fallback qwen2.5-coder-0.5b --out artifacts/router_r1",
)
@click.argument("model")
@click.option(
    "--prompt",
    "prompt_file",
    type=_FILE,
    help="Prompt that MODEL was trained with: a text with {question}, and optionally {models} and "
    "{searches}.  [default: Waypost's]",
)
@_artifact_options(
    "Name that MODEL was trained with, and the entry that answers to it; repeat for several."
    "  [default: all other entries under their own names]"
)
def import_(
    model: str,
    prompt_file: Path | None,
    pool_file: Path,
    candidates: tuple[str, ...],
    parameters: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Make an artifact of router_r1 from the checkpoint of a trained policy.

    MODEL is a folder or a hub name: a whole causal language model in safetensors, with its
    tokenizer. The artifact names it and holds its chat template; without --copy the weights stay
    where they are. The pool serves them under an entry of its own.

    Give --fallback, or --data with a score of each LLM. KEY=VALUE sets a parameter of the router.
    """
    from waypost_rl.importing import import_checkpoint

    prompt = None if prompt_file is None else prompt_file.read_text(encoding="utf-8")
    found = import_checkpoint(
        model,
        pool_file,
        candidates=_pairs(candidates, "--candidate", "ENTRY"),
        prompt=prompt,
        overrides=parameters,
        **options,
    )
    _tell(found, pool_file, options["out"], as_json)


@command.command(
    "export",
    epilog="Example: waypost rl export runs/r1 --copy --pool serve_configs/router_r1.yaml "
    "--fallback qwen2.5-coder-0.5b --out artifacts/router_r1",
)
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@_artifact_options(
    "Candidate of the training, and the entry that answers to it; repeat for several."
    "  [default: the entry of that name, or of its pool_name]"
)
def export(
    run: Path,
    pool_file: Path,
    candidates: tuple[str, ...],
    parameters: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Make an artifact of router_r1 from a training run.

    RUN is the folder of a run of `waypost rl train`. Prompt, descriptions, chat template and the
    rules of episodes are those of the training. Without --copy the weights stay in RUN/policy.
    The pool serves them under an entry of its own.

    Give --fallback, or --data with a score of each LLM. KEY=VALUE sets a parameter of the router.
    """
    from waypost_rl.exporting import export_run

    found = export_run(
        run,
        pool_file,
        candidates=_pairs(candidates, "--candidate", "ENTRY"),
        overrides=parameters,
        **options,
    )
    _tell(found, pool_file, options["out"], as_json)


def _tell(found: Imported, pool_file: Path, out: str, as_json: bool) -> None:
    from waypost_rl.importing import is_same

    manifest = found.manifest
    if as_json:
        shown = {"artifact": out, **manifest.model_dump(mode="json", exclude={"files"})}
        click.echo(json.dumps(shown, ensure_ascii=False))
        return
    delegates = manifest.parameters["delegates"] or {
        llm.name: llm.name for llm in manifest.llms if llm.name != found.policy
    }
    click.echo(f"{manifest.router} {manifest.version} -> {out}")
    click.echo(f"policy: {found.policy}, from {found.model}")
    for spelling, name in delegates.items():
        click.echo(f"candidate: {spelling}" + ("" if spelling == name else f" -> {name}"))
    if not is_same(found.served_model, [found.model]):
        served = found.served_model or "another model"
        click.echo(f"note: {pool_file} serves {served} there", err=True)
    steps = 2 * manifest.parameters["max_turns"] + 1
    click.echo(f"set limits.max_steps of the Serve file to at least {steps}")


def _pairs(given: tuple[str, ...], option: str, what: str) -> dict[str, str]:
    pairs = {}
    for one in given:
        spelling, sign, name = one.rpartition("=")
        if not sign or not spelling.strip() or not name.strip():
            raise ConfigError([Fault(f"{option} {one}", f"expected NAME={what}")])
        pairs[spelling.strip()] = name.strip()
    return pairs
