"""Talks as messages of the chatbot, and as lines about money."""

from __future__ import annotations

import pytest

from waypost.chat.render import bill, explanation, headline, preview, shown, usd, verdict
from waypost.chat.talk import Answer, Money, Step, Talk

DECISION = {
    "ranking": ["good", "cheap|er"],
    "quality": {"good": 0.7, "cheap|er": 0.4},
    "cost_usd": {"good": 2e-5, "cheap|er": 1e-6},
    "router": "knnrouter",
    "lambda": 0.2,
    "confidence": 0.9,
    "decision_ms": 4.52,
    "route_on": "retrieval",
    "retrieved": {"turns": 2, "of": 14},
}


def full(**fields: object) -> Answer:
    plain = {
        "state": "answered", "text": "Four.", "model": "good", "decision": DECISION,
        "reason": "best predicted quality", "input_tokens": 12, "output_tokens": 3,
        "cost_usd": 1.5e-5, "predicted_usd": 2e-5, "dearest_usd": 1.5e-5, "seconds": 2.345,
        "first_token_s": 0.4, "attempts": 1, "request_id": "1f",
    }  # fmt: skip
    return Answer.model_validate({**plain, **fields})


def texts(talk: Talk, side: int = 0) -> list[str]:
    return [message["content"][0]["text"] for message in shown(talk, side).messages]


def test_the_headline_says_who_answered_for_what_and_how_long() -> None:
    assert headline(full()) == "good · $0.000015 · 15 tokens · 2.3 s"
    failed_over = full(model="cheap", failed=["good"], cost_usd=None)
    assert headline(failed_over) == "cheap · after good failed · 15 tokens · 2.3 s"


def test_the_headline_follows_the_steps() -> None:
    answer = Answer()
    assert headline(answer) == "Choosing an LLM"
    answer.steps = [Step(number=1, purpose="plan", model="good", state="started")]
    assert headline(answer) == "plan: good works"
    answer.steps, answer.decision, answer.model = [], DECISION, "good"
    assert headline(answer) == "good begins"


def test_behind_the_fold_stands_everything_that_is_known() -> None:
    told = {"purpose": "plan", "model": "good", "state": "done", "seconds": 1.25}
    step = Step(number=1, input_tokens=5, output_tokens=2, **told)
    text = explanation(full(steps=[step]))
    for part in (
        "**Why** best predicted quality",
        "| answers | good | 0.700 | $0.00002 |",
        "| 2 | cheap\\|er | 0.400 | $0.000001 |",
        "| ✓ | plan | good | 1.2 s | 7 |",
        "**Cost** $0.000015, predicted $0.00002, $0.000015 at the dearest LLM",
        "**Tokens** 12 in, 3 out",
        "**Time** 0.40 s to the first token, 2.35 s in all",
        "knnrouter, lambda 0.2, confidence 0.90, decided in 4.5 ms, on retrieval",
        "**Earlier turns** 2 of 14 looked at",
        "**Request** `1f`",
    ):
        assert part in text


def test_an_llm_that_was_asked_for_has_no_ranking() -> None:
    text = explanation(full(decision={"ranking": ["good"], "router": "pinned"}))
    assert "predicted quality |" not in text
    assert "none: the LLM was asked for by name" in text


def test_a_battle_hides_every_name_until_the_vote() -> None:
    talk = Talk(view="battle", names=["good", "cheap"])
    turn = talk.ask("2 + 2?")
    turn.answers = [full(), full(model="cheap", text="Five.", reasoning="Perhaps good knows.")]
    for side, name in enumerate(("Answer A", "Answer B")):
        messages = shown(talk, side).messages
        assert messages[1]["metadata"]["title"] == name
        assert "knnrouter" not in str(messages)
    assert "good" not in str(shown(talk, 0).messages)
    talk.revealed, turn.vote = True, "left"
    assert shown(talk, 0).messages[1]["metadata"]["title"].startswith("good ·")
    assert verdict(talk, turn) == "Your vote: good is better than cheap."


@pytest.mark.parametrize(
    ("answer", "last"),
    [
        (full(state="failed", text="", error="good did not answer."),
         "**No answer.** Good did not answer."),
        (full(state="failed", text="Fo", error="It broke off."),
         "Fo\n\n**No answer.** It broke off."),
        (full(state="stopped", text="Fo"), "Fo\n\n*Stopped.*"),
        (full(state="stopped", text=""), "*Stopped before the first word.*"),
        (full(text=""), "*The LLM said nothing.*"),
        (full(text="    code"), "    code"),
    ],
)  # fmt: skip
def test_every_end_of_an_answer_is_said(answer: Answer, last: str) -> None:
    talk = Talk()
    talk.ask("2 + 2?").answers = [answer]
    assert texts(talk)[-1] == last


def test_each_message_knows_its_turn_and_its_thumb() -> None:
    talk = Talk()
    talk.ask("One?").answers = [full(rating=1.0)]
    talk.ask("Two?").answers = [Answer()]
    found = shown(talk)
    assert found.turns == [0, 0, 0, 1, 1]
    assert found.ratings == ["Like", "Like", None]
    assert found.messages[-1]["metadata"]["status"] == "pending"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0, "$0"), (2.284e-5, "$0.0000228"), (0.5, "$0.5"), (12345.6, "$12300")],
)
def test_dollars_are_never_in_scientific_notation(value: float | None, text: str) -> None:
    assert usd(value) == text


@pytest.mark.parametrize(
    ("money", "text"),
    [
        (Money(), ""),
        (Money(spent_usd=1e-6, dearest_usd=4e-6),
         "This talk: $0.000001; always the dearest: $0.000004, 75% less"),
        (Money(spent_usd=4e-6, dearest_usd=4e-6, unknown=1),
         "This talk: $0.000004; always the dearest: $0.000004; 1 not counted: "
         "no price or no usage"),
    ],
)  # fmt: skip
def test_the_bill_stands_beside_always_the_dearest(money: Money, text: str) -> None:
    assert bill(money) == text


def test_the_preview_names_the_llm_with_its_predictions() -> None:
    told = {**DECISION, "model_name": "good"}
    assert preview(told) == "good (quality 0.700, $0.00002)"
    assert preview({"model_name": "good"}) == "good"
