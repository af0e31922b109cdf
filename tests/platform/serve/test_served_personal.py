"""A served personal router: its deployment asks the owner of the folder what users said."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import requests

from support.fans import fans_artifact
from support.gateway import COOKING, chat
from support.served import application, served
from waypost.feedback import forget_user
from waypost.serve.backends.owned_states import LOOK_S

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(600),
    # Ray's own processes, where it has to start its node again
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_what_a_user_says_reaches_the_routers_process_and_is_forgotten(tmp_path: Path) -> None:
    pool = [
        {"name": n, "engine": "echo", "placement": "inline"} for n in ("cook", "prover", "tiny")
    ]
    folder = tmp_path / "feedback"
    app = application(
        "main", fans_artifact(tmp_path / "artifact"), pool, feedback_dir=str(folder),
        store_place="head", router={"placement": "deployment"},
    )  # fmt: skip
    with served({"applications": [app | {"route_prefix": "/"}]}, tmp_path) as url:

        def post(path: str, body: dict[str, Any]) -> requests.Response:
            reply = requests.post(f"{url}/v1/{path}", json=body, timeout=60)
            assert reply.status_code == 200, reply.text
            return reply

        def choice(user: str) -> str:
            time.sleep(2 * LOOK_S)
            return post("route", chat(f"{COOKING} And then?", user=user)).json()["model_name"]

        before = choice("ann")
        assert before != "tiny"
        for i in range(6):
            asked = [
                post("chat/completions", chat(f"{COOKING} {i}", user="ann", **how))
                for how in ({"model": "tiny"}, {"waypost": {"allowed_models": ["cook", "prover"]}})
            ]
            left, right = (reply.headers["x-waypost-request-id"] for reply in asked)
            post("feedback", {"request_id": left, "other_request_id": right, "preference": "left"})
        assert (choice("ann"), choice("bob")) == ("tiny", before)
        assert forget_user(folder, "ann").turns == 6
        assert choice("ann") == before
