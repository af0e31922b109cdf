"""One contract of a served graph: the gateway in one process keeps it as the graph on Ray does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import requests

from support.gateway import ALGEBRA, COOKING, chat, knn_artifact
from support.served import application
from support.ways import WAYS, Way, serving

CHAT = "/v1/chat/completions"
IN_TIME_S = 60.0


@pytest.fixture(scope="module", params=WAYS)
def way(request, tmp_path_factory) -> Iterator[Way]:
    folder = tmp_path_factory.mktemp("way")
    pool = [{"name": name, "engine": "echo"} for name in ("cook", "prover", "tiny")]
    pool[1]["config"] = {"fail_with": "500"}
    app = application(
        "way",
        knn_artifact(folder / "artifact"),
        [{**entry, "placement": "inline"} for entry in pool],
        feedback_dir=str(folder / "feedback"),
        router={"placement": "inline"},
    )
    with serving(request.param, app, folder) as found:
        yield found


def post(way: Way, path: str, body: dict[str, Any]) -> requests.Response:
    return requests.post(way.url + path, json=body, timeout=IN_TIME_S)


def get(way: Way, path: str) -> requests.Response:
    return requests.get(way.url + path, timeout=IN_TIME_S)


def test_a_question_goes_to_its_llm(way):
    reply = post(way, CHAT, chat(COOKING))
    assert (reply.status_code, reply.headers["x-waypost-model"]) == (200, "cook")
    assert reply.headers["x-waypost-router"] == "knnrouter"
    assert reply.json()["choices"][0]["message"]["content"] == COOKING
    assert reply.json()["usage"]["waypost"]["cost_usd"] > 0


def test_a_failed_llm_gives_way_to_the_next_of_the_ranking(way):
    reply = post(way, CHAT, chat(ALGEBRA))
    assert reply.status_code == 200
    assert reply.headers["x-waypost-model"] != "prover"
    assert "prover" in reply.headers["x-waypost-reason"]


def test_a_stream_ends_with_its_usage(way):
    body = chat(COOKING, stream=True, stream_options={"include_usage": True})
    *events, done = [event for event in post(way, CHAT, body).text.split("\n\n") if event]
    assert done == "data: [DONE]"
    told = [json.loads(event.removeprefix("data: ")) for event in events]
    text = "".join(c["delta"].get("content", "") for e in told for c in e["choices"])
    assert text == COOKING
    assert told[-1]["usage"]["waypost"]["model"] == "cook"


def test_what_is_wrong_is_told_with_its_place(way):
    found = [
        post(way, CHAT, body)
        for body in (chat(model="nobody"), chat(temperature=9), chat(waypost={"max_cost_usd": 0}))
    ]
    told = [(one.status_code, one.json()["error"]["param"]) for one in found]
    assert told == [(404, "model"), (400, "temperature"), (400, "waypost.max_cost_usd")]
    assert get(way, "/nothing").status_code == 404
    assert get(way, CHAT).status_code == 405


def test_a_decision_is_told_without_an_answer(way):
    told = post(way, "/v1/route", {"query": COOKING}).json()
    assert (told["model_name"], set(told["ranking"])) == ("cook", {"cook", "prover", "tiny"})
    assert told["router"] == "knnrouter"


def test_an_answer_is_rated_once(way):
    answer = post(way, CHAT, chat(COOKING))
    body = {"request_id": answer.json()["id"], "rating": 1.0}
    assert post(way, "/v1/feedback", body).status_code == 200
    assert post(way, "/v1/feedback", {**body, "request_id": "nobody"}).status_code == 404


def test_its_state_and_its_numbers_are_told(way):
    assert get(way, "/healthz").json() == {"status": "ok"}
    assert get(way, "/readyz").json() == {"status": "ready", "loading_s": {}, "failed": {}}
    assert "waypost_requests_total" in get(way, "/metrics").text
    assert "/v1/route" in get(way, "/openapi.json").json()["paths"]
    ids = {model["id"] for model in get(way, "/v1/models").json()["data"]}
    assert ids == {"auto", "knnrouter", "cook", "prover", "tiny"}


def test_openais_own_client(way):
    base = f"{way.url}/v1"
    with openai.OpenAI(api_key="none", base_url=base, max_retries=0) as client:
        messages = [{"role": "user", "content": COOKING}]
        answer = client.chat.completions.create(model="auto", messages=messages)
        assert (answer.model, answer.choices[0].message.content) == ("cook", COOKING)
        stream = client.chat.completions.create(model="tiny", messages=messages, stream=True)
        text = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
        assert text == COOKING
        assert client.completions.create(model="tiny", prompt="a b").choices[0].text == "a b"


def test_a_user_config_changes_decisions_while_it_serves(way):
    for given, wanted in (({"policy": {"allowed_models": ["tiny"]}}, "tiny"), ({}, "cook")):
        way.change(given)
        until = time.monotonic() + IN_TIME_S
        while post(way, CHAT, chat(COOKING)).headers["x-waypost-model"] != wanted:
            assert time.monotonic() < until
            time.sleep(0.1)
