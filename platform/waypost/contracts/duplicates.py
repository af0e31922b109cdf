"""Find texts that are the same question, exactly or nearly.

Two texts are near-duplicates where the Jaccard similarity of their sets of three-word shingles is
at least 0.8. Pairs are found by prefix filtering (Bayardo, Ma and Srikant 2007): with shingles in
one order, rarest first, two such sets share one of their first few. So no pair is missed, and
nothing depends on chance or on the order of the rows.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

SIMILAR = 0.8
_SHINGLE = 3
# Of scripts without blanks (Thai, Lao, kana, Han) each character counts as a word.
_UNSPACED = r"\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_OPTION = re.compile(r"\s*\(?[A-Z][.):]\s+(.*)")
_NO_ASCII_LETTER = re.compile(r"[^a-z0-9]+")


def same_text_key(text: str) -> str:
    """Return the text without punctuation, case and blanks.

    Letters, digits and combining marks stay, casefolded; a text without any keeps all but the
    blanks at its ends. Options at the end ("A. ...", a line each) count in any order and without
    their letters. Equal keys mean the same question asked again.
    """
    folded = unicodedata.normalize("NFC", _without_letters(text)).casefold()
    if folded.isascii():
        key = _NO_ASCII_LETTER.sub("", folded)
    else:
        key = "".join(c for c in folded if c.isalnum() or unicodedata.category(c)[0] == "M")
    return key or text.strip()


def _without_letters(text: str) -> str:
    """Sort the options at a text's end: benchmarks shuffle them."""
    lines = [line for line in text.split("\n") if line.strip()]
    options: list[str] = []
    while lines and (match := _OPTION.fullmatch(lines[-1])):
        options.append(match[1].strip())
        lines.pop()
    return "\n".join([*lines, *sorted(options, key=str.casefold)]) if len(options) > 1 else text


def duplicate_groups(texts: Sequence[str]) -> NDArray[np.intp]:
    """Number the groups of near-duplicates, shape (n,), in the order of first appearance.

    Texts with equal keys (`same_text_key`) and near-duplicates share a group. Groups are
    transitive: where a is like b and b is like c, all three are one group. They do not depend on
    the order of the texts nor on how often a text occurs. A shingle that occurs in more texts than
    `_common` allows counts as part of a template and is left out, so that many questions with one
    long instruction are not one group. Do not write to the array: results for the last few lists
    of texts are cached, since cross-validation asks for the same folds for every router.
    """
    return _groups(tuple(texts))


@lru_cache(maxsize=16)
def _groups(texts: tuple[str, ...]) -> NDArray[np.intp]:
    keys = [same_text_key(text) for text in texts]
    first: dict[str, str] = {}
    for key, text in zip(keys, texts, strict=True):
        # The least text of a key represents it, independent of the order.
        first[key] = min(first.get(key, text), text)
    number = {key: i for i, key in enumerate(first)}
    parent = list(range(len(number)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    shingles = _shingles([first[key] for key in number])
    for several in _candidates(shingles):
        if len({root(i) for i in several}) == 1:
            continue
        for a, b in combinations(several, 2):
            low, high = sorted((root(a), root(b)))
            if low != high and _similar(shingles[a], shingles[b]):
                parent[high] = low
    roots = [root(number[key]) for key in keys]
    order = {one: i for i, one in enumerate(dict.fromkeys(roots))}
    numbered = np.array([order[one] for one in roots], dtype=np.intp)
    numbered.setflags(write=False)
    return numbered


def _similar(a: NDArray[np.intp], b: NDArray[np.intp]) -> bool:
    small, large = sorted((len(a), len(b)))
    if small < SIMILAR * large - 1e-9:
        return False
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared >= SIMILAR * (len(a) + len(b) - shared) - 1e-9


def _common(n_texts: int) -> int:
    """Return in how many texts a shingle may occur before it counts as part of a template."""
    return min(max(10, n_texts // 100), 100)


def _shingles(texts: Sequence[str]) -> list[NDArray[np.intp]]:
    """Return each text's distinct shingles, rarest first; their ids hold for this call only."""
    vocabulary: dict[str, int] = {}
    words, owners = [], []
    for owner, text in enumerate(texts):
        parts = _WORD.findall(_without_letters(text).casefold())
        found = [vocabulary.setdefault(word, len(vocabulary) + 1) for word in parts]
        if found:
            found += [0] * (_SHINGLE - len(found))  # a shorter text is one shingle
            words.append(np.array(found))
            owners.append(owner)
    if not words:
        return [np.empty(0, np.intp) for _ in texts]
    size = len(vocabulary) + 1
    counts = [len(part) - _SHINGLE + 1 for part in words]
    ids = np.concatenate([part[:count] for part, count in zip(words, counts, strict=True)])
    for shift in range(1, _SHINGLE):
        nxt = np.concatenate([p[shift : shift + c] for p, c in zip(words, counts, strict=True)])
        # Numbered anew after each word, so that the product never overflows.
        ids = np.unique(ids * size + nxt, return_inverse=True)[1]
    n_ids = int(ids.max()) + 1
    owner_of, ids = np.divmod(np.unique(np.repeat(owners, counts) * n_ids + ids), n_ids)
    spread = np.bincount(ids)
    kept = spread[ids] <= _common(len(texts))
    owner_of, ids = owner_of[kept], ids[kept]
    rarest_first = owner_of * (_common(len(texts)) + 1) + spread[ids]
    ids = ids[np.argsort(rarest_first, kind="stable")]
    ends = np.cumsum(np.bincount(owner_of, minlength=len(texts)))
    return [ids[start:end] for start, end in pairwise([0, *ends.tolist()])]


def _candidates(shingles: Sequence[NDArray[np.intp]]) -> set[tuple[int, ...]]:
    """Return sets of texts. Any two that are similar enough are together in one of them."""
    holders: dict[int, list[int]] = {}
    for i, one in enumerate(shingles):
        # In two sets of Jaccard t or more, one of these of each is shared by both.
        prefix = len(one) - int(np.ceil(SIMILAR * len(one) - 1e-9)) + 1 if len(one) else 0
        for shingle in one[:prefix].tolist():
            holders.setdefault(shingle, []).append(i)
    return {tuple(several) for several in holders.values() if len(several) > 1}
