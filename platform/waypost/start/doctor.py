"""Check this machine, and what a Serve file needs of it, one line each with what to do."""

from __future__ import annotations

import importlib.util
import os
import platform
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from waypost.config import environment_value, parse, read_yaml, resolve_path, settings
from waypost.contracts.errors import ConfigError, MissingExtraError, WaypostError
from waypost.contracts.records import parse_size
from waypost.contracts.wording import did_you_mean
from waypost.encoders import EncoderSpec
from waypost.encoders.distill import is_there
from waypost.engines import engine_class
from waypost.loading import manifest_of
from waypost.price_library import priced
from waypost.secrets import KeyRing, load_keys
from waypost.serve.config import PoolEntry, ServeArgs
from waypost.serve.config_file import validate_serve_config
from waypost.serve.environments import interpreter
from waypost.serve.faults import engine_faults
from waypost.serve.infer import application_args
from waypost.serve.plan import served_entries
from waypost.start.pool import size_in, try_all
from waypost.start.providers import PROVIDERS
from waypost.storage import place
from waypost.weights import CATALOG, find

State = Literal["ok", "note", "wrong"]
OK: State = "ok"
NOTE: State = "note"
WRONG: State = "wrong"

LEAST_MB = 300
"""Memory of a pool of endpoints without Ray, in MB."""

GRAPH_MB = 2_500
"""Memory of the graph on Ray without local LLMs, in MB."""

BYTES_PER_PARAMETER = 4
"""Local LLMs run in float32 on a CPU."""

PORT = 8000

PARTS = {
    "ray": ("the graph on Ray (`waypost serve`), data runs and sweeps", "serve"),
    "torch": ("local LLMs and the encoder `torch`", "serve"),
    "sklearn": ("`waypost train` of most routers", "train"),
    "genai_prices": ("looking up prices", "serve"),
}
"""Package -> (what needs it, extra that brings it)."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report.

    Attributes:
        what: What was looked at.
        state: ``ok``; ``note``, which may be as wanted; or ``wrong``, with which it cannot serve.
        found: What was found; never a key.
        todo: What to do; empty where there is nothing.
    """

    what: str
    state: State
    found: str
    todo: str = ""


def examine(file: Path | None, *, calls: bool = True) -> Iterator[Check]:
    """Check this machine, and a Serve file's needs.

    Args:
        file: The Serve file; None checks the machine alone.
        calls: Whether each endpoint is asked one short question.
    """
    yield _python()
    yield from _packages()
    args, port = None, PORT
    if file is not None:
        check, args, port = _file(file)
        yield check
    try:
        entries: Sequence[PoolEntry] = () if args is None else served_entries(args)
    except ConfigError as error:
        entries = ()
        yield Check("pool", WRONG, error.faults[0].problem)
    yield _memory(entries)
    yield _port(port)
    ring, check = _ring()
    yield check
    yield from _services(args, entries, ring)
    if args is not None and args.router.name is not None:
        yield from _prices(entries)
    yield from _weights(args, entries)
    yield from _environments(entries)
    if calls:
        yield from _endpoints(entries)


def _python() -> Check:
    found = f"{platform.python_version()} ({sys.executable})"
    if (3, 11) <= sys.version_info[:2] <= (3, 12):
        return Check("python", OK, found)
    return Check("python", WRONG, found, "use Python 3.11 or 3.12")


def _packages() -> Iterator[Check]:
    for package, (purpose, extra) in PARTS.items():
        if importlib.util.find_spec(package) is not None:
            yield Check(f"package {package}", OK, "installed")
            continue
        todo = f'pip install "waypost[{extra}]", if you want {purpose}'
        yield Check(f"package {package}", NOTE, "not installed", todo)


def _file(path: Path) -> tuple[Check, ServeArgs | None, int]:
    """Return the check of a file, its arguments where they are valid, and its port."""
    what = str(path)
    try:
        data = read_yaml(path)
        with suppress(MissingExtraError):  # without Ray its own keys are not checked
            validate_serve_config(path)
        given, where = application_args(data, what)
        args = parse(ServeArgs, given, where)
        if found := engine_faults([entry.model_dump() for entry in args.pool], where):
            raise ConfigError(found)
    except ConfigError as error:
        lines = "; ".join(str(fault).removeprefix(f"{what}: ") for fault in error.faults)
        return Check(what, WRONG, lines, "mend the file"), None, PORT
    options = data.get("http_options")
    port = options.get("port", PORT) if isinstance(options, Mapping) else PORT
    names = ", ".join(entry.name for entry in args.pool)
    return Check(what, OK, f"{len(args.pool)} LLMs: {names}"), args, int(port)


def _memory(entries: Sequence[PoolEntry]) -> Check:
    free = _free_mb()
    if free is None:
        return Check("memory", NOTE, "cannot be read on this system")
    graph = importlib.util.find_spec("ray") is not None
    local = sum(_parameters(entry) for entry in entries) * BYTES_PER_PARAMETER / 1e6
    need = (GRAPH_MB if graph else LEAST_MB) + local
    found = f"{free:,.0f} MB free, about {need:,.0f} MB needed"
    if free >= need:
        return Check("memory", OK, found)
    todo = "free memory, or take local LLMs out of the pool"
    if free >= LEAST_MB + local and graph:
        return Check("memory", NOTE, found, "`waypost serve --local FILE` needs no Ray")
    return Check("memory", WRONG, found, todo)


def _parameters(entry: PoolEntry) -> float:
    """Return the parameters of a local LLM; 0 of an endpoint's, or of one of unknown size."""
    if engine_class(entry.engine).remote:
        return 0.0
    told = size_in(str(entry.config.get("model")))
    return 0.0 if told is None else 1e9 * parse_size(told)


