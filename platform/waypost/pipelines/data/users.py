"""Make up users of routing data: what they want, what they ask, and what they say of the answers.

The outcomes are real: scores, dollars and tokens of recorded answers. The users are drawn. Their
hidden wants are kept, so that the regret of any choice is exact.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from waypost.contracts.atomic import new_folder
from waypost.contracts.errors import ConfigError, Fault, SchemaError
from waypost.contracts.feedback import events_path, write_events
from waypost.contracts.routing_data import RoutingData, read_routing_data
from waypost.contracts.splits import leaks, stratified_split
from waypost.contracts.tables import split_path
from waypost.contracts.types import Floats
from waypost.pipelines.data.tastes import Scale, Users, draw_users

SHARES = (0.6, 0.15, 0.25)
"""Shares of the users seen in training, for validation, and for test."""

VALIDATION = 0.15
"""Share of the training questions that only the targets of validation users are about."""

TURNS = (2, 3, 4)
"""Turns of a session; each number is as likely as the others."""

_PAIRS = 4000
_STEPS = 5


@dataclass(frozen=True, eq=False)
class Said:
    """Events as columns, all of shape (n_events,); users and questions by index.

    Attributes:
        user, query, llm, other, session, turn: Indices; ``other`` is -1 for a rating.
        value: Rating in [0, 1]; for a preference 1 (left) or 0 (right).
        target: Whether the event is to be predicted, never seen.
    """

    user: NDArray[np.intp]
    query: NDArray[np.intp]
    llm: NDArray[np.intp]
    other: NDArray[np.intp]
    session: NDArray[np.intp]
    turn: NDArray[np.intp]
    value: Floats
    target: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class World:
    """Routing data with made-up users.

    Attributes:
        data: Routing data of each split: train, validation, test.
        users: All users.
        role: (n_users,) index of each user's split.
        scale: How outcomes satisfy.
        utility: By split, (n_users, n, n_llms): each user's true utility of each answer.
        beta: Scale of the Bradley-Terry noise: P(left) = 1 / (1 + exp(-beta * difference)).
        oracle_auc: AUC of the true difference, of which ``beta`` was found.
        said: Events of the users of each split. Visible events are about training questions;
            targets of a split's users are about questions of that split.
    """

    data: dict[str, RoutingData]
    users: Users
    role: NDArray[np.intp]
    scale: Scale
    utility: dict[str, Floats]
    beta: float
    oracle_auc: float
    said: dict[str, Said]


SPLIT_NAMES = ("train", "validation", "test")


def make_world(
    train: RoutingData,
    test: RoutingData,
    *,
    users: int = 200,
    seed: int = 0,
    auc: float = 0.9,
    events: int = 40,
    visible: int = 20,
    targets: int = 40,
) -> World:
    """Draw users and their events.

    Args:
        train: Training questions; a part becomes the validation split.
        test: Test questions, of the same LLMs; those with a near-duplicate in ``train`` are left
            out.
        users: Number of users.
        seed: Seed of everything.
        auc: AUC that the true utilities reach on pairs, which sets the noise.
        events: Events of a user seen in training.
        visible: Visible events of a new user.
        targets: Events of a new user that are to be predicted, all preferences.

    Raises:
        SchemaError: An answer was not measured, or the two splits have different LLMs.
    """
    for data, name in ((train, "train"), (test, "test")):
        if np.isnan(data.quality).any():
            raise SchemaError(f"users: {name} has answers without a score; leave them out")
    test = test.select(~leaks(train.queries, test.queries)).select_llms(train.names)
    if not len(test):
        raise SchemaError("users: every test question has a near-duplicate in train")
    draw = np.random.default_rng(seed)
    rows, held = stratified_split(train, VALIDATION, seed)
    splits = dict(zip(SPLIT_NAMES, (train.select(rows), train.select(held), test), strict=True))
    scale = Scale.of(splits["train"])
    people = draw_users(users, scale.wants, train.names, train.task_names, draw)
    utility = {k: people.utility(scale.satisfaction(v), v.names) for k, v in splits.items()}
    role = np.repeat(np.arange(3), np.round(np.diff([0, *np.cumsum(SHARES)]) * users).astype(int))
    role = draw.permutation(np.resize(role, users))
    beta, reached = noise_scale(utility["train"], auc, draw)
    said = {}
    for number, split in enumerate(SPLIT_NAMES):
        parts = []
        for user in np.flatnonzero(role == number):
            counts = [("train", events if split == "train" else visible, False)]
            counts += [] if split == "train" else [(split, targets, True)]
            for of, count, target in counts:
                chosen = _sessions(splits[of], people, int(user), count, draw)
                parts.append(_events(int(user), *chosen, utility[of], beta, target, draw))
        said[split] = _joined(parts)
    return World(splits, people, role, scale, utility, beta, reached, said)


def noise_scale(utility: Floats, auc: float, draw: np.random.Generator) -> tuple[float, float]:
    """Find the Bradley-Terry scale at which the true utilities reach an AUC on pairs.

    The expected AUC is computed from the probabilities of the choices, on `_PAIRS` random pairs,
    so no choice is drawn; it rises with the scale, which is found by bisection.

    Returns:
        The scale, and the AUC at it.
    """
    n_users, n, m = utility.shape
    user, query = draw.integers(n_users, size=_PAIRS), draw.integers(n, size=_PAIRS)
    left = draw.integers(m, size=_PAIRS)
    right = (left + draw.integers(1, m, size=_PAIRS)) % m
    difference = np.sort(utility[user, query, left] - utility[user, query, right])
    low, high = 1e-3, 1e3
    for _ in range(60):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if _expected_auc(difference, middle) < auc else (low, middle)
    return high, _expected_auc(difference, high)


def _expected_auc(ascending: Floats, beta: float) -> float:
    won = 1 / (1 + np.exp(-np.clip(beta * ascending, -60, 60)))
    lost_before = np.cumsum(1 - won) - (1 - won)
    return float(
        (won * lost_before).sum() / (won.sum() * (1 - won).sum() - (won * (1 - won)).sum())
    )


def _sessions(
    data: RoutingData, people: Users, user: int, count: int, draw: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Draw questions, sessions and turns: a session is about one subject of the user's interest."""
    tasks = np.array(data.task_names)
    left = {name: list(draw.permutation(np.flatnonzero(tasks == name))) for name in people.subjects}
    query: list[int] = []
    session: list[int] = []
    turn: list[int] = []
    number = -1
    while len(query) < count and any(left.values()):
        share = people.interests[user] * [bool(left[name]) for name in people.subjects]
        share = share + 1e-12 * np.array([bool(left[name]) for name in people.subjects])
        subject = people.subjects[draw.choice(len(share), p=share / share.sum())]
        turns = min(int(draw.choice(TURNS)), len(left[subject]), count - len(query))
        number += 1
        for one in range(turns):
            query.append(int(left[subject].pop()))
            session.append(number)
            turn.append(one)
    return np.array(query, np.intp), np.array(session, np.intp), np.array(turn, np.intp)


