"""Find the option that a multiple-choice answer ends on, in any wording."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from waypost.scorers.numeric import boxed
from waypost.scorers.text import gold_strings, normalise, spaced

_DEFAULT_LABELS = tuple("ABCDEFGHIJ")
_MINUS = re.compile(r"(?<!\w)[-\u2212](?=\d)")
_GONE = "\ue001"
_ECHOED_OPTIONS = 3
"""Number of different labels at line starts from which they are a repetition of the options."""


def final_letter(response: str, choices: Sequence[Mapping[str, str]] | None = None) -> str | None:
    r"""Return the label of the option that a response ends on, in upper case, or None.

    Tries in this order, taking the last mention of each: a letter in ``\boxed{}``; a response of
    one letter; a stated letter ("the answer is B", "correct option: (B)"); a letter at the start
    ("B.", "**B**: because ..."); any single letter; the text of one choice. Options repeated from
    the question are skipped. "A" and "I" within a sentence are words, not letters.

    Args:
        response: The response of the LLM.
        choices: Options with ``label`` and ``text``; None accepts the letters A to J.
    """
    labels = tuple(choice["label"].upper() for choice in choices or ()) or _DEFAULT_LABELS
    texts = [(choice["label"].upper(), choice["text"]) for choice in choices or ()]
    box = boxed(response)
    if box is not None and (letter := _only_letter(box, labels)):
        return letter
    response = _without_echo(spaced(response), labels)
    return (
        _only_letter(response, labels)
        or _stated(response, labels)
        or _opening(response, labels)
        or _standing_alone(_without_texts(response, texts), labels)
        or _by_text(response, texts)
    )


def letter_match(
    response: str,
    ground_truth: str | Sequence[str],
    choices: Sequence[Mapping[str, str]] | None = None,
) -> float:
    """Return 1.0 if the response ends on an accepted option, else 0.0.

    The ground truth is a label, with or without brackets, or the text of a choice.
    """
    said = final_letter(response, choices)
    golds = (final_letter(gold, choices) for gold in gold_strings(ground_truth))
    return float(said is not None and any(said == gold for gold in golds))


def _label_pattern(labels: Sequence[str]) -> str:
    either_case = "".join(re.escape(label + label.lower()) for label in labels)
    opening = r"[\[\(\*_`\"'“$]{0,6}(?:\\text\{)?"
    return rf"{opening}(?P<letter>[{either_case}])(?P<after>[^\w\s]*)(?!\w)"


def _only_letter(text: str, labels: Sequence[str]) -> str | None:
    match = re.fullmatch(rf"\s*{_label_pattern(labels)}\s*", text)
    return match["letter"].upper() if match else None


def _stated(text: str, labels: Sequence[str]) -> str | None:
    pattern = re.compile(
        r"\b(?:answer|option|choice|respuesta|réponse|antwort)\b\W{0,4}"
        r"(?:(?:is|would be|should be|es|est|ist|correct|right|correcta|option|choice|letter)"
        r"\b\W{0,4}){0,4}?" + _label_pattern(labels),
        re.IGNORECASE,
    )
    found = [match for match in pattern.finditer(text) if _is_label(match, text)]
    # "option B is wrong" is not an answer
    kept = [match for match in found if not _is_refused(text, match)]
    return kept[-1]["letter"].upper() if kept else None


def _opening(text: str, labels: Sequence[str]) -> str | None:
    match = re.match(rf"\s*{_label_pattern(labels)}", text)
    if match is None or not (match["after"] or text[match.end() :].startswith("\n")):
        return None
    return None if _is_refused(text, match) else match["letter"].upper()


def _standing_alone(text: str, labels: Sequence[str]) -> str | None:
    pattern = re.compile(rf"(?<![\w'\u2019]){_label_pattern(labels)}")
    found = [
        match["letter"].upper()
        for match in pattern.finditer(text)
        if _is_label(match, text) and not _is_refused(text, match)
    ]
    return found[-1] if found else None


def _is_label(match: re.Match[str], text: str) -> bool:
    """Return whether a match is a label: a capital except A and I, or a separated letter."""
    if match["letter"] not in "AI" and match["letter"].isupper():
        return True
    following = text[match.end() :]
    return bool(
        match["after"]
        or not following.strip()
        or following.startswith("\n")
        or re.match(r"\s+(?:is|because|since|as)\b", following)
    ) and not following.startswith(("'", "\u2019"))


def _is_refused(text: str, match: re.Match[str]) -> bool:
    after = r"\s*(?:is|was|are)\s*(?:not\b|n.t\b|incorrect|wrong|false)"
    if re.match(after, text[match.end() :], re.IGNORECASE):
        return True
    before = text[max(match.start("letter") - 20, 0) : match.start("letter")]
    return re.search(r"(?:\bnot|rather than|instead of)\W{0,3}$", before, re.IGNORECASE) is not None


def _without_echo(text: str, labels: Sequence[str]) -> str:
    line = re.compile(rf"^[ \t]*{_label_pattern(labels)}[ \t]+\S.*$", re.MULTILINE)
    found = [match for match in line.finditer(text) if match["after"]]
    if len({match["letter"].upper() for match in found}) < _ECHOED_OPTIONS:
        return text
    for match in reversed(found):
        text = text[: match.start()] + text[match.end() :]
    return text


def _without_texts(text: str, texts: Sequence[tuple[str, str]]) -> str:
    # The C in the choice "Vitamin C" is not the label C, nor is "a library" the label A.
    for _, choice in sorted(texts, key=lambda item: -len(item[1])):
        if len(choice) > 1:
            text = re.sub(re.escape(choice), f" {_GONE} ", text, flags=re.IGNORECASE)
    return text


def _by_text(response: str, texts: Sequence[tuple[str, str]]) -> str | None:
    """Return the choice mentioned last; a part of a longer choice's text does not count."""
    said = f" {_signed(response)} "
    named: list[tuple[int, str]] = []
    for label, text in sorted(texts, key=lambda item: -len(item[1])):
        run = f" {_signed(text)} "
        if run.strip() and (position := said.rfind(run)) >= 0:
            named.append((position, label))
            said = said.replace(run, " " + "\ue000" * (len(run) - 2) + " ")
    return max(named)[1] if named else None


def _signed(text: str) -> str:
    # Normalising drops the minus sign, which distinguishes -5 from 5.
    return normalise(_MINUS.sub("minus", text))
