"""Talks as the messages that Gradio's chatbot shows, and as lines about money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from waypost.chat.talk import Answer, Money, Step, Talk, Turn

NO_NAME = ("Answer A", "Answer B")
_STEP_MARKS = {"started": "…", "done": "✓", "failed": "✗", "cancelled": "-"}


@dataclass(frozen=True)
class Shown:
    """A talk as one chatbot shows it.

    Attributes:
        messages: In Gradio's form.
        turns: The turn that each message belongs to.
        ratings: Of each message of the assistant: ``Like``, ``Dislike`` or None.
    """

    messages: list[dict[str, Any]]
    turns: list[int]
    ratings: list[str | None]


def shown(talk: Talk, side: int = 0) -> Shown:
    """Return the messages of one side of a talk."""
    found = Shown([], [], [])
    for number, turn in enumerate(talk.turns):
        answer = turn.answers[side] if side < len(turn.answers) else None
        told = [] if answer is None else _answer(answer, NO_NAME[side] if talk.blind else None)
        found.messages.append(_message("user", turn.question))
        found.messages.extend(told)
        found.turns.extend([number] * (1 + len(told)))
        rating = None if answer is None or answer.rating is None else answer.rating
        thumb = None if rating is None else ("Like" if rating > 0 else "Dislike")
        found.ratings.extend([thumb] * len(told))
    return found


def _message(role: str, text: str, **metadata: Any) -> dict[str, Any]:
    # a plain string would lose the indentation of its first line
    message = {"role": role, "content": [{"type": "text", "text": text}]}
    return {**message, "metadata": metadata} if metadata else message


def _answer(answer: Answer, no_name: str | None) -> list[dict[str, Any]]:
    asking = answer.state == "asking"
    running = asking and not answer.text
    body = "" if no_name else explanation(answer)
    if answer.reasoning:
        body = "\n\n".join(part for part in (body, "**Reasoning**", answer.reasoning) if part)
    head = _message(
        "assistant",
        body or ("The names are shown after the vote." if no_name else "Nothing is known yet."),
        title=headline(answer, no_name),
        status="pending" if running else "done",
    )
    said = answer.text
    if answer.state == "failed":
        # what went wrong names the LLM
        why = "**No answer.**" if no_name else f"**No answer.** {sentence(answer.error or '')}"
        said = f"{said}\n\n{why}" if said else why
    elif answer.state == "stopped":
        said = f"{said}\n\n*Stopped.*" if said else "*Stopped before the first word.*"
    elif answer.state == "answered" and not said.strip():
        said = "*The LLM said nothing.*"
    return [head, _message("assistant", said)] if said else [head]


def headline(answer: Answer, no_name: str | None = None) -> str:
    """Return one line: who answers, for what, how long; without names until a vote."""
    if no_name is not None:
        return no_name if answer.state != "failed" else f"{no_name}: no answer"
    if answer.state == "asking" and not answer.text:
        running = [step for step in answer.steps if step.state == "started"]
        if running:
            return f"{running[-1].purpose}: {running[-1].model} works"
        return f"{answer.model} begins" if answer.decision else "Choosing an LLM"
    parts = [answer.model or answer.asked]
    if answer.state == "failed":
        return f"{parts[0]} · no answer"
    if answer.failed:
        parts.append(f"after {' and '.join(answer.failed)} failed")
    if answer.cost_usd is not None:
        parts.append(usd(answer.cost_usd))
    if answer.output_tokens is not None:
        parts.append(f"{(answer.input_tokens or 0) + answer.output_tokens} tokens")
    if answer.seconds is not None and answer.state != "asking":
        parts.append(f"{answer.seconds:.1f} s")
    return " · ".join(parts)


def explanation(answer: Answer) -> str:
    """Return what stands behind the fold: why, ranking, predictions, calls of an episode."""
    parts = []
    if answer.reason:
        parts.append(f"**Why** {_plain(answer.reason)}")
    if table := _ranking(answer):
        parts.append(table)
    if answer.steps:
        parts.append(_steps(answer.steps))
    if facts := _facts(answer):
        parts.append("  \n".join(facts))
    return "\n\n".join(parts)


def _ranking(answer: Answer) -> str:
    decision = answer.decision
    ranking = decision.get("ranking") or ()
    if not ranking or decision.get("router") == "pinned":
        return ""
    quality, cost = decision.get("quality") or {}, decision.get("cost_usd") or {}
    lines = ["| | LLM | predicted quality | predicted cost |", "|---|---|---:|---:|"]
    for place, name in enumerate(ranking, 1):
        mark = "answers" if name == answer.model else "failed" if name in answer.failed else place
        lines.append(
            f"| {mark} | {_plain(name)} | {_number(quality.get(name))} | {usd(cost.get(name))} |"
        )
    return "\n".join(lines)


def _steps(steps: list[Step]) -> str:
    lines = ["| | step | LLM | time | tokens | cost |", "|---|---|---|---:|---:|---:|"]
    for step in steps:
        tokens = "" if step.output_tokens is None else (step.input_tokens or 0) + step.output_tokens
        seconds = "" if step.seconds is None else f"{step.seconds:.1f} s"
        mark = _STEP_MARKS.get(step.state, "")
        cells = (step.purpose, step.model, seconds, tokens, usd(step.cost_usd))
        lines.append(f"| {mark} | " + " | ".join(_plain(str(cell)) for cell in cells) + " |")
    return "\n".join(lines)


def _facts(answer: Answer) -> list[str]:
    decision = answer.decision
    facts = []
    if answer.cost_usd is not None or answer.predicted_usd is not None:
        actual = usd(answer.cost_usd) or "unknown"
        predicted = usd(answer.predicted_usd) or "unknown"
        dearest = f", {usd(answer.dearest_usd)} at the dearest LLM" if answer.dearest_usd else ""
        facts.append(f"**Cost** {actual}, predicted {predicted}{dearest}")
    if answer.output_tokens is not None:
        facts.append(f"**Tokens** {answer.input_tokens or 0} in, {answer.output_tokens} out")
    if answer.first_token_s is not None and answer.seconds is not None:
        first, whole = f"{answer.first_token_s:.2f} s", f"{answer.seconds:.2f} s"
        facts.append(f"**Time** {first} to the first token, {whole} in all")
    if router := decision.get("router"):
        facts.append(_router(router, decision))
    if retrieved := decision.get("retrieved"):
        facts.append(
            f"**Earlier turns** {retrieved.get('turns', 0)} of {retrieved.get('of', 0)} looked at"
        )
    if answer.attempts > 1:
        facts.append(f"**Calls tried** {answer.attempts}")
    if answer.request_id:
        facts.append(f"**Request** `{answer.request_id}`")
    return facts


def _router(router: str, decision: Mapping[str, Any]) -> str:
    if router == "pinned":
        return "**Router** none: the LLM was asked for by name"
    parts = [f"**Router** {_plain(router)}"]
    if (lam := decision.get("lambda")) is not None:
        parts.append(f"lambda {lam:g}")
    if (confidence := decision.get("confidence")) is not None:
        parts.append(f"confidence {confidence:.2f}")
    if (taken := decision.get("decision_ms")) is not None:
        parts.append(f"decided in {taken:.1f} ms")
    if route_on := decision.get("route_on"):
        parts.append(f"on {route_on}")
    return ", ".join(parts)


def preview(decision: Mapping[str, Any]) -> str:
    """Return one line: whom a router would ask now."""
    name = decision.get("model_name") or decision.get("model") or ""
    cost = usd((decision.get("cost_usd") or {}).get(name))
    quality = _number((decision.get("quality") or {}).get(name))
    more = [f"quality {quality}" if quality else "", cost]
    told = ", ".join(part for part in more if part)
    return f"{name} ({told})" if told else str(name)


def bill(money: Money) -> str:
    """Return what a talk cost beside what the dearest LLM would have cost; empty at 0."""
    unknown = f"; {money.unknown} not counted: no price or no usage" if money.unknown else ""
    if not money.dearest_usd:
        return f"This talk: {usd(money.spent_usd)}{unknown}" if money.spent_usd or unknown else ""
    less = 1 - money.spent_usd / money.dearest_usd
    saved = f", {less:.0%} less" if less >= 0.005 else ""
    return (
        f"This talk: {usd(money.spent_usd)}; always the dearest: {usd(money.dearest_usd)}"
        f"{saved}{unknown}"
    )


def verdict(talk: Talk, turn: Turn) -> str:
    """Return what the vote on a turn was, with both names, or why there can be none."""
    if turn.vote is None:
        lacks = any(not answer.text for answer in turn.answers)
        return "One side did not answer: ask again to compare." if lacks else ""
    left, right = (answer.model or answer.asked for answer in turn.answers)
    told = {
        "left": f"{left} is better than {right}",
        "right": f"{right} is better than {left}",
        "tie": f"{left} and {right}: a tie",
        "both_bad": f"{left} and {right}: both bad",
    }
    return f"Your vote: {told[turn.vote]}."


def sentence(text: str) -> str:
    """Return a message as a sentence: it begins with a capital, in one line."""
    line = " ".join(text.split())
    return f"{line[:1].upper()}{line[1:]}"


def usd(value: float | None) -> str:
    """Return dollars with three digits, never in scientific notation; empty where unknown."""
    if value is None:
        return ""
    if value == 0:
        return "$0"
    return f"${Decimal(f'{value:.3g}'):f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _plain(text: str) -> str:
    """Return a text that Markdown shows as it is, in one line."""
    escaped = "".join(f"\\{char}" if char in "\\`*_[]<>|$#" else char for char in text)
    return " ".join(escaped.split())
