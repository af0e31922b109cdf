"""Self-verification: an LLM is asked, several times, whether its own answer is correct.

Recorded verdicts and live ones of a router have the same prompt, sampling and parsing (AutoMix,
arXiv 2310.12963). The paper's prompt has the context of the question; here the context, if any, is
part of the question.
"""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import SchemaError
from waypost.contracts.steps import Call

MAX_VERDICTS = 16
"""Most verdicts of one answer."""

VERIFY = "verify"
"""Purpose of a call that asks for a verdict."""

YES = r"\A\W*(?i:yes)\b"
"""Matches a verdict that supports the answer: its first word is yes, whatever follows."""

_NO = r"\A\W*(?i:no)\b"
_TOKENS = 3
_TEMPERATURE = 1.0
_PROMPT = """Question:
{question}

Proposed answer:
{answer}

Is the proposed answer correct? Reply with one word, Yes or No."""


def verdict_call(model: str, question: str, answer: str, sample: int) -> Call:
    """Return the call for one verdict of an LLM on its answer.

    Args:
        model: Name of the LLM.
        question: The whole question.
        answer: The answer, without surrounding space.
        sample: Number of the verdict; it fixes the seed of sampling.
    """
    prompt = _PROMPT.format(question=question.strip(), answer=answer.strip())
    digest = hashlib.blake2b(f"{sample}:{prompt}".encode("utf-8", "surrogatepass"), digest_size=4)
    return Call(
        model=model,
        prompt=prompt,
        max_tokens=_TOKENS,
        temperature=_TEMPERATURE,
        seed=int.from_bytes(digest.digest(), "big") >> 1,
        purpose=VERIFY,
    )


def read_verdict(text: str) -> bool | None:
    """Read a verdict: True supports the answer, False does not, None is neither yes nor no."""
    if re.search(YES, text):
        return True
    return False if re.search(_NO, text) else None


def parse_verdicts(text: str, where: str) -> list[float]:
    """Read the column ``verdicts``: 1 for correct, 0 for wrong and for neither yes nor no.

    Raises:
        SchemaError: it is not a JSON list of at most `MAX_VERDICTS` of 0, 1 and null.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    known = isinstance(found, list) and all(v is None or (v in (0, 1)) for v in found)
    if not known or len(found) > MAX_VERDICTS:
        raise SchemaError(
            f"{where}: verdicts: expected a JSON list of at most {MAX_VERDICTS} of 0, 1 and null"
        )
    return [float(verdict or 0) for verdict in found]


def verdicts_text(verdicts: NDArray[np.float32]) -> str | None:
    """Write the verdicts of one answer, NaN where there is none, as `parse_verdicts` reads them."""
    given = verdicts[~np.isnan(verdicts)]
    return json.dumps([int(verdict) for verdict in given]) if len(given) else None
