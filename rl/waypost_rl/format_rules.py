"""The format rules of an episode. Any broken rule makes the whole reward -1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from waypost_rl.protocol import (
    TAG_PATTERN,
    Candidates,
    Delegate,
    is_ellipsis,
    parse_search,
)
from waypost_rl.transcript import Transcript

FormatFault = Literal[
    "unbalanced",
    "order",
    "text_outside",
    "start",
    "end",
    "no_think",
    "empty_think",
    "answer_count",
    "information_count",
    "forged_information",
    "search_body",
]
"""Names of the rules.

- unbalanced: a tag is not closed, not opened, or opened within another.
- order: think -> search or answer, search -> information, information -> think, and nothing else.
- text_outside: there is text other than whitespace between blocks.
- start: the text does not begin with think. end: it does not end with the closing answer tag.
- no_think: there is no think block. empty_think: a think block is empty or an ellipsis.
- answer_count: there is not exactly one answer.
- information_count: the numbers of information blocks and of searches differ.
- forged_information: the policy wrote an information tag itself.
- search_body: a search is not a known candidate, a colon and a real query.
"""

_FOLLOWS = {
    "start": ("think",),
    "think": ("search", "answer"),
    "search": ("information",),
    "information": ("think",),
    "answer": (),
}


@dataclass(frozen=True, slots=True)
class _Block:
    tag: str
    body: str
    before: str  # text between the previous block and this one


def format_faults(
    transcript: Transcript, candidates: Candidates, *, exactly_one_colon: bool = False
) -> tuple[FormatFault, ...]:
    """Return the rules that an episode breaks, in the order of `FormatFault`; () if well formed.

    Args:
        transcript: The episode after the prompt.
        candidates: The pool.
        exactly_one_colon: Require exactly one colon in a search body, as the reference code
            does. By default a query may contain colons: the body is split at the first one.
    """
    text = transcript.text
    blocks, balanced, rest = _blocks(text)
    count = {tag: sum(block.tag == tag for block in blocks) for tag in _FOLLOWS}
    thoughts = [block.body for block in blocks if block.tag == "think"]
    searches = [block.body for block in blocks if block.tag == "search"]
    before = ["start", *(block.tag for block in blocks)]
    broken: dict[FormatFault, bool] = {
        "unbalanced": not balanced,
        "order": any(
            block.tag not in _FOLLOWS[last] for last, block in zip(before, blocks, strict=False)
        ),
        "text_outside": bool(rest.strip()) or any(block.before.strip() for block in blocks),
        "start": not text.lstrip().startswith("<think>"),
        "end": not text.rstrip().endswith("</answer>"),
        "no_think": not thoughts,
        "empty_think": any(is_ellipsis(thought) for thought in thoughts),
        "answer_count": count["answer"] != 1,
        "information_count": count["information"] != count["search"],
        "forged_information": any(
            tag == "information"
            for segment in transcript.segments
            if segment.author == "policy"
            for _, tag in TAG_PATTERN.findall(segment.text)
        ),
        "search_body": not all(
            _is_search(body, candidates, exactly_one_colon) for body in searches
        ),
    }
    return tuple(fault for fault, found in broken.items() if found)


def final_answer(transcript: Transcript) -> str | None:
    """Return the trimmed text of the last answer block, or None if there is no answer block."""
    answers = [block.body for block in _blocks(transcript.text)[0] if block.tag == "answer"]
    return answers[-1].strip() if answers else None


def _is_search(body: str, candidates: Candidates, exactly_one_colon: bool) -> bool:
    if exactly_one_colon and body.count(":") != 1:
        return False
    return isinstance(parse_search(body, candidates), Delegate)


def _blocks(text: str) -> tuple[list[_Block], bool, str]:
    """Return the blocks, whether all tags pair up without nesting, and the text after the last."""
    blocks: list[_Block] = []
    balanced = True
    opened: tuple[str, int, int] | None = None  # tag, start of the tag, start of the body
    done = 0
    for match in TAG_PATTERN.finditer(text):
        closing, tag = bool(match.group(1)), match.group(2)
        if not closing:
            balanced = balanced and opened is None
            opened = (tag, match.start(), match.end())
        elif opened is not None and opened[0] == tag:
            blocks.append(_Block(tag, text[opened[2] : match.start()], text[done : opened[1]]))
            opened, done = None, match.end()
        else:
            balanced = False
    return blocks, balanced and opened is None, text[done:]