def _free_mb() -> float | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        found = next(line for line in lines if line.startswith("MemAvailable:"))
        free = float(found.split()[1]) / 1024
    except (OSError, StopIteration, ValueError):
        return None
    try:  # a container may have less than the machine
        most = Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8").strip()
        used = Path("/sys/fs/cgroup/memory.current").read_text(encoding="utf-8").strip()
        free = min(free, (float(most) - float(used)) / 2**20)
    except (OSError, ValueError):
        pass
    return free


def _port(port: int) -> Check:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError as error:
            todo = "end what listens there, or give another: --port"
            return Check(f"port {port}", WRONG, f"cannot be used: {error.strerror}", todo)
    return Check(f"port {port}", OK, "free")


def _ring() -> tuple[KeyRing, Check]:
    source = "WAYPOST_API_KEYS_FILE" if environment_value("WAYPOST_API_KEYS_FILE") else "API_KEYS"
    try:
        ring = load_keys()
    except ConfigError as error:
        lines = "; ".join(str(fault) for fault in error.faults)
        return KeyRing(), Check("keys", WRONG, lines, "write the keys in; see .env.example")
    if not ring.services():
        others = [
            provider.key
            for provider in PROVIDERS.values()
            if provider.key is not None and environment_value(provider.key)
        ]
        todo = f"{', '.join(others)} is set, which Waypost does not read: see .env.example"
        return ring, Check("keys", NOTE, "API_KEYS is not set", todo if others else "")
    counts = ", ".join(f"{name} ({ring.count(name)})" for name in ring.services())
    return ring, Check("keys", OK, f"{source}: {counts}")


def _services(
    args: ServeArgs | None, entries: Sequence[PoolEntry], ring: KeyRing
) -> Iterator[Check]:
    wanted: dict[str, list[str]] = {}
    for entry in entries:
        service = entry.config.get("service") if engine_class(entry.engine).sends_keys else None
        if service is not None:
            wanted.setdefault(str(service), []).append(entry.name)
    if args is not None and args.api_keys:
        wanted["waypost-clients"] = ["clients of the gateway"]
    for service, users in wanted.items():
        if ring.count(service):
            yield Check(f"key of {service}", OK, f"present, for {', '.join(users)}")
            continue
        near = did_you_mean(service, ring.services())
        todo = f"add {service} to API_KEYS{near}"
        yield Check(f"key of {service}", WRONG, f"missing, for {', '.join(users)}", todo)


def _prices(entries: Sequence[PoolEntry]) -> Iterator[Check]:
    for entry in entries:
        if entry.prices is not None:
            continue
        what = f"price of {entry.name}"
        try:
            found = priced(entry, entry.name)
        except ConfigError as error:
            yield Check(what, WRONG, error.faults[0].problem, "write input_price and output_price")
            continue
        if found is None:
            yield Check(what, NOTE, "unknown", "write input_price and output_price")
        else:
            yield Check(what, OK, found.source)


def _weights(args: ServeArgs | None, entries: Sequence[PoolEntry]) -> Iterator[Check]:
    for entry in entries:
        model = entry.config.get("model")
        if engine_class(entry.engine).remote or not isinstance(model, str):
            continue
        yield _on_disk(f"weights of {entry.name}", model, partial(find, model))
    folders = [] if args is None else [args.artifact, *args.routers.values()]
    for folder in dict.fromkeys(one for one in folders if one):
        where = place(folder)
        if not isinstance(where, Path):
            continue
        try:
            info = manifest_of(str(resolve_path(where))).encoder
        except WaypostError as error:
            yield Check(f"artifact {folder}", WRONG, str(error), "`waypost train` writes it")
            continue
        yield Check(f"artifact {folder}", OK, "readable")
        spec = None if info is None else EncoderSpec.of(info.id)
        if spec is None or spec.model is None:
            continue
        model = f"{spec.model}#int8" if spec.kind == "onnx" else spec.model
        there: Callable[[], object] = partial(find, model)
        if spec.kind == "static":
            there = partial(is_there, spec.model, spec.dimension or 0)
        yield _on_disk(f"encoder {spec.kind} of {folder}", model, there)


def _on_disk(what: str, model: str, there: Callable[[], object]) -> Check:
    try:
        found = there()
    except WaypostError as error:
        return Check(what, WRONG, str(error).splitlines()[0], "give a folder or a hub name")
    if found:
        return Check(what, OK, f"{model} is on this machine")
    if settings().offline:
        return Check(what, WRONG, f"{model} is not on this machine", "unset WAYPOST_OFFLINE")
    known = CATALOG.get(model)
    size = "" if known is None else f" ({known.download_bytes / 1e6:,.0f} MB)"
    return Check(what, NOTE, f"{model} is fetched at the first start{size}")


def _environments(entries: Sequence[PoolEntry]) -> Iterator[Check]:
    names = dict.fromkeys(e.environment for e in entries if e.environment is not None)
    for name in names:
        try:
            path = interpreter(name, "environment")
        except ConfigError as error:
            problem = error.faults[0].problem.removeprefix(f"environment {name}: ")
            yield Check(f"environment {name}", WRONG, problem, f"make env-{name}")
        else:
            yield Check(f"environment {name}", OK, os.path.relpath(path))


def _endpoints(entries: Sequence[PoolEntry]) -> Iterator[Check]:
    called = {entry.name: entry for entry in entries if engine_class(entry.engine).sends_keys}
    for name, tried in try_all(called).items():
        if tried.problem is None:
            yield Check(f"endpoint {name}", OK, f"answers, {tried.seconds:.2f} s")
            continue
        todo = "check base_url, model and key"
        yield Check(f"endpoint {name}", WRONG, tried.problem, todo)
