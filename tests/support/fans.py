"""Users who each prefer one LLM whatever the question, and a personal router that learned it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from waypost.contracts.feedback import UserEvents, events_path, write_events
from waypost.contracts.routing_data import RoutingData
from waypost.encoders import make_encoder
from waypost.loading import save_router
from waypost.registry import make_router
from waypost.testing.synthetic import ENCODER_ID, planted


def with_fans(n_users: int = 18, each: int = 24, seed: int = 0) -> RoutingData:
    """Return planted data whose users each prefer one LLM, whatever the question."""
    data, draw = planted(120), np.random.default_rng(seed)
    lines = []
    for user in range(n_users):
        for turn in range(each):
            left, right = draw.permutation(3)[:2]
            liked = user % 3
            value = 0.5 if liked not in (left, right) else float(left == liked)
            if turn % 3 == 0:
                right, value = -1, float(left == liked)
            lines.append((user, draw.integers(120), left, right, value, user * 100 + turn // 4))
    user, query, llm, other, value, session = np.array(lines).T
    events = UserEvents(
        tuple(f"user {i}" for i in range(n_users)),
        user.astype(int), query.astype(int), llm.astype(int), other.astype(int), value,
        session.astype(int),
    )  # fmt: skip
    return replace(data, events=events)


def fitted_on_fans(name: str, data: RoutingData, steps: int = 150) -> Any:
    """Return a personal router that learned from `with_fans`."""
    made: Any = make_router(name, {"steps": steps, "width": 16, "half": 1.0})
    made.fit(data)
    made.encoder = make_encoder(ENCODER_ID)
    return made


def fans_artifact(folder: Path, name: str = "gmtrouter") -> Path:
    """Save a router that learned quickly, from few users."""
    data = with_fans(12, 16)
    save_router(fitted_on_fans(name, data, 40), folder, data)
    return folder


def write_fans(folder: Path, data: RoutingData, n_users: int = 6, each: int = 8) -> None:
    """Write preferences of users who each like one LLM, beside the training split of a folder."""
    names, rows = data.names, [(user, turn) for user in range(n_users) for turn in range(each)]
    columns: dict[str, list[object]] = {
        "kind": ["preference"] * len(rows),
        "request_id": [f"left {user} {turn}" for user, turn in rows],
        "other_request_id": [f"right {user} {turn}" for user, turn in rows],
        "preference": ["left"] * len(rows),
        "user_id": [f"user {user}" for user, _ in rows],
        "query_id": [data.query_ids[(7 * user + turn) % len(data)] for user, turn in rows],
        "model_name": [names[user % 3] for user, _ in rows],
        "other_model_name": [names[(user + 1 + turn % 2) % 3] for user, turn in rows],
    }
    write_events(events_path(folder, "train"), columns)
