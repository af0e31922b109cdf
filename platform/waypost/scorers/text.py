"""Exact match, token F1 and the lenient short-answer match, on normalised text.

Normalisation follows SQuAD, so that scores compare with published ones: it removes case, ASCII and
Unicode punctuation, English articles and extra blanks. Three changes: accents are folded, the point
of a decimal number stays ("3.5" is not "35"), and a text that is only an article keeps it.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

SHORT_ANSWER_WORDS = 25
"""Number of words at the start of a response that `short_answer` reads."""

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_DECIMAL_POINT = re.compile(r"(?<=\d)\.(?=\d)")
# Scripts without blanks between words: each character is a token.
_UNSPACED = re.compile(r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff])")
_POINT = "\ue000"
# Thai, Lao, Burmese, Khmer, kana, ideographs, Hangul: no blank stands between a word and a letter
_SCRIPT = r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
_BORDER = re.compile(rf"(?<={_SCRIPT})(?=[-\u2212$\\A-Za-z\d])|(?<=[A-Za-z\d])(?={_SCRIPT})")
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_OPENED, _CLOSED = "<think>", "</think>"


def without_reasoning(response: str) -> str:
    """Return a response without its ``<think>`` part; "" if that part is not closed.

    Some chat templates put the opening tag into the prompt, so it may be missing here.
    """
    if _CLOSED in response:
        return response.rsplit(_CLOSED, 1)[1]
    return "" if response.lstrip().startswith(_OPENED) else response


def spaced(text: str) -> str:
    """Return a text with blanks between Latin letters or digits and scripts without blanks.

    Full-width letters, digits and marks become ordinary ones.
    """
    return _BORDER.sub(" ", text.translate(_FULL_WIDTH))


def normalise(text: str) -> str:
    """Return the text in lower case, without punctuation, articles and extra blanks."""
    return _normalise(text, "")


def _normalise(text: str, separator: str) -> str:
    folded = unicodedata.normalize("NFKD", text)
    folded = "".join(c for c in folded if not unicodedata.combining(c)).casefold()
    folded = _DECIMAL_POINT.sub(_POINT, folded)
    folded = "".join(separator if _is_punctuation(c) else c for c in folded).replace(_POINT, ".")
    without = " ".join(_ARTICLES.sub(" ", folded).split())
    return without or " ".join(folded.split())


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def tokens(text: str) -> list[str]:
    """Return the words of the normalised text; each Chinese or Japanese character is one."""
    return _UNSPACED.sub(r" \1 ", normalise(text)).split()


def gold_strings(ground_truth: str | Sequence[str]) -> list[str]:
    """Return the accepted answers as a list; a string gives a list of one."""
    return [ground_truth] if isinstance(ground_truth, str) else [str(gold) for gold in ground_truth]


def exact_match(response: str, ground_truth: str | Sequence[str]) -> float:
    """Return 1.0 if the normalised response equals an accepted answer, else 0.0."""
    said = normalise(response)
    return float(any(said == normalise(gold) for gold in gold_strings(ground_truth)))


def token_f1(response: str, ground_truth: str | Sequence[str]) -> float:
    """Return the F1 of the response's words with the best accepted answer, in [0, 1].

    Repeated words count repeatedly. Two empty texts give 1, one empty text gives 0.
    """
    said = tokens(response)
    return max((_f1(said, tokens(gold)) for gold in gold_strings(ground_truth)), default=0.0)


def _f1(said: list[str], gold: list[str]) -> float:
    if not said or not gold:
        return float(said == gold)
    common = sum((Counter(said) & Counter(gold)).values())
    return 2 * common / (len(said) + len(gold))


def short_answer(response: str, ground_truth: str | Sequence[str]) -> float:
    """Return 1.0 if the first words of a response contain an accepted answer, else 0.0.

    An exact match counts. So does an accepted answer as consecutive whole words within the first
    `SHORT_ANSWER_WORDS` words, unless "not" precedes it: "The capital is Paris." is right for
    Paris, but a response that mentions Paris after a paragraph is not.
    """
    if exact_match(response, ground_truth):
        return 1.0
    # A hyphen or slash may join or separate words ("Moby-Dick", "Oslo/Bergen"): try both.
    for separator in ("", " "):
        said = _words(response, separator)[:SHORT_ANSWER_WORDS]
        for gold in gold_strings(ground_truth):
            if _contains(said, _words(gold, separator)):
                return 1.0
    return 0.0


def _words(text: str, separator: str) -> list[str]:
    return _UNSPACED.sub(r" \1 ", _normalise(text, separator)).split()


def _contains(words: list[str], run: list[str]) -> bool:
    size = len(run)
    return size > 0 and any(
        words[start : start + size] == run and words[max(start - 1, 0) : start] != ["not"]
        for start in range(len(words) - size + 1)
    )
