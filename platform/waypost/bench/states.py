"""Measure the store of users' states with many users: what an event and a decision wait for.

A file is filled with turns on the training questions of routing data, and removed at the end. The
states are those of a router that learned from made-up users. Users who are on disk are read after
the file left the memory of the operating system.

Example: waypost bench states --data ../shared/data/mmlu_pro --users 100000
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from pydantic import DirectoryPath, Field

from waypost.bench import harness
from waypost.bench.harness import Aim, Result, Table, Tell, at_most, figure, percentiles
from waypost.bench.personal import events_of
from waypost.contracts.records import Query
from waypost.contracts.routing_data import RoutingData, read_routing_data
from waypost.encoders import make_encoder
from waypost.learning.user_states import HOT, UserStates
from waypost.learning.user_turns import KEPT, UserTurn, turns_path
from waypost.pipelines.data.users import make_world
from waypost.registry import make_router

BATCH = 500
"""Users of one transaction while the file is filled."""

_SEEN = 16
_MB = 2**20


class Options(harness.Options):
    """Options of ``waypost bench states``.

    Attributes:
        steps: Maximum number of training steps of the router.
    """

    data: DirectoryPath = Field(description="Routing data with the splits train and test.")
    users: int = Field(1_000_000, ge=10, description="Users in the file.")
    turns: int = Field(3, ge=1, le=KEPT, description="Turns of each user.")
    router: str = Field("gmtrouter", description="The personal router.")
    hot: int = Field(HOT, ge=1, description="Users whose state is kept in memory.")
    asked: int = Field(2_000, ge=5, description="Calls of each kind that are timed.")
    encoder: str = Field("static", description="Query encoder.")
    folder: Path | None = Field(None, description="Folder for the file; else a temporary one.")
    steps: int = 60


QUICK = {"users": 2_000, "asked": 100, "hot": 200, "steps": 20}


@dataclass(frozen=True)
class Made:
    """A fitted router and what turns are made of: questions (n, d) and names of LLMs."""

    router: Any
    data: RoutingData
    rows: Any
    names: Sequence[str]
    draw: np.random.Generator

    def turn(self, key: str) -> UserTurn:
        """Return a random turn: a rating, or a preference between two LLMs."""
        left, right = self.draw.permutation(len(self.names))[:2]
        row, value = self.rows[self.draw.integers(len(self.rows))], float(self.draw.random() < 0.5)
        other = self.names[right] if self.draw.random() < 0.5 else None
        return UserTurn(key, row, self.names[left], value, other)


def run(options: Options, tell: Tell) -> Result:
    """Fill a file, time what is asked of it, and remove it.

    Returns:
        Figures: ``wall_ms`` and ``cpu_ms`` (kind of call -> p50, p95, p99), ``file_bytes``,
        ``bytes_a_turn``, ``turns_a_second``, ``memory_mb``.

    Raises:
        WaypostError: See `make_world`, `read_routing_data` and `UserStates`.
    """
    made = _made(options)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="waypost-bench-") as folder:
        path = turns_path(Path(folder), made.router.encoder.id)
        with UserStates(
            path, made.router.user_state, made.router.encoder.id, hot=options.hot
        ) as states:
            took = _fill(states, options, made, tell)
            size = sum(one.stat().st_size for one in Path(folder).iterdir())
            wall, cpu, memory = _timed(states, path, options, made)
    n_turns = options.users * options.turns
    kept = {
        "users": f"{options.users:,}",
        "turns": f"{n_turns:,}",
        "file, GB": figure(size / 1e9),
        "bytes a turn": figure(size / n_turns),
        "turns stored a second": figure(n_turns / took),
        f"memory of {options.hot:,} states, MB": figure(memory["hot"]),
        "of as many again, MB": figure(memory["further"]),
    }
    facts = (
        f"Embeddings of {made.rows.shape[1]} numbers (4 bytes each); states of {options.router}; "
        f"{options.asked} calls of each kind."
    )
    figures = {
        "wall_ms": wall,
        "cpu_ms": cpu,
        "file_bytes": size,
        "bytes_a_turn": size / n_turns,
        "turns_a_second": n_turns / took,
        "memory_mb": memory,
    }
    rows = [[key, value] for key, value in kept.items()]
    return Result([*_tables(wall, cpu), Table("Size", ("", "value"), rows)], facts, aims(wall, cpu),
                  figures)  # fmt: skip


def _made(options: Options) -> Made:
    train, test = (read_routing_data(options.data, split) for split in ("train", "test"))
    encoder = make_encoder(options.encoder)
    world = make_world(train, test, users=_SEEN, seed=0)
    part = world.data["train"]
    rows = encoder.encode(part.queries)
    data = replace(part.with_embeddings(rows, encoder.id), events=events_of(world))
    router: Any = make_router(options.router, {"steps": options.steps, "seed": 0})
    router.fit(data)
    router.encoder = encoder
    return Made(router, data, rows, part.names, np.random.default_rng(0))


def _fill(states: UserStates, options: Options, made: Made, tell: Tell) -> float:
    """Store the turns of all users; return the seconds of storing."""
    took = 0.0
    for first in range(0, options.users, BATCH):
        turns = [
            (f"user {user}", made.turn(f"{user} {i}"))
            for user in range(first, min(first + BATCH, options.users))
            for i in range(options.turns)
        ]
        took += harness.seconds(lambda turns=turns: states.add_all(turns))  # type: ignore[misc]
        tell.bar(first, options.users, "users")
    tell.bar(options.users, options.users, "users")
    return took


Times = dict[str, dict[str, float]]


def _timed(
    states: UserStates, path: Path, options: Options, made: Made
) -> tuple[Times, Times, dict[str, float]]:
    """Return milliseconds and CPU milliseconds of calls by kind, and MB of states."""
    n, hot = options.asked, min(options.hot, options.users // 2)
    order = [f"user {i}" for i in made.draw.permutation(options.users)]
    warm, further, left = order[:hot], order[hot : 2 * hot], order[2 * hot :] or order
    cold, last = left[:n] or left, left[n : 2 * n] or left[-n:]
    memory = {"hot": _grown(lambda: [states.get(one) for one in warm])}
    query = [Query(text) for text in made.data.queries[:n]]
    busy = "a busy user"
    states.add_all([(busy, made.turn(str(i))) for i in range(KEPT)])

    def decide(i: int) -> None:
        row = i % len(query)
        state = states.get(warm[i % hot])
        made.router.decide([query[row]], made.rows[row : row + 1], [state])

    turns = [made.turn(f"new {i}") for i in range(n)]
    wall, cpu = Times(), Times()

    def add(kind: str, ask: Callable[[int], Any], count: int) -> None:
        found = [_both(ask, i) for i in range(count)]
        wall[kind], cpu[kind] = (percentiles([one[k] for one in found]) for k in (0, 1))

    add("state of a user in memory", lambda i: states.get(warm[i % hot]), n)
    add("decision with it, question embedded", decide, n)
    add("no state: an unknown user", lambda i: states.get(f"nobody {i}"), n)
    add("turn of a user in memory, state anew", lambda i: states.add(warm[i % hot], turns[i]), n)
    add(f"the same with {KEPT} turns kept", lambda i: states.add(busy, turns[i]), n)
    memory["further"] = _grown(lambda: [states.get(one) for one in further])
    _leave_memory(path)
    add("state of a user on disk", lambda i: states.get(cold[i]), len(cold))
    _leave_memory(path)
    add("turn of a user on disk, state anew", lambda i: states.add(last[i], turns[i]), len(last))
    add("forgetting a user", lambda i: states.forget(last[i]), len(last))
    return wall, cpu, memory


def _both(ask: Callable[[int], Any], i: int) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.thread_time()
    ask(i)
    used = time.thread_time() - cpu
    return 1e3 * (time.perf_counter() - wall), 1e3 * used


def _grown(work: Callable[[], Any]) -> float:
    """Return the MB by which the memory of this process is larger after some work."""
    process = psutil.Process()
    before = process.memory_info().rss
    work()
    return float(process.memory_info().rss - before) / _MB


def _leave_memory(path: Path) -> None:
    """Tell the operating system that the file is not needed: the next read is of the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)


def _tables(wall: Times, cpu: Times) -> list[Table]:
    heads = ("call", "p50, ms", "p99, ms", "CPU p50, ms", "CPU p99, ms")
    rows = [
        [kind, *(figure(part[kind][p]) for part in (wall, cpu) for p in ("p50", "p99"))]
        for kind in wall
    ]
    return [Table("Calls", heads, rows)]


def aims(wall: Times, cpu: Times) -> list[Aim]:
    """Compare with the project's aims."""
    anew, used = (
        max(found[p] for kind, found in part.items() if kind.startswith(("turn", "the same")))
        for part, p in ((wall, "p50"), (cpu, "p99"))
    )
    decision = wall["decision with it, question embedded"]["p50"]
    return [
        at_most("an event stored, the state made anew, slowest kind, p50, ms", anew, 5),
        at_most("the same, CPU p99, ms", used, 5),
        at_most("a decision with the user's state, p50, ms", decision, 1.5),
    ]
