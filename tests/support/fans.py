"""Users who each prefer one LLM whatever the question, and a personal router that learned it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from waypost.contracts.feedback import UserEvents
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
