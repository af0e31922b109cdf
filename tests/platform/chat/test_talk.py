"""What is said on the page: answers from the gateway's events, turns, money."""

from __future__ import annotations

from typing import Any

import pytest

from waypost.chat.talk import Answer, Money, Talk

DECISION = {
    "model_name": "good",
    "ranking": ["good", "cheap"],
    "quality": {"good": 0.7, "cheap": 0.4},
    "cost_usd": {"good": 2e-5, "cheap": 1e-6},
    "reason": "best predicted quality (0.700)",
    "router": "knnrouter",
    "lambda": 0.2,
}


def delta(**fields: Any) -> dict[str, Any]:
    return {"id": "chatcmpl-1f", "model": "cheap", "choices": [{"index": 0, "delta": fields}]}


def step(number: int, state: str, **more: Any) -> dict[str, Any]:
    told = {"number": number, "purpose": "plan", "model": "good", "state": state, **more}
    return {"model": "good", "choices": [], "waypost": {"step": told}}


def answered(**fields: Any) -> Answer:
    return Answer(**{"state": "answered", "text": "Yes.", "request_id": "1f", **fields})


def test_an_answer_takes_what_the_stream_tells() -> None:
    answer = Answer()
    answer.take({"model": "good", "choices": [], "waypost": {"decision": DECISION}})
    assert (answer.model, answer.predicted_usd, answer.reason) == (
        "good", 2e-5, "best predicted quality (0.700)",
    )  # fmt: skip
    for fields in ({"role": "assistant"}, {"reasoning_content": "Hm. "}, {"content": "Four"}):
        answer.take(delta(**fields))
    answer.take(delta(content="."))
    told = {
        "model": "cheap", "cost_usd": 9e-7, "predicted_cost_usd": 1e-6, "attempts": 2,
        "failed": ["good"], "reason": "good did not answer; cheap answers", "seconds": 2.5,
        "first_token_s": 0.4, "same_tokens_usd": {"good": 1.9e-5, "cheap": 9e-7, "free": None},
        "session_token": "2:cheap",
    }  # fmt: skip
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "waypost": told}
    answer.take({"model": "cheap", "choices": [], "usage": usage})
    answer.end("answered")
    assert (answer.text, answer.reasoning, answer.model) == ("Four.", "Hm. ", "cheap")
    assert (answer.cost_usd, answer.predicted_usd, answer.dearest_usd) == (9e-7, 1e-6, 1.9e-5)
    assert (answer.input_tokens, answer.output_tokens, answer.attempts) == (12, 3, 2)
    assert (answer.failed, answer.request_id) == (["good"], "1f")
    assert answer.reason == "good did not answer; cheap answers"
    assert (answer.seconds, answer.first_token_s) == (2.5, 0.4)


def test_the_calls_of_an_episode_are_kept_by_their_number() -> None:
    answer = Answer()
    for event in (
        step(1, "started"),
        step(2, "started"),
        step(2, "done", seconds=1.5),
        step(1, "done", cost_usd=1e-6),
    ):
        answer.take(event)
    assert [(one.number, one.state) for one in answer.steps] == [(1, "done"), (2, "done")]
    answer.take(step(1, "started"))  # its router was replaced
    assert [(one.number, one.state) for one in answer.steps] == [(1, "started")]


def test_only_the_first_end_of_an_answer_counts() -> None:
    answer = Answer()
    answer.end("failed", "the gateway cannot be reached")
    answer.end("stopped")
    assert (answer.state, answer.error) == ("failed", "the gateway cannot be reached")


def test_an_llm_gets_what_its_own_side_has_said() -> None:
    talk = Talk(view="side", names=["good", "cheap"])
    talk.ask("One?").answers = [answered(text="left"), answered(text="right")]
    talk.ask("Two?").answers = [answered(text=""), answered(text="right again")]
    talk.ask("Three?")
    assert [m["content"] for m in talk.messages(0)] == ["One?", "left", "Three?"]
    assert [m["content"] for m in talk.messages(1)] == [
        "One?", "right", "Two?", "right again", "Three?",
    ]  # fmt: skip


def test_asking_again_drops_what_followed_and_keeps_the_old_answer() -> None:
    talk = Talk()
    talk.ask("One?").answers = [answered(text="first", session_token="1:a")]
    talk.ask("Two?").answers = [answered(session_token="2:b")]
    assert talk.session_token(0) == "2:b"
    turn = talk.again(0, "One, please?")
    assert [one.question for one in talk.turns] == ["One, please?"]
    assert [one.text for one in turn.discarded] == ["first"]
    assert talk.session_token(0) is None


def test_undo_returns_the_question() -> None:
    talk = Talk()
    talk.ask("One?")
    assert (talk.undo(), talk.undo()) == ("One?", None)


def test_money_is_the_sum_and_counts_what_is_unknown() -> None:
    money = Money()
    money.add(answered(cost_usd=1e-6, dearest_usd=4e-6))
    money.add(answered(cost_usd=2e-6, dearest_usd=4e-6))
    money.add(answered())
    money.add(Answer(state="failed"))
    assert money.spent_usd == pytest.approx(3e-6)
    assert money.dearest_usd == pytest.approx(8e-6)
    assert money.unknown == 1


@pytest.mark.parametrize(
    ("question", "title"),
    [("Hello\n  there", "Hello there"), ("x" * 60, "x" * 47 + "…")],
)
def test_a_talk_is_called_by_its_first_question(question: str, title: str) -> None:
    talk = Talk()
    assert talk.title == "New talk"
    talk.ask(question)
    assert talk.title == title
