"""The table of clients in docs: runs them against a gateway, and judges what they saw.

    python -P tests/support/clients.py docs/clients.md

Each client asks the scripted upstream twice: by itself, and through Waypost. A cell that fails in
both is the client's; one that fails through Waypost only is ours.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from aiohttp import web

from support import clients_upstream as upstream
from support.gateway import arguments, knn_artifact
from waypost.serve.backends.dispatcher import local_llm, local_router
from waypost.serve.config import ServeArgs
from waypost.serve.gateway.app import Gateway
from waypost.serve.plan import make_plan
from waypost.testing.tiny_model import write_tiny_model

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".venv-clients"
BEGIN, END = "<!-- clients: begin -->", "<!-- clients: end -->"

COLUMNS = (
    "whole",
    "stream",
    "parallel tools",
    "reasoning",
    "refusal",
    "structured output",
    "usage",
    "local LLM",
)
CALLS = [list(call) for call in upstream.CALLS]
EXPECTED: dict[tuple[str, str], Any] = {
    ("whole", "whole"): upstream.TEXT,
    ("stream", "stream"): upstream.TEXT,
    ("parallel tools", "whole"): [CALLS, "Rain at 12:00."],
    ("parallel tools", "stream"): CALLS,
    ("reasoning", "whole"): ["Let me think.", "42"],
    ("reasoning", "stream"): "Let me think.",
    ("refusal", "whole"): ["I cannot help.", None],
    ("refusal", "stream"): "I cannot help.",
    ("structured output", "whole"): upstream.OBJECT,
    ("structured output", "stream"): upstream.OBJECT,
    ("usage", "whole"): [11, 7, 5, 3],
    ("usage", "stream"): [11, 7, 5, 3],
}
INSTRUCTORS = {("parallel tools", "whole"): [call[1:] for call in CALLS]}
"""What instructor returns has no ids: it gives objects, not calls."""

Key = tuple[str, str, str, str]
"""Client, server, column, mode."""


@dataclass(frozen=True)
class Seen:
    """What the clients saw.

    Attributes:
        values: By cell; an error is a value of type `Failed`.
        versions: Of the clients, in the order of the table.
    """

    values: Mapping[Key, Any]
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Failed:
    """A cell in which the client raised an error."""

    error: str


async def run() -> Seen:
    """Run all clients."""
    with tempfile.TemporaryDirectory(prefix="waypost-clients-") as folder:
        plan = _plan(Path(folder), "")
        site = web.AppRunner(upstream.application())
        await site.setup()
        try:
            where = web.TCPSite(site, "127.0.0.1", 0)
            await where.start()
            direct = f"http://127.0.0.1:{site.addresses[0][1]}/v1"
            plan = _plan(Path(folder), direct)
            gateway = Gateway(plan, local_router(plan), local_llm)
            await gateway.start()
            try:
                return await _serve(gateway, direct)
            finally:
                await gateway.close()
        finally:
            await site.cleanup()


def _plan(folder: Path, direct: str) -> Any:
    tiny = folder / "tiny"
    if not tiny.exists():
        write_tiny_model(tiny)
        knn_artifact(folder / "artifact")
    local = {"model": str(tiny), "device": "cpu", "dtype": "float32", "threads": 1}
    config = {"base_url": direct or "http://127.0.0.1:9/v1", "model": "scripted-1"}
    pool = [
        {"name": "cook", "engine": "openai", "placement": "inline", "config": config},
        {"name": "prover", "engine": "echo", "placement": "inline"},
        {
            "name": "tiny",
            "engine": "transformers",
            "config": local | {"nice": 0, "response_format": "enforce"},
        },
    ]
    return make_plan(ServeArgs.model_validate(arguments(folder / "artifact", pool=pool)))


async def _serve(gateway: Gateway, direct: str) -> Seen:
    options: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "lifespan": "off"}
    server = uvicorn.Server(uvicorn.Config(gateway, log_level="error", **options))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        servers = [f"direct={direct}", f"waypost=http://127.0.0.1:{port}/v1"]
        here = ROOT / "tests" / "e2e" / "clients"
        python = [str(HOME / "bin" / "python"), "-P", str(here / "python_clients.py")]
        node = ["node", str(here / "node_clients.mjs")]
        lines = await asyncio.gather(_output(*python, *servers), _output(*node, *servers))
    finally:
        server.should_exit = True
        await serving
    return _read(line for part in lines for line in part)


async def _output(*command: str) -> list[str]:
    environment = {**os.environ, "WAYPOST_NODE_CLIENTS": str(HOME / "node")}
    environment["PATH"] = f"{environment['PATH']}{os.pathsep}{HOME / 'bin'}"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdout=pipe, stderr=pipe, env=environment
    )
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        raise RuntimeError(f"{command[1]}: {err.decode()[-2000:]}")
    return [line for line in out.decode().splitlines() if line.startswith("{")]


def _read(lines: Iterable[str]) -> Seen:
    values: dict[Key, Any] = {}
    versions: dict[str, str] = {}
    for line in lines:
        data = json.loads(line)
        key = data["client"], data["server"], data["column"], data["mode"]
        values[key] = Failed(data["error"]) if "error" in data else data["seen"]
        versions[data["client"]] = data["version"]
    return Seen(values, versions)


def right(seen: Seen, client: str, server: str, column: str) -> dict[str, bool]:
    """Return whether a client saw the right values, by mode."""
    found = {
        key[3]: value for key, value in seen.values.items() if key[:3] == (client, server, column)
    }
    if column == "local LLM":
        return _local(found)
    wanted = EXPECTED | (INSTRUCTORS if client == "instructor" else {})
    modes = {mode for where, mode in EXPECTED if where == column}
    return {mode: found.get(mode) == wanted[column, mode] for mode in sorted(modes, reverse=True)}


def _local(found: Mapping[str, Any]) -> dict[str, bool]:
    # which letters a random model writes is not known, but both ways give the same
    whole, stream = found.get("whole"), found.get("stream")
    texts = isinstance(whole, str) and len(whole) > 10 and stream in {whole, None}
    made = found.get("structured")
    shape = isinstance(made, dict) and set(made) == {"city", "people"}
    fits = shape and isinstance(made["people"], int) and len(made["city"]) <= 9
    told = {"whole": texts, "stream": texts and stream == whole, "structured": bool(fits)}
    return {mode: ok for mode, ok in told.items() if mode in found}


def cell(seen: Seen, client: str, column: str) -> str:
    """Return a cell of the table: yes, which modes the client can, ``-``, or what is wrong."""
    through = right(seen, client, "waypost", column)
    if column == "local LLM":
        wrong = [mode for mode, ok in through.items() if not ok]
        missing = {"whole", "stream", "structured"} - set(through)
        if wrong:
            return f"WRONG: {', '.join(wrong)}"
        return "yes" if not missing else ", ".join(through)
    alone = right(seen, client, "direct", column)
    if wrong := [mode for mode, ok in through.items() if alone[mode] and not ok]:
        return f"WRONG: {', '.join(wrong)}"
    able = [mode for mode, ok in through.items() if ok]
    return "yes" if len(able) == len(through) else f"{able[0]} only" if able else "-"


def table(seen: Seen) -> str:
    """Return the table, with versions."""
    order = sorted(seen.versions)
    lines = [f"| client | version | {' | '.join(COLUMNS)} |"]
    lines.append("|---|---|" + "---|" * len(COLUMNS))
    for client in order:
        cells = " | ".join(cell(seen, client, column) for column in COLUMNS)
        lines.append(f"| {client} | {seen.versions[client]} | {cells} |")
    return "\n".join(lines)


def faults(seen: Seen) -> list[str]:
    """Return a line for each value that is not the expected one, with what was seen."""
    found = []
    for (client, server, column, mode), value in seen.values.items():
        if not right(seen, client, server, column).get(mode, True):
            found.append(f"{client} / {column} / {mode} / {server}: {value}")
    return found


def inserted(page: str, lines: str) -> str:
    """Return a page with the table between its markers."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{lines}\n\n{END}{after}"


def main() -> None:
    """Write the table into the page that is named."""
    seen = asyncio.run(run())
    for line in faults(seen):
        print(line, file=sys.stderr)
    page = Path(sys.argv[1])
    page.write_text(inserted(page.read_text(encoding="utf-8"), table(seen)), encoding="utf-8")
    print(table(seen))


if __name__ == "__main__":
    main()
