"""The files of a new pool: a Serve file, a data file and an example of the keys."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from waypost.config import parse
from waypost.contracts.atomic import write_text
from waypost.contracts.errors import ConfigError, Fault
from waypost.contracts.pricing import PriceList
from waypost.contracts.records import parse_size
from waypost.pipelines.data.config import DataConfig
from waypost.serve.config import ServeArgs
from waypost.start.pool import Member
from waypost.start.providers import PROVIDERS

SERVE_FILE = "serve.yaml"
DATA_FILE = "data.yaml"
KEYS_FILE = ".env.example"
QUESTIONS = "questions.jsonl"
CLIENTS = "waypost-clients"
"""Service of the keys of clients."""

_ARGUMENTS = "args"


@dataclass(frozen=True)
class More:
    """What a pool says beside its LLMs.

    Attributes:
        args: Further arguments of the gateway.
        variables: Environment variable of a service's key, where it is not that of its provider.
        notes: What could not be taken over, for the head of the Serve file.
    """

    args: Mapping[str, Any]
    variables: Mapping[str, str]
    notes: Sequence[str] = ()


NOTHING_MORE = More({}, {})


def texts(pool: Mapping[str, Member], port: int, more: More = NOTHING_MORE) -> dict[str, str]:
    """Return the text of each file by its name; none holds a key.

    Args:
        pool: The LLMs by name.
        port: Port of the gateway.
        more: What else the files say.

    Raises:
        ConfigError: The pool is not one that the gateway takes, for instance an LLM of a name that
            a router has.
    """
    files = {
        SERVE_FILE: _serve_file(pool, port, more),
        DATA_FILE: _data_file(pool),
        KEYS_FILE: _keys_file(pool, more),
    }
    application = yaml.safe_load(files[SERVE_FILE])["applications"][0]
    parse(ServeArgs, application[_ARGUMENTS], SERVE_FILE)
    parse(DataConfig, yaml.safe_load(files[DATA_FILE]), DATA_FILE)
    return files


def check_free(folder: Path, force: bool) -> None:
    """Check that no file would be overwritten.

    Raises:
        ConfigError: Files are there and ``force`` is false; or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"cannot be a folder: {error.strerror}"
        raise ConfigError([Fault(str(folder), problem)]) from None
    there = [name for name in (SERVE_FILE, DATA_FILE, KEYS_FILE) if (folder / name).exists()]
    if there and not force:
        problem = "is there already; --force replaces it, another folder keeps it"
        raise ConfigError([Fault(str(folder / name), problem) for name in there])


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write the files.

    Raises:
        ConfigError: One cannot be written.
    """
    for name, text in files.items():
        try:
            write_text(folder / name, text)
        except OSError as error:
            problem = f"cannot be written: {error.strerror}"
            raise ConfigError([Fault(str(folder / name), problem)]) from None


def services_of(pool: Mapping[str, Member]) -> list[str]:
    """Return the services whose keys a pool needs, sorted."""
    found = {member.llm.config.get("service") for member in pool.values()}
    return sorted(name for name in found if name)


def _serve_file(pool: Mapping[str, Member], port: int, more: More) -> str:
    notes = [f"#   {line}" for note in more.notes for line in textwrap.wrap(note, 96)]
    router, knows = _router(pool)
    head = [
        "# Written by `waypost init`. No key stands here: see .env.example.",
        "#",
        f"#   waypost doctor {SERVE_FILE}",
        f"#   waypost serve --local {SERVE_FILE}     until Ctrl-C; without --local on Ray",
        "#",
        *(f"# {line}" for line in knows),
        "# A router that is trained on these LLMs' own answers is better:",
        "#",
        f"#   waypost data run --config {DATA_FILE}",
        "#   waypost train --router auto --data routing-data --out artifacts/auto",
        "#",
        "# Then write `artifact: artifacts/auto` in place of `router`.",
        *(["#", "# Not taken over:", *notes] if notes else []),
    ]
    settings: dict[str, Any] = {
        "http_options": {"host": "127.0.0.1", "port": port},
        "logging_config": {"log_level": "WARNING", "enable_access_log": False},
    }
    args: dict[str, Any] = {"router": router, "feedback_dir": "feedback", **more.args}
    application = {
        "name": "waypost",
        "route_prefix": "/",
        "import_path": "waypost.serve.app:build",
    }
    lines = [
        *head,
        _yaml(settings),
        "applications:",
        _indented(_yaml([application]), 2),
        f"    {_ARGUMENTS}:",
        _indented(_yaml(args), 6),
        "      pool:",
        *(_pool_entry(name, member) for name, member in pool.items()),
    ]
    return "\n".join(line.rstrip("\n") for line in lines) + "\n"


def _router(pool: Mapping[str, Member]) -> tuple[str | dict[str, Any], list[str]]:
    """Return a router that needs no training, and what it knows, in lines of text."""
    hard = [
        "`difficulty` tells hard questions from easy ones and has never seen these LLMs: hard ones",
        "go to the strong LLM, the dearest; lambda weighs cost.",
    ]
    if len(pool) < 2 or any(member.prices is not None for member in pool.values()):
        return "difficulty", hard
    sizes = {n: parse_size(m.llm.size) for n, m in pool.items() if m.llm.size is not None}
    if len(set(sizes.values())) > 1:
        ends = {
            "strong": max(sizes, key=sizes.__getitem__),
            "weak": min(sizes, key=sizes.__getitem__),
        }
        return {"name": "difficulty", "parameters": ends}, [hard[0], "go to `strong`, the largest."]
    return "in_order", ["`in_order` asks the first LLM of the pool, and the next where it fails."]


def _pool_entry(name: str, member: Member) -> str:
    llm = member.llm
    given = llm.model_dump(include=set(PriceList.model_fields), exclude_none=True, mode="json")
    entry = {
        "name": name,
        "engine": llm.engine,
        "placement": "inline",
        **given,
        **({} if llm.size is None else {"size": llm.size}),
        "max_ongoing_requests": 128,
        # the next LLM of the ranking is the second try
        "config": {**llm.config, "max_retries": llm.config.get("max_retries", 0)},
    }
    return _indented(f"{_price_line(member)}{_yaml([entry])}", 8)


def _price_line(member: Member) -> str:
    if member.source is not None and member.prices is not None:
        amounts = f"{member.prices[0]:g} / {member.prices[1]:g}"
        return f"# {amounts} USD per million tokens ({member.source}), looked up at each start\n"
    if member.prices is not None:
        return ""
    return "# price unknown: add input_price and output_price (USD per million tokens)\n"


def _data_file(pool: Mapping[str, Member]) -> str:
    keys = {"engine", "config", "size", "context_length", *PriceList.model_fields}
    limits = {"requests_per_minute", "tokens_per_minute"}
    llms = {
        name: member.llm.model_dump(include=keys | limits, exclude_none=True, mode="json")
        for name, member in pool.items()
    }
    head = (
        "# Written by `waypost init`: asks every LLM your questions, to train a router.",
        "#",
        f"#   waypost data run --config {DATA_FILE}",
        "#",
        f"# {QUESTIONS}: a line a question. Two keys are enough; a CSV will do, too:",
        '#   {"query": "What is the capital of France?", "ground_truth": "Paris"}',
        "# Some hundred are a start. `benchmarks: {gsm8k: {n: 200}}` adds public ones.",
    )
    rest = {
        "out": "routing-data",
        "questions": [QUESTIONS],
        "test_share": 0.2,
        "budget_usd": 5.0,
        "llms": llms,
    }
    if any(member.prices is None for member in pool.values()):
        del rest["budget_usd"]  # needs the price of every LLM
    return "\n".join((*head, _yaml(rest)))


def _keys_file(pool: Mapping[str, Member], more: More) -> str:
    services = [*services_of(pool), *([CLIENTS] if more.args.get("api_keys") else [])]
    head = [
        "# Keys of the pool. Copy to .env, write the keys in, keep .env out of version control:",
        "#   cp .env.example .env && chmod 600 .env",
        "#   set -a; . ./.env; set +a",
    ]
    if not services:
        return "\n".join([*head, "# No endpoint of this pool needs a key.", ""])
    lines = [f"API_KEYS='{json.dumps(dict.fromkeys(services, ''))}'"]
    named = {one: more.variables.get(one) or _variable(one) for one in services}
    if all(named.values()):
        inner = ", ".join(f'\\"{one}\\": \\"${variable}\\"' for one, variable in named.items())
        lines += [
            f"# or, where {' and '.join(str(one) for one in named.values())} are set:",
            f'# API_KEYS="{{{inner}}}"',
        ]
    return "\n".join([*head, *lines, ""])


def _variable(service: str) -> str | None:
    return PROVIDERS[service].key if service in PROVIDERS else None


def _yaml(data: Any) -> str:
    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100))


def _indented(text: str, by: int) -> str:
    return textwrap.indent(text.rstrip("\n"), " " * by)
