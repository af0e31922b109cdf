"""Multiple choice: lettered options, the prompt that shows them, and the right letter."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from string import ascii_uppercase

from waypost.benchmarks.base import Fields, RowError

LETTER_ONLY = "Reply with just the letter of the right option."
THEN_LETTER = (
    "Think it through, then end with a line of the form: The answer is X "
    "(X being the letter of the right option)."
)


LABELLED = {"text": list[str], "label": list[str]}
"""The hub's column of options: two lists of one length."""


def multiple_choice(
    question: str, texts: Sequence[str], right: int, ask: str = LETTER_ONLY
) -> Fields:
    """Ask a question with its options lettered A, B, ... in the given order.

    Args:
        question: Without the options.
        texts: Of the options.
        right: Position of the right one.
        ask: Last line of the prompt: how to answer.

    Raises:
        RowError: fewer than two options, more than ten, or none at that position.
    """
    if not 2 <= len(texts) <= 10:
        raise RowError("", f"it has {len(texts)} options; expected 2 to 10")
    if not 0 <= right < len(texts):
        raise RowError("", f"its answer is option number {right}; expected 0 to {len(texts) - 1}")
    choices = [
        {"label": label, "text": text.strip()}
        for label, text in zip(ascii_uppercase, texts, strict=False)
    ]
    lines = [f"{choice['label']}. {choice['text']}" for choice in choices]
    query = "\n".join([question.strip(), *lines, ask])
    return Fields(query, ascii_uppercase[right], choices)


def from_labels(
    question: str, choices: Mapping[str, list[str]], answer: str, column: str = "answerKey"
) -> Fields:
    """Ask a row with options in the hub's form; its own labels (1 to 4) become letters.

    Raises:
        RowError: the lists differ in length, or the answer is none of the labels.
    """
    texts, labels = choices["text"], choices["label"]
    if len(texts) != len(labels):
        problem = f"holds {len(texts)} texts and {len(labels)} labels; expected as many"
        raise RowError("choices", problem)
    if not answer.strip():
        raise RowError(column, "is empty: this split has no answers; choose another split")
    if answer.strip() not in labels:
        raise RowError(column, f"is none of the labels {', '.join(labels)}")
    return multiple_choice(question, texts, labels.index(answer.strip()))


def shuffled(texts: Sequence[str], key: str) -> list[int]:
    """Return the positions of the texts in an order drawn by a hash of key and text.

    It depends on nothing else: not on a seed, the other rows, or the order given.
    """

    def draw(position: int) -> bytes:
        return hashlib.blake2b(f"{key}\x1f{texts[position]}".encode()).digest()

    return sorted(range(len(texts)), key=draw)
