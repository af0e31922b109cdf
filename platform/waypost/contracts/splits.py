"""Split questions into training and test parts, folds, and held-out sets.

Every split depends on the texts and the seed only, not on the order of the rows. The groups of
`duplicate_groups` are never divided.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.duplicates import duplicate_groups, same_text_key
from waypost.contracts.errors import ConfigError, Fault, SchemaError, names
from waypost.contracts.routing_data import RoutingData

__all__ = [
    "duplicate_groups",
    "fold_of",
    "hold_out",
    "leaks",
    "pool",
    "same_text_key",
    "share_out",
    "stratified_split",
]

Groups = NDArray[np.intp]


def fold_of(
    texts: Sequence[str], folds: int, seed: int, groups: Groups | None = None
) -> NDArray[np.intp]:
    """Assign whole groups to folds, shape (n,), values 0 to folds - 1.

    Folds differ by at most one group. A repeated text does not change the folds of the others.

    Args:
        texts: Texts of the queries.
        folds: Number of folds, at least 1; with fewer groups some stay empty.
        seed: Seed of the assignment.
        groups: Groups of the texts, where they are known (`RoutingData.groups`).
    """
    groups = duplicate_groups(texts) if groups is None else groups
    place = np.empty(_count(groups), np.intp)
    place[_shuffled(texts, groups, seed)] = np.arange(len(place))
    return place[groups] % folds


def hold_out(
    texts: Sequence[str], share: float, seed: int, groups: Groups | None = None
) -> NDArray[np.bool_]:
    """Mark the held-out texts, shape (n,): whole groups, drawn by seed and text.

    About ``share`` of the groups are held out. With two or more groups each side has at least one;
    with a single group none is held out.
    """
    groups = duplicate_groups(texts) if groups is None else groups
    count = _count(groups)
    drawn = min(max(round(_checked(share) * count), 1), count - 1)
    chosen = np.zeros(count, bool)
    chosen[_shuffled(texts, groups, seed)[: max(drawn, 0)]] = True
    return chosen[groups]


def stratified_split(
    data: RoutingData, share: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split rows by task, each group on one side.

    Each task gives ``share`` of its rows to the second part, to within half a group. The rounding
    error is carried to the next task, so that many small tasks together give their share, too. A
    group over several tasks counts for the task with most of its rows.

    Args:
        data: Routing data.
        share: Share of the second part, above 0 and below 1.
        seed: Seed of the draw.

    Returns:
        Row numbers (train, test), each ascending.

    Raises:
        SchemaError: all rows are one group, so that nothing can be held out.
        ConfigError: the share is not between 0 and 1.
    """
    chosen = share_out(data.queries, data.task_names, share, seed, data.groups)
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def share_out(
    texts: Sequence[str],
    tasks: Sequence[str],
    share: float,
    seed: int,
    groups: Groups | None = None,
) -> NDArray[np.bool_]:
    """Mark the texts of the second part of `stratified_split`, shape (n,).

    Args:
        texts: Texts of the questions.
        tasks: Task of each question.
        share: As in `stratified_split`.
        seed: Seed of the draw.
        groups: Groups of the texts, where they are known, numbered from 0 without gaps.

    Raises:
        SchemaError, ConfigError: as in `stratified_split`.
    """
    groups, share = duplicate_groups(texts) if groups is None else groups, _checked(share)
    size = np.bincount(groups)
    if len(size) < 2:
        raise SchemaError(
            f"routing data: {len(texts)} rows hold {len(size)} distinct question; a split needs two"
        )
    order = _shuffled(texts, groups, seed)
    home = _home_tasks(tasks, groups)
    chosen = np.zeros(len(size), bool)
    carry = 0.0
    for task in sorted(set(home), key=lambda name: _draw(seed, name)):
        members = [g for g in order if home[g] == task]
        target, taken = share * size[members].sum() + carry, 0
        for group in members:
            if taken + size[group] / 2 <= target:
                chosen[group], taken = True, taken + size[group]
        carry = min(max(target - taken, -0.5), 0.5)
    if chosen.all() or not chosen.any():
        chosen[order[0]] = not chosen[order[0]]
    return chosen[groups]


def leaks(train_texts: Sequence[str], test_texts: Sequence[str]) -> NDArray[np.bool_]:
    """Mark the test texts whose group also has training texts, shape (n_test,)."""
    groups = duplicate_groups([*train_texts, *test_texts])
    return np.isin(groups[len(train_texts) :], groups[: len(train_texts)])


def pool(train: RoutingData, test: RoutingData) -> RoutingData:
    """Join two splits, without the test rows whose text is in train (by `same_text_key`).

    The LLMs and their order are those of ``train``. A column that one of the two lacks is None;
    so are the events.

    Raises:
        SchemaError: the two do not have the same LLMs, or a query_id is in both.
    """
    if lacking := sorted(set(train.names) ^ set(test.names)):
        raise SchemaError(
            f"routing data: only one of the two splits has scores of {names(lacking)}"
        )
    known = set(map(same_text_key, train.queries))
    test = test.select([i for i, t in enumerate(test.queries) if same_text_key(t) not in known])
    if twice := sorted(set(train.query_ids) & set(test.query_ids)):
        raise SchemaError(
            f"routing data: query_id {names(twice)} means one question in train and another in "
            "test; give them ids of their own"
        )
    test = test.select_llms(train.names)
    alike = train.encoder_id == test.encoder_id
    joined: dict[str, Any] = {}
    for name in (field.name for field in fields(train) if field.name not in ("llms", "encoder_id")):
        one, other = getattr(train, name), getattr(test, name)
        if one is None or other is None or name == "events" or (name == "embeddings" and not alike):
            joined[name] = None
        elif isinstance(one, np.ndarray):
            joined[name] = np.concatenate([one, other])
        else:
            joined[name] = one + other
    return replace(train, **joined, encoder_id=train.encoder_id if alike else None)


def _checked(share: float) -> float:
    if not 0 < share < 1:
        raise ConfigError([Fault("share", f"is {share}; expected above 0 and below 1")])
    return share


def _count(groups: Groups) -> int:
    return int(groups.max()) + 1 if len(groups) else 0


def _draw(seed: int, text: str) -> tuple[bytes, str]:
    # A hash, not a generator: the draw for a text must not depend on the other texts.
    content = f"{seed}\x1f{text}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=16).digest(), text


def _shuffled(texts: Sequence[str], groups: Groups, seed: int) -> NDArray[np.intp]:
    """Return the groups in random order; the key of a group is the least key of its texts."""
    least: dict[int, str] = {}
    for text, group in zip(texts, groups.tolist(), strict=True):
        key = same_text_key(text)
        least[group] = min(least.get(group, key), key)
    return np.array(sorted(least, key=lambda g: _draw(seed, least[g])), dtype=np.intp)


def _home_tasks(tasks: Sequence[str], groups: Groups) -> list[str]:
    counted: list[dict[str, int]] = [{} for _ in range(_count(groups))]
    for task, group in zip(tasks, groups.tolist(), strict=True):
        counted[group][task] = counted[group].get(task, 0) + 1
    return [min(one, key=lambda task: (-one[task], task)) for one in counted]
