"""Each rule of form broken alone, or with those it cannot be parted from."""

from __future__ import annotations

import pytest

from waypost_rl.format_rules import final_answer, format_faults
from waypost_rl.protocol import Candidates, Malformed, observe
from waypost_rl.transcript import Transcript

POOL = Candidates(["small", "large"])
INFORMATION = "\n\n<information>Bo did.</information>\n\n"
ASK = "<think>Who?</think><search>small:Who did it?</search>"
ANSWER = "<think>So Bo.</think>\n<answer>Bo</answer>"


def episode(*parts: str) -> Transcript:
    """Policy and environment in turn, the policy first."""
    transcript = Transcript()
    for index, part in enumerate(parts):
        transcript = transcript.add("environment" if index % 2 else "policy", part)
    return transcript


@pytest.mark.parametrize(
    "transcript",
    [
        episode(ANSWER),
        episode(ASK, INFORMATION, ANSWER),
        episode(ASK, INFORMATION, ASK, INFORMATION, ANSWER),
        episode("\n" + ANSWER + "\n"),
        episode(ASK.replace("Who did", "At 3:10, who did"), INFORMATION, ANSWER),
        episode(ASK.replace("small", "SMALL"), INFORMATION, ANSWER),
    ],
)
def test_well_formed(transcript: Transcript) -> None:
    assert format_faults(transcript, POOL) == ()


@pytest.mark.parametrize(
    ("transcript", "faults"),
    [
        (episode("<think>a <think>b</think>\n<answer>Bo</answer>"), {"unbalanced", "text_outside"}),
        (episode("<think>a</think></think><answer>Bo</answer>"), {"unbalanced", "text_outside"}),
        (
            episode("<think>a<answer>Bo</answer>"),
            {"unbalanced", "order", "no_think", "text_outside"},
        ),
        (episode("<think>a</think><think>b</think><answer>Bo</answer>"), {"order"}),
        (episode("<answer>Bo</answer>"), {"order", "start", "no_think"}),
        (
            episode(ASK, INFORMATION, "<answer>Bo</answer>"),
            {"order"},
        ),
        (episode("<think>a</think> well, <answer>Bo</answer>"), {"text_outside"}),
        (episode("Hm. " + ANSWER), {"text_outside", "start"}),
        (episode(ANSWER + " done"), {"text_outside", "end"}),
        (episode("<think>a</think>"), {"end", "answer_count"}),
        (episode("<think> </think><answer>Bo</answer>"), {"empty_think"}),
        (episode("<think> ... </think><answer>Bo</answer>"), {"empty_think"}),
        (episode("<think>\u2026</think><answer>Bo</answer>"), {"empty_think"}),
        (episode(ANSWER + ANSWER), {"order", "answer_count"}),
        (episode(ASK, "", ANSWER), {"order", "information_count"}),
        (episode(ASK + INFORMATION + ANSWER), {"forged_information"}),
        (episode(ASK.replace("small", "other"), INFORMATION, ANSWER), {"search_body"}),
        (episode(ASK.replace(":", " "), INFORMATION, ANSWER), {"search_body"}),
        (episode(ASK.replace("Who did it?", "..."), INFORMATION, ANSWER), {"search_body"}),
        (episode(ASK.replace("Who did", "small, who did"), INFORMATION, ANSWER), {"search_body"}),
        (episode(""), {"start", "end", "no_think", "answer_count"}),
    ],
)  # fmt: skip
def test_broken_rules_are_named(transcript: Transcript, faults: set[str]) -> None:
    assert set(format_faults(transcript, POOL)) == faults


def test_the_reference_wants_exactly_one_colon() -> None:
    asked = episode(ASK.replace("Who did", "At 3:10, who did"), INFORMATION, ANSWER)
    assert format_faults(asked, POOL, exactly_one_colon=True) == ("search_body",)


@pytest.mark.parametrize("fault", ["no_action", "no_colon", "unknown_candidate", "empty_query"])
def test_a_corrected_episode_is_still_malformed(fault: str) -> None:
    said = {
        "no_action": "<think>a</think>",
        "no_colon": "<think>a</think><search>x</search>",
        "unknown_candidate": "<think>a</think><search>x:y z</search>",
        "empty_query": "<think>a</think><search>small:</search>",
    }[fault]
    correction = observe(Malformed(fault), None, POOL, len)  # type: ignore[arg-type]
    assert format_faults(episode(said, correction, ANSWER), POOL) != ()


def test_final_answer_is_the_last_one() -> None:
    assert final_answer(episode("<answer>a</answer><answer> b </answer>")) == "b"
    assert final_answer(episode("<think>a</think>")) is None
