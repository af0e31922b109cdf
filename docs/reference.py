"""Write docs/reference and docs/routers from the code; ``--check`` lists stale pages instead.

Usage: python docs/reference.py [--check]. Sources are the ``--help`` of commands, the registries,
and the models that read files, with examples from docs/examples. As a hook of mkdocs this file
adds routers to the navigation.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click
import yaml
from pydantic import BaseModel
from reference_keys import (
    DOCS,
    ELSEWHERE,
    EXAMPLES,
    Examples,
    Given,
    bases,
    doc_of,
    example,
    fenced,
    keys_table,
    note,
    page,
    reached,
    rows_of,
    sections,
    shared_bases,
    table,
)
from reference_routers import router_pages

ARXIV = r"[arXiv \1](https://arxiv.org/abs/\1)"

ENGINE = "\nThe page of [engines](engines.md) lists the keys of `config`."

INTROS = {
    "commands": "What `waypost COMMAND --help` prints.",
    "serve-file": """
`waypost serve FILE` and Ray's `serve run FILE` read it. The outer keys are those of Ray:
`http_options`, `logging_config`, and for each application `name`, `route_prefix`,
`import_path: waypost.serve.app:build`, `args` and `deployments`. The keys of `args` are those of
[ServeArgs](#serveargs). The keys of `user_config` of the deployments `Gateway` and `Router` are
those of [UserConfig](#userconfig) (see [serving](../serving.md#change-it-while-it-serves))."""
    + ENGINE,
    "data-file": """
`waypost data run --config FILE` and the commands of its phases read it. Names of benchmarks are
those of [benchmarks](benchmarks.md)."""
    + ENGINE,
    "train-file": "`waypost train --config FILE` reads it; options and `KEY=VALUE` override it.",
    "tune-file": """
`waypost tune --config FILE` reads it. `tune_configs` has a file for each router. A file with
`sweeps: [FILE, ...]`, or `sweeps: all` for every other file of its folder, runs several sweeps;
`common: {...}` overrides keys in all of them. `tune_configs/all.yaml` is an example.""",
    "rl-train-file": """
`waypost rl train --config FILE` reads it; `KEY=VALUE` overrides it (see
[Train Router-R1](../router_r1.md)).""",
    "evaluate-file": "`waypost evaluate --config FILE` reads it; arguments override it.",
    "engines": """
An engine calls one LLM. Each LLM in the pool of a [Serve file](serve-file.md) or in the
[file of a data run](data-file.md) has an `engine` and the engine's `config`.""",
    "benchmarks": """
Valid names under `benchmarks` in the [file of a data run](data-file.md). A folder adds your own
benchmark, see [data](../data.md#a-benchmark-of-your-own). `max_tokens` limits an answer.""",
    "scorers": """
A scorer rates an answer from 0 to 1; higher is better. The `metric` of a question is a scorer.
Each score is stored with the version, which increases when any answer could score differently.""",
    "metrics": """
Metrics of `waypost evaluate`; see [evaluation](../evaluation.md). `s[i,j]` is the measured score
of LLM j on question i and `p[i,j]` the predicted score. Q and C are the mean score and the mean
dollars of the router's choices at lambda 0. Cells that were not measured are left out. A metric
that cannot be computed is null in report.json and n/a in tables. The ends of an interval are
`KEY_low` and `KEY_high` (`delta_low` and `delta_high` for `delta_best_single`).""",
    "prometheus": """
Metrics of `/metrics`, summed over the gateways of a Ray node; see [monitoring](../monitoring.md).
A histogram has the series `_bucket`, `_sum` and `_count`.""",
    "encoders": """
A query encoder maps a text to a unit vector. `--encoder` and the key `encoder` take a kind, an id,
or the keys below. An artifact stores the id of the encoder that it was trained with.""",
}

ENCODERS = {
    "static": "mean of token vectors distilled from the model; a table lookup",
    "onnx": "the model in int8, run by ONNX Runtime",
    "torch": "the model, run by sentence-transformers",
    "hashing": "hashed words; needs no weights, ignores meaning",
}


def files() -> dict[str, tuple[str, list[Given]]]:
    """Return the title and the models of each file that users write."""
    from waypost.pipelines.data.config import DataConfig
    from waypost.pipelines.evaluation.run import EvaluateConfig
    from waypost.pipelines.train import TrainConfig
    from waypost.serve.config import ServeArgs, UserConfig
    from waypost.tune.config import TuneConfig
    from waypost_rl.training.config import RunConfig

    args, now = "applications.0.args", "applications.0.deployments.0.user_config"
    serve: list[Given] = [
        (model, file, where)
        for model, where in ((ServeArgs, args), (UserConfig, now))
        for file in ("serve.yaml", "serve-routers.yaml", "serve-local.yaml")
    ]
    trained = ("rl-train.yaml", "rl-train-http.yaml", "rl-train-handle.yaml")
    tune: list[Given] = [(TuneConfig, "tune.yaml", ""), (TuneConfig, "tune-epochs.yaml", "")]
    return {
        "serve-file": ("The Serve file", serve),
        "data-file": ("The file of a data run", [(DataConfig, "data.yaml", "")]),
        "train-file": ("The file of a training", [(TrainConfig, "train.yaml", "")]),
        "tune-file": ("The file of a sweep", tune),
        "rl-train-file": (
            "The file of a training of Router-R1",
            [(RunConfig, file, "") for file in trained],
        ),
        "evaluate-file": ("The file of a comparison", [(EvaluateConfig, "evaluate.yaml", "")]),
    }


def file_page(name: str, title: str, given: list[Given]) -> str:
    """Return the page of one file that users write."""
    examples: Examples = {}
    models: dict[str, type[BaseModel]] = {}
    for model, file, where in given:
        data = example(file, where)
        model.model_validate(data)
        note(model, data, examples)
        reached(model, models)
    parts = [INTROS[name]]
    shared = shared_bases(models.values())
    for model in dict.fromkeys((*models.values(), *shared)):
        if model.__name__ in ELSEWHERE:
            continue
        parts += [f"## {model.__name__}", sections(model.__doc__)[""]]
        apart = [base for base in bases(model) if base in shared]
        rows = rows_of(model, examples, apart)
        parts += [keys_table(rows.values())] if rows else []
        for base in apart:
            also = "And the" if rows else "The"
            parts.append(f"{also} keys of [{base.__name__}](#{base.__name__.lower()}).")
    parts.append("## Files with every key")
    for file in dict.fromkeys(file for _, file, _ in given):
        parts.append(f"[{file}](../examples/{file})")
        parts.append(fenced((EXAMPLES / file).read_text(encoding="utf-8"), "yaml"))
    return page(title, *parts)


# -- registries ------------------------------------------------------------------------------------


def engines_page() -> str:
    """Return the page of the engines."""
    from waypost.engines import engine_config, engine_names, make_engine

    parts, given = [INTROS["engines"]], example("engines.yaml")
    for name in engine_names():
        model, examples = engine_config(name), Examples()
        for config in given[name]:
            model.model_validate(config)
            note(model, config, examples)
        rows = rows_of(model, examples)
        doc = doc_of(type(make_engine(name, given[name][0])))
        entry = yaml.safe_dump({"engine": name, "config": given[name][0]}, sort_keys=False)
        parts += [f"## {name}", doc, keys_table(rows.values()), fenced(entry, "yaml")]
    return page("Engines", *parts)


def benchmarks_page() -> str:
    """Return the page of the built-in benchmarks."""
    from waypost.benchmarks.catalog import find_benchmark, list_benchmarks

    head = ["name", "questions", "data set of the hub", "split", "columns", "scorer"]
    rows = []
    for one in (find_benchmark(entry.name, []) for entry in list_benchmarks([])):
        where = ", ".join((one.source.dataset, *one.source.configs))
        columns = ", ".join(f"`{name}`" for name in one.columns)
        row = [f"`{one.name}`", one.summary, where, one.source.split, columns]
        rows.append([*row, f"[{one.metric}](scorers.md)", one.max_tokens, one.version])
    return page("Benchmarks", INTROS["benchmarks"], table([*head, "max_tokens", "version"], rows))


def scorers_page() -> str:
    """Return the page of the scorers."""
    from waypost import scorers

    said = dict(re.findall(r"^(\w+)\s{2,}(\S.*)$", scorers.__doc__ or "", re.MULTILINE))
    rows = [[f"`{name}`", said[name]] for name in scorers.METRICS]
    version = f"This is version {scorers.SCORER_VERSION}."
    return page("Scorers", INTROS["scorers"], version, table(["name", "score 1 if"], rows))


def encoders_page() -> str:
    """Return the page of the query encoders."""
    from waypost.encoders import EncoderSpec

    examples: Examples = {}
    for one in example("encoders.yaml"):
        EncoderSpec.model_validate(one)
        note(EncoderSpec, one, examples)
    specs = [EncoderSpec.model_validate({"kind": name}) for name in ENCODERS]
    rows = [[f"`{s.kind}`", ENCODERS[s.kind], s.model, s.max_tokens, f"`{s.id}`"] for s in specs]
    head = ["kind", "what it is", "model", "tokens read", "id of its defaults"]
    keys = keys_table(rows_of(EncoderSpec, examples).values())
    return page("Encoders", INTROS["encoders"], table(head, rows), keys)


def metrics_page() -> str:
    """Return the page of the metrics, with one table for each table of the report."""
    from waypost.metrics.table import METRICS

    parts = [INTROS["metrics"]]
    for name in dict.fromkeys(metric.table for metric in METRICS):
        rows = []
        for one in (metric for metric in METRICS if metric.table == name):
            interval = "95 %" if one.interval else ""
            source = re.sub(r"arXiv (\d{4}\.\d{5})", ARXIV, one.source)
            better = "" if one.better == "none" else one.better
            rows.append(
                [f"`{one.key}`", one.title, one.formula, one.unit, better, interval, source]
            )
        head = ["in report.json", "in tables", "formula", "unit", "better", "interval", "source"]
        parts += [f"## {name or 'In report.json alone'}", table(head, rows)]
    return page("Metrics", *parts)


def prometheus_page() -> str:
    """Return the page of the gateway's metrics for Prometheus, with one table for each group."""
    from waypost.telemetry.table import LABELS, METRICS, OTHER

    parts = [INTROS["prometheus"]]
    for group in dict.fromkeys(metric.group for metric in METRICS):
        rows = [
            [
                f"`{one.name}`",
                one.kind,
                one.unit,
                ", ".join(f"`{label}`" for label in one.labels),
                one.what,
                ", ".join(f"{bound:g}" for bound in one.buckets),
            ]
            for one in METRICS
            if one.group == group
        ]
        head = ["name", "type", "unit", "labels", "what it is", "buckets up to"]
        parts += [f"## {group}", table(head, rows)]
    rows = [
        [f"`{name}`", label.what, ", ".join(f"`{value}`" for value in label.values or ())]
        for name, label in LABELS.items()
    ]
    told = f"A value that is not among those of a closed set is counted as `{OTHER}`."
    return page(
        "Prometheus metrics",
        *parts,
        "## Labels",
        told,
        table(["label", "what it is", "values"], rows),
    )


def commands_page() -> str:
    """Return the page of the commands."""
    from waypost.cli import command

    parts = [INTROS["commands"]]
    settings = {**command.context_settings, "terminal_width": 80, "max_content_width": 80}
    for context in commands(click.Context(command, info_name="waypost", **settings)):
        path = context.command_path
        title = f"{'#' * len(path.split())} {path}" if context.parent else ""
        parts += [title, fenced(context.command.get_help(context), "text")]
    return page("Commands", *parts)


def commands(context: click.Context) -> Iterator[click.Context]:
    """Yield a context for every command; a group comes before its commands."""
    yield context
    if isinstance(group := context.command, click.Group):
        for name in group.list_commands(context):
            if (one := group.get_command(context, name)) is not None:
                yield from commands(click.Context(one, info_name=name, parent=context))


# -- routers ---------------------------------------------------------------------------------------


# -- the whole -------------------------------------------------------------------------------------


def pages() -> dict[str, str]:
    """Return every generated page, by path below docs."""
    return {
        "reference/commands.md": commands_page(),
        "reference/engines.md": engines_page(),
        "reference/benchmarks.md": benchmarks_page(),
        "reference/scorers.md": scorers_page(),
        "reference/encoders.md": encoders_page(),
        "reference/metrics.md": metrics_page(),
        "reference/prometheus.md": prometheus_page(),
        **{f"reference/{name}.md": file_page(name, *one) for name, one in files().items()},
        **router_pages(),
    }


def stale(made: Mapping[str, str]) -> list[str]:
    """Return the names of pages that differ from those given, are missing, or are obsolete."""
    there = {
        file.relative_to(DOCS).as_posix(): file.read_text(encoding="utf-8")
        for folder in ("reference", "routers")
        for file in (DOCS / folder).glob("*.md")
    }
    return sorted(name for name in {*made, *there} if made.get(name) != there.get(name))


def on_config(config: Any) -> Any:
    """Add the pages of the routers to the navigation (called by mkdocs)."""
    names = sorted(file.stem for file in (DOCS / "routers").glob("*.md") if file.stem != "index")
    for entry in config.nav:
        if "Routers" in entry:
            entry["Routers"] = ["routers/index.md", *({n: f"routers/{n}.md"} for n in names)]
    return config


def main() -> None:
    """Write the pages; with ``--check`` list stale pages and exit with 1."""
    made = pages()
    wrong = stale(made)
    if "--check" in sys.argv[1:]:
        sys.exit(f"stale in docs: {', '.join(wrong)}; run make docs-reference" if wrong else 0)
    for name in wrong:
        file = DOCS / name
        if name in made:
            file.parent.mkdir(exist_ok=True)
            file.write_text(made[name], encoding="utf-8")
        else:
            file.unlink()


if __name__ == "__main__":
    main()
