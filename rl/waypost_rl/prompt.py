"""The prompt of the policy: the first user message of an episode."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from waypost.contracts.errors import SchemaError
from waypost.contracts.records import LLMInfo
from waypost_rl.protocol import TAGS, defuse

MAX_SEARCHES = 4
"""Maximum searches of an episode, as in the paper. One more generation follows for the answer."""

BUDGETS: Mapping[str, float] = {"high": 0.0, "medium": 0.7, "low": 0.9}
"""Word in the prompt -> cost weight alpha. One policy can then serve several cost weights."""

_RULES = """\
Answer the question at the end. You may ask other models for help.

Think first, inside <think> and </think>, and think again after every reply you get.
To ask a model, write <search>NAME:QUERY</search> with the name of one model from the list, \
a colon, and a question of your own that stands by itself. Write a real name and a real \
question; do not repeat the name inside the question.
The reply comes inside <information> and </information>. Never write these tags yourself.
You may ask up to {searches} times, or not at all.
When you know the answer, write it, short and without explanation, inside <answer> and </answer>.

Models:
{models}
{budget}
Question: {question}
"""


def render_prompt(
    question: str,
    descriptions: Mapping[str, str],
    *,
    max_searches: int = MAX_SEARCHES,
    budget: str | None = None,
) -> str:
    """Return the first user message of an episode.

    Args:
        question: The question to answer.
        descriptions: Candidate name -> its strengths, in the pool's order.
        max_searches: Searches allowed, at least 1.
        budget: A key of `BUDGETS`, or None for a prompt without a budget line.

    Raises:
        SchemaError: The pool is empty, a description contains a protocol tag, the budget is
            unknown or no search is allowed.
    """
    if not descriptions or max_searches < 1:
        raise SchemaError("Router-R1 prompt: expected at least one candidate and one search")
    if budget is not None and budget not in BUDGETS:
        raise SchemaError(f"Router-R1 prompt: budget is one of {', '.join(BUDGETS)}")
    if any(f"<{tag}>" in text for text in descriptions.values() for tag in TAGS):
        raise SchemaError("Router-R1 prompt: a candidate's description holds a protocol tag")
    return _RULES.format(
        searches=max_searches,
        models="\n".join(f"- {name}: {text}" for name, text in descriptions.items()),
        budget="" if budget is None else f"\nBudget: {budget}\n",
        question=question,
    )


_FIELD = re.compile(r"\{(question|models|searches|budget)\}")


def fill_template(
    template: str,
    question: str,
    descriptions: Mapping[str, str],
    *,
    max_searches: int = MAX_SEARCHES,
    budget: str | None = None,
) -> str:
    """Return a prompt of another form than ours, as a published checkpoint was trained with.

    Args:
        template: The text, with ``{question}`` and optionally ``{models}`` (one line for each),
            ``{searches}`` and ``{budget}``. Other braces stay, and so do those of the values.
        question: As in `render_prompt`.
        descriptions: As in `render_prompt`; an empty one leaves only the name.
        max_searches: As in `render_prompt`.
        budget: As in `render_prompt`; None is an empty text.
    """
    lines = [f"- {name}: {text}" if text else f"- {name}" for name, text in descriptions.items()]
    values = {
        "question": question,
        "models": "\n".join(lines),
        "searches": str(max_searches),
        "budget": budget or "",
    }
    return _FIELD.sub(lambda match: values[match[1]], template)


def budget_of(lam: float) -> str:
    """Return the key of `BUDGETS` whose alpha is nearest to that of a cost weight lambda.

    Quality - lambda x cost orders answers as (1 - alpha) x quality + alpha x cheapness does with
    alpha = lambda / (1 + lambda).
    """
    return budget_word(1.0 if math.isinf(lam) else lam / (1 + lam))


def budget_word(alpha: float) -> str:
    """Return the key of `BUDGETS` whose alpha is nearest to a weight of cost in [0, 1]."""
    return min(BUDGETS, key=lambda word: abs(BUDGETS[word] - alpha))


_FEATURE_CHARACTERS = 160


def describe(llm: LLMInfo) -> str:
    """Return the size and the strengths of a candidate as one line for the prompt."""
    feature = " ".join(llm.feature.split())[:_FEATURE_CHARACTERS]
    return defuse("; ".join(part for part in (llm.size, feature) if part))


@dataclass(frozen=True, slots=True)
class PromptForm:
    """The form of the prompt of one policy.

    Attributes:
        template: Template of `fill_template`; None is Waypost's own prompt.
        frame: Text before and after the prompt: the policy's chat template.
        reserved: Special tokens of the policy.
        max_searches: Searches allowed, at least 1.
    """

    template: str | None = None
    frame: tuple[str, str] = ("", "")
    reserved: tuple[str, ...] = ()
    max_searches: int = MAX_SEARCHES

    def text(self, question: str, descriptions: Mapping[str, str], budget: str | None) -> str:
        """Return the prompt in its frame; see `render_prompt`.

        Raises:
            SchemaError: See `render_prompt`.
        """
        question, most = self.clean(question), self.max_searches
        prompt = (
            render_prompt(question, descriptions, max_searches=most, budget=budget)
            if self.template is None
            else fill_template(
                self.template, question, descriptions, max_searches=most, budget=budget
            )
        )
        return f"{self.frame[0]}{prompt}{self.frame[1]}"

    def clean(self, text: str) -> str:
        """Break special tokens by a blank, so that a text cannot end the policy's turn.

        One of a single character is replaced by the blank.
        """
        tokens = [token for token in self.reserved if token]
        if not tokens:
            return text
        pattern = "|".join(map(re.escape, sorted(tokens, key=len, reverse=True)))
        return re.sub(pattern, lambda match: _broken(match[0]), text)


def _broken(token: str) -> str:
    return f"{token[0]} {token[1:]}" if len(token) > 1 else " "