def _events(
    user: int,
    query: NDArray[np.intp],
    session: NDArray[np.intp],
    turn: NDArray[np.intp],
    utility: Floats,
    beta: float,
    target: bool,
    draw: np.random.Generator,
) -> Said:
    """Draw what a user says: half of the sessions rate one answer a turn, half compare two."""
    own, n = utility[user], len(query)
    m = own.shape[1]
    llm = draw.integers(m, size=n)
    other = (llm + draw.integers(1, m, size=n)) % m if m > 1 else np.full(n, -1)
    rates = draw.random(int(session.max(initial=-1)) + 1) < 0.5
    compares: NDArray[np.bool_] = np.full(n, True) if target else ~rates[session]
    compares &= other >= 0
    # Gumbel noise on each utility is Bradley-Terry noise on every pair
    noisy = own[query] + draw.gumbel(size=(n, m)) / beta
    place = np.arange(n)
    won = noisy[place, llm] > noisy[place, np.maximum(other, 0)]
    level = (noisy[place, llm] - own.mean()) / max(float(own.std()), 1e-9)
    stars = np.round((_STEPS - 1) / (1 + np.exp(-level))) / (_STEPS - 1)
    return Said(
        user=np.full(n, user),
        query=query,
        llm=llm,
        other=np.where(compares, other, -1),
        session=session,
        turn=turn,
        value=np.where(compares, won, stars).astype(float),
        target=np.full(n, target),
    )


