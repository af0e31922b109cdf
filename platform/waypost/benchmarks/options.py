"""Multiple-choice questions: lettered options, the prompt with them, and the right letter."""

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
"""Types of the hub's column of options: two lists of the same length."""


def multiple_choice(
    question: str, texts: Sequence[str], right: int, ask: str = LETTER_ONLY
) -> Fields:
    """Return a question whose options are lettered A, B, ... in the given order.

    Args:
        question: Question text without the options.
        texts: Texts of the options, 2 to 10.
        right: Position of the right option, from 0.
        ask: Last line of the prompt: the form of the answer.

    Raises:
        RowError: fewer than two options, more than ten, or no option at position ``right``.
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
    """Return the question of a row with options in the hub's form; labels 1 to 4 become letters.

    Raises:
        RowError: the lists differ in length, or the answer is not one of the labels.
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
    """Return the positions of the texts, sorted by a hash of key and text.

    The resulting order of the texts depends on no seed, other row or input order.
    """

    def draw(position: int) -> bytes:
        return hashlib.blake2b(f"{key}\x1f{texts[position]}".encode()).digest()

    return sorted(range(len(texts)), key=draw)
