"""Measure the light start: seconds to the first answer, memory and disk, beside LiteLLM's proxy.

`waypost serve --local` runs from an environment of its own with the extra ``gateway`` only, with a
router that needs no training. LiteLLM's proxy has one worker and the same pool. Both are in front
of one local endpoint and start in turns; the first start of each is not counted. Memory is what is
resident of all processes after some answers; disk is all installed files, compiled ones left out.

Example: waypost bench start --rounds 5 --insert docs/results/gateway.md:bench-start
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml
from pydantic import Field

from waypost.bench import _groups, _peers, harness
from waypost.bench._processes import fetch, free_ports, upstream
from waypost.bench._upstream import PATH, chat
from waypost.bench.harness import BenchError, Result, Table, Tell, at_most, spread, with_range
from waypost.config import settings

WAYPOST, LITELLM = "waypost serve --local", "LiteLLM's proxy"
MODELS = ("small", "large")
WITHIN_S = 120.0
POLL_S = 0.01

MOST_S, MOST_MB, MOST_DISK_MB = 3.0, 300.0, 350.0
"""What the start, the memory and the installed files may take."""


class Options(harness.Options):
    """Options of ``waypost bench start``."""

    rounds: int = Field(5, ge=1, description="Counted starts of each.")
    answers: int = Field(200, ge=1, description="Answers before memory is read.")
    litellm: bool = Field(True, description="Measure LiteLLM's proxy, too.")


QUICK = {"rounds": 1, "answers": 5, "litellm": False}


def run(options: Options, tell: Tell) -> Result:
    """Measure both.

    Returns:
        Figures: name -> ``first_s`` and ``memory_mb`` (see `spread`), ``disk_mb``.

    Raises:
        BenchError: An environment cannot be installed, or a server does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="waypost-bench-") as name, upstream() as port:
        folder = Path(name)
        tell("installing waypost[gateway] into an environment of its own")
        homes = {WAYPOST: install(folder / "venv")}
        if options.litellm:
            homes[LITELLM] = _peers.litellm(tell)
        found: dict[str, dict[str, list[float]]] = {one: {"s": [], "mb": []} for one in homes}
        for number in range(-1, options.rounds):
            for one, home in homes.items():
                tell(f"start {number + 1} of {options.rounds}: {one}")
                seconds, memory = started(one, home, port, folder, options.answers)
                if number >= 0:
                    found[one]["s"].append(seconds)
                    found[one]["mb"].append(memory)
        figures = {
            one: {
                "first_s": spread(found[one]["s"]),
                "memory_mb": spread(found[one]["mb"]),
                "disk_mb": disk_mb(home),
            }
            for one, home in homes.items()
        }
    return Result([table(figures)], facts(options), aims(figures), figures)


def install(folder: Path) -> Path:
    """Install this checkout with the extra ``gateway`` into a new environment; return its folder.

    Raises:
        BenchError: It cannot be installed; the message has the reason.
    """
    _peers.run_uv("venv", "--python", sys.executable, folder)
    source = f"{settings().root}[gateway]"
    _peers.run_uv("pip", "install", "--python", folder / "bin" / "python", source)
    return folder


def started(name: str, home: Path, there: int, folder: Path, answers: int) -> tuple[float, float]:
    """Start a server; return the seconds to its first answer, and its memory in MB.

    Raises:
        BenchError: It does not answer.
    """
    (port,) = free_ports(1)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config(name, port, there)), encoding="utf-8")
    command = [str(home / "bin" / "waypost"), "serve", "--local", str(path)]
    changes: Mapping[str, str | None] = {}
    if name == LITELLM:
        command = _peers.litellm_command(home, path, port)
        changes = _peers.LITELLM_ENVIRONMENT
    environment = {k: v for k, v in {**os.environ, **changes}.items() if v is not None}
    with (folder / "log.txt").open("wb") as out:
        begin = time.perf_counter()
        process = _groups.begin(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, cwd=folder
        )
        try:
            until = begin + WITHIN_S
            while not _answers(port):
                if process.poll() is not None or time.perf_counter() > until:
                    told = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
                    raise BenchError(f"{name} does not answer:\n{told[-2000:]}")
                time.sleep(POLL_S)
            seconds = time.perf_counter() - begin
            for _ in range(answers):
                _answers(port)
            one = psutil.Process(process.pid)
            tree = [one, *one.children(recursive=True)]
            memory = sum(each.memory_info().rss for each in tree) / 1e6
        finally:
            _groups.finish(process)
    return seconds, memory


def config(name: str, port: int, there: int) -> dict[str, Any]:
    """Return the file of a server: two LLMs, both of which are the local endpoint."""
    if name == LITELLM:
        return dict(_peers.litellm_config(there, MODELS))
    prices = ((0.1, 0.4), (2.0, 8.0))
    engine = {"base_url": f"http://127.0.0.1:{there}/v1", "model": "echo"}
    pool = [
        {"name": one, "engine": "openai", "config": engine, "input_price": a, "output_price": b}
        for one, (a, b) in zip(MODELS, prices, strict=True)
    ]
    application = {
        "import_path": "waypost.serve.app:build",
        "args": {"router": "difficulty", "pool": pool},
    }
    return {"http_options": {"host": "127.0.0.1", "port": port}, "applications": [application]}


def _answers(port: int) -> bool:
    body = chat(MODELS[0], "Is anybody there?", stream=False)
    try:
        status, said = fetch(port, "POST", PATH, body)
    except (OSError, http.client.HTTPException):
        return False
    return status == 200 and bool(json.loads(said)["choices"])


def disk_mb(home: Path) -> float:
    """Return the size of an environment's files in MB, those that Python compiled left out."""
    files = [p for p in home.rglob("*") if p.suffix != ".pyc" and not p.is_symlink()]
    return sum(path.stat().st_size for path in files if path.is_file()) / 1e6


def table(figures: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a row for each server."""
    heads = ("", "first answer, s [range]", "resident memory, MB [range]", "installed, MB")
    rows = [
        [
            name,
            with_range(one["first_s"]),
            with_range(one["memory_mb"]),
            f"{one['disk_mb']:.0f}",
        ]
        for name, one in figures.items()
    ]
    return Table("From the command to the first answer", heads, rows)


def aims(figures: Mapping[str, Mapping[str, Any]]) -> list[harness.Aim]:
    """Return what the start, the memory and the installed files may take."""
    own = figures[WAYPOST]
    found = [
        at_most("seconds to the first answer", own["first_s"]["median"], MOST_S),
        at_most("MB resident", own["memory_mb"]["median"], MOST_MB),
        at_most("MB installed", own["disk_mb"], MOST_DISK_MB),
    ]
    if LITELLM in figures:
        other = figures[LITELLM]["disk_mb"]
        found.append(at_most("MB installed, LiteLLM's proxy beside it", own["disk_mb"], other))
    return found


def facts(options: Options) -> str:
    """Return what explains the table."""
    told = ", ".join(
        f"{name} {one}" for name, one in _peers.versions().items() if name == "LiteLLM"
    )
    beside = f" {told}." if options.litellm else ""
    return (
        f"Medians of {options.rounds} starts in turns, ranges in brackets; memory after "
        f"{options.answers} answers.{beside}"
    )