def _joined(parts: Sequence[Said]) -> Said:
    return Said(**{key: np.concatenate([getattr(p, key) for p in parts]) for key in vars(parts[0])})


# -- files ----------------------------------------------------------------------------------------


def write_world(source: Path, target: Path, **options: Any) -> dict[str, Any]:
    """Make users over a routing-data folder and write both as a new one.

    Args:
        source: Routing data with the splits train and test.
        target: Written atomically; must not exist. Besides routing data it has
            ``feedback_SPLIT.parquet`` (see `write_events`; column ``role``: visible or target)
            and ``users.parquet`` (hidden weights, tastes and interests, split).
        options: See `make_world`.

    Returns:
        JSON-able: ``users``, ``events`` and ``queries`` by split, ``wants``, ``beta``,
        ``oracle_auc``, ``seed``.

    Raises:
        ConfigError: The target exists, or an option is out of range.
        SchemaError: See `make_world`.
    """
    if not 0.5 < options.get("auc", 0.9) < 1:
        raise ConfigError([Fault("auc", f"is {options['auc']}; expected above .5 and below 1")])
    if options.get("users", 200) < 8:
        raise ConfigError([Fault("users", f"is {options['users']}; expected at least 8")])
    world = make_world(read_routing_data(source), read_routing_data(source, "test"), **options)
    with new_folder(target) as folder:
        for split, data in world.data.items():
            of = "test" if split == "test" else "train"
            table = pq.read_table(split_path(source, of))
            kept = pc.is_in(table["query_id"].cast(pa.string()), pa.array(data.query_ids))
            pq.write_table(table.filter(kept), split_path(folder, split))
            write_events(events_path(folder, split), columns_of(world, split))
        shutil.copyfile(source / "llms.json", folder / "llms.json")
        pq.write_table(_users_table(world), folder / "users.parquet")
    roles = {name: int((world.role == i).sum()) for i, name in enumerate(SPLIT_NAMES)}
    return {
        "seed": options.get("seed", 0),
        "users": roles,
        "events": {name: len(said.user) for name, said in world.said.items()},
        "queries": {name: len(data) for name, data in world.data.items()},
        "wants": list(world.users.wants),
        "beta": world.beta,
        "oracle_auc": world.oracle_auc,
    }


def columns_of(world: World, split: str) -> dict[str, list[Any]]:
    """Return the events of a split's users as columns of a table of events."""
    said, names = world.said[split], world.data["train"].names
    rows: dict[str, list[Any]] = {}
    for i in range(len(said.user)):
        target, rated = bool(said.target[i]), said.other[i] < 0
        user = world.users.user_ids[said.user[i]]
        role = "target" if target else "visible"
        request = f"{user}-{role}-{said.session[i]}-{said.turn[i]}"
        line = {
            "kind": "rating" if rated else "preference",
            "request_id": request,
            "other_request_id": None if rated else f"{request}-right",
            "rating": float(said.value[i]) if rated else None,
            "preference": None if rated else ("left" if said.value[i] > 0.5 else "right"),
            "source": "user",
            "user_id": user,
            "idempotency_key": request,
            "time": float(i),
            "session_id": f"{user}-{role}-{said.session[i]}",
            "turn": int(said.turn[i]),
            "query_id": world.data[split if target else "train"].query_ids[said.query[i]],
            "model_name": names[said.llm[i]],
            "other_model_name": None if rated else names[said.other[i]],
            "role": role,
        }
        for key, value in line.items():
            rows.setdefault(key, []).append(value)
    return rows


def _users_table(world: World) -> pa.Table:
    people = world.users
    hidden = {f"weight_{want}": people.weights[:, k] for k, want in enumerate(people.wants)}
    hidden |= {f"taste_{one}": people.taste[:, k] for k, one in enumerate(people.families)}
    hidden |= {f"interest_{one}": people.interests[:, k] for k, one in enumerate(people.subjects)}
    splits = [SPLIT_NAMES[i] for i in world.role]
    return pa.table({"user_id": list(people.user_ids), "split": splits, **hidden})
