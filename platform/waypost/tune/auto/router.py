"""The router `auto`: the combination of other routers that is best in cross-validation.

1. Every member predicts every training question out of sample, by cross-validation.
2. Candidates are the mean of the best members, the mean of all members, their stack
   (`Stack`), the stack corrected by neighbours (`Correction`), each member alone,
   and the training means.
3. The candidate whose decisions have the highest utility on those questions is chosen, over several
   cost weights if costs are known. Averages are preferred if they are as good within the noise.
4. The members of the chosen candidate are fitted again on all questions.

Only the training split is read. ``report_`` lists the candidates and the reason of the choice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.parameters import Integer
from waypost.contracts.records import FloatMatrix, LLMInfo, Prediction, QueryBatch, report
from waypost.contracts.router import ScoreRouter, TrainableRouter
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.splits import fold_of
from waypost.contracts.types import Floats
from waypost.tune.auto.choosing import Candidate, choose, earned
from waypost.tune.auto.holding import held_routers, held_state
from waypost.tune.auto.members import Member, Members, OutOfSample, members_of, try_members
from waypost.tune.auto.stacking import Correction, Stack, fit_correction, fit_mean, fit_stack

Key = tuple[Any, ...]


def share_learned(routers: Iterable[TrainableRouter]) -> None:
    """Share equal learned arrays and parts between routers to save memory.

    Sharing is safe: a router replaces learned arrays and parts and never changes them in place.

    Args:
        routers: Fitted routers.
    """
    arrays: dict[Key, NDArray[Any]] = {}
    parts: dict[Key, Any] = {}
    for router in routers:
        for name, value in list(vars(router).items()):
            if isinstance(value, np.ndarray) and name.endswith("_"):
                setattr(router, name, arrays.setdefault(_key(value), value))
            elif name in router.state_parts and value is not None:
                held = {key: (_key(own), own) for key, own in value.to_arrays().items()}
                whole = (type(value), *((key, of) for key, (of, _) in sorted(held.items())))
                if whole not in parts:
                    shared = {key: arrays.setdefault(of, own) for key, (of, own) in held.items()}
                    parts[whole] = type(value).from_arrays(shared)
                setattr(router, name, parts[whole])


def _key(array: NDArray[Any]) -> Key:
    flat = np.ascontiguousarray(array)
    digest = hashlib.blake2b(flat.tobytes(), digest_size=16).digest()
    return (array.shape, array.dtype.str, digest)


FEWEST = 40
"""Minimum number of questions for a comparison; with fewer, only the fallback is fitted."""

BEST = 3
"""Number of members in the mean of the best."""

FALLBACK = Member("knnrouter", {})


class AutoRouter(ScoreRouter):
    """An ensemble of registered routers, chosen and weighted on out-of-sample predictions.

    When to take it:
        When it is unknown which router suits the data. A fit takes the time of all members, a
        decision that of the chosen ones. If one member is as good, take that one: it is faster.

    Args:
        members: Routers to try: names, or ``{name: {parameter: value}}``; None is
            `members.DEFAULT`. Plug-ins are allowed.
        folds: Number of folds of the cross-validation.
        seed: Seed of the folds, and of members that have a seed.

    Learned by ``fit``:
        members_: The fitted routers of the chosen candidate.
        stack_: Their weights.
        correction_: Correction added to the stacked prediction; None without one.
        report_: Candidates, their out-of-sample results, and the reason of the choice.
    """

    name = "auto"
    kind = "ensemble"
    new_model_support = "refit"
    validates_itself = True
    trial_parameters: ClassVar = {"members": ("best_single", "linearrouter"), "folds": 2}
    state_parts: ClassVar = {
        **ScoreRouter.state_parts,
        "stack_": Stack,
        "correction_": Correction,
    }
    parameter_constraints: ClassVar = {
        "members": Members(),
        "folds": Integer(2, 50),
        "seed": Integer(0),
    }

    members_: list[ScoreRouter]
    stack_: Stack
    correction_: Correction | None
    report_: dict[str, Any]

    def __init__(self, members: Sequence[Any] | None = None, folds: int = 4, seed: int = 0) -> None:
        self.members = members
        self.folds = folds
        self.seed = seed

    # -- fit ----------------------------------------------------------------------------------

    def _fit(self, data: RoutingData) -> None:
        has_score = np.asarray((~np.isnan(data.quality)).any(axis=1))
        data = data if has_score.all() else data.select(np.flatnonzero(has_score))
        wanted = members_of(self.members)
        for member in wanted:
            member.make(self.seed)  # raise errors of names and parameters before any fit
        fold = fold_of(data.queries, self.folds, self.seed, data.groups)
        tried: list[OutOfSample] = []
        failed: dict[str, str] = {}
        if comparable(data, fold):
            tried, failed = try_members(wanted, data, fold, self.seed)
        if not tried:
            self._take([FALLBACK], data, Stack(np.ones(1), np.ones(1), self.mean_quality_), None)
            why = "too few questions to compare routers on" if not failed else "no member fitted"
            self.report_ = {"chosen": FALLBACK.label, "why": why, "left_out": failed}
            return
        candidates = self._candidates(tried, data, fold)
        chosen, facts = choose(
            candidates, data, self.mean_quality_, self.cost_model_.cost_ref, fold
        )
        used = chosen.stack.used
        correction = None
        # Weights were chosen by fold; weights fitted on all questions may be 0 for every member.
        if chosen.corrected and used.any():
            predictions = np.stack([one.quality for one in tried])[used]
            stack = chosen.stack.only(used)
            correction = fit_correction(predictions, stack.combine(predictions), data.quality)
        members = [one.member for one, has in zip(tried, used, strict=True) if has]
        self._take(members, data, chosen.stack.only(used), correction)
        self.report_ = {**facts, "weights": self._weights(members), "left_out": failed}

    def _candidates(
        self, tried: list[OutOfSample], data: RoutingData, fold: NDArray[np.intp]
    ) -> list[Candidate]:
        """Return the candidates in the order of preference: averages, then members alone."""
        predictions = np.stack([one.quality for one in tried])
        cost = np.stack([one.cost_usd for one in tried])
        mean, everyone = self.mean_quality_, np.arange(len(tried))
        alone = []
        for place, one in enumerate(tried):
            only = np.eye(len(tried))[place]
            stack = Stack(only, only, mean)
            alone.append(
                Candidate(one.member.label, stack, stack.combine(predictions), cost[place])
            )
        if len(tried) == 1:
            return alone
        usd = [float(np.nanmean(earned(c, data, self.cost_model_.cost_ref)[0])) for c in alone]
        best = np.sort(np.argsort(usd)[-BEST:])

        def judged(name: str, fit: Callable[[Floats, Floats], Stack], near: bool) -> Candidate:
            # Weights, like predictions, are evaluated on folds that they were not fitted on.
            outside = np.empty(data.quality.shape)
            for part in np.unique(fold):
                rows = fold == part
                learned, asked = predictions[:, ~rows], predictions[:, rows]
                stack = fit(learned, data.quality[~rows])
                outside[rows] = stack.combine(asked)
                if near and (used := stack.used).any():
                    stacked = stack.combine(learned)
                    correction = fit_correction(learned[used], stacked, data.quality[~rows])
                    outside[rows] += correction.of(asked[used])
            whole = fit(predictions, data.quality)
            return Candidate(name, whole, outside, _mean_cost(whole, cost), near)

        def even(kept: NDArray[np.intp]) -> Callable[[Floats, Floats], Stack]:
            return lambda learned, quality: fit_mean(learned, quality, mean, kept)

        def weighted(learned: Floats, quality: Floats) -> Stack:
            return fit_stack(learned, quality, mean)

        averages = [
            judged(f"mean of the best {len(best)}", even(best), False),
            judged("stack", weighted, False),
            judged("stack, corrected by neighbours", weighted, True),
            judged("mean of all", even(everyone), False),
        ]
        nothing = Stack(np.zeros(len(tried)), np.zeros(len(tried)), mean)
        means = Candidate(
            "training means", nothing, nothing.combine(predictions), cost.mean(axis=0)
        )
        return [*averages, *alone, means]

    def _take(
        self,
        members: Sequence[Member],
        data: RoutingData,
        stack: Stack,
        correction: Correction | None,
    ) -> None:
        self.members_ = []
        for done, member in enumerate(members):
            report(f"final fits, now {member.label}", done, len(members))
            self.members_.append(member.make(self.seed).fit(data))
        share_learned(self.members_)
        self.stack_, self.correction_ = stack, correction

    def _weights(self, members: Sequence[Member]) -> list[dict[str, Any]]:
        return [
            {"member": member.label, "contrast": float(contrast), "level": float(level)}
            for member, contrast, level in zip(
                members, self.stack_.contrast, self.stack_.level, strict=True
            )
        ]

    # -- predict ------------------------------------------------------------------------------

    def _predict(self, batch: QueryBatch) -> Prediction:
        if not self.members_:
            return Prediction(quality=np.repeat(self.mean_quality_[None], len(batch), axis=0))
        found = [member.predict(batch) for member in self.members_]
        predictions = np.stack([np.asarray(one.quality, np.float64) for one in found])
        quality = self.stack_.combine(predictions)
        if self.correction_ is not None:
            quality = quality + self.correction_.of(predictions)
        weights = self.stack_.contrast + self.stack_.level
        return Prediction(
            quality=quality.clip(0, 1),
            output_tokens=_mean([one.output_tokens for one in found], weights),
            recorded_usd=_mean([one.recorded_usd for one in found], weights),
            confidence=_mean([one.confidence for one in found], weights),
        )

    # -- state --------------------------------------------------------------------------------

    def plugin_names(self) -> tuple[str, ...]:
        """Return the names of this router and of its members."""
        return tuple(dict.fromkeys((self.name, *(one.name for one in self.members_))))

    def get_state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the learned state, including that of the members."""
        arrays, values = super().get_state()
        own, values["members_"] = held_state("members_", self.members_)
        arrays |= own
        return arrays, values

    def set_state(
        self, llms: Sequence[LLMInfo], arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]
    ) -> None:
        """Restore a state; see `TrainableRouter.set_state`."""
        listed = values["members_"]
        members, own = held_routers("members_", llms, arrays, listed, self.seed)
        super().set_state(llms, own, {k: v for k, v in values.items() if k != "members_"})
        self.members_ = members
        share_learned(self.members_)


def comparable(data: RoutingData, fold: NDArray[np.intp]) -> bool:
    """Return whether there are several LLMs, each with a score outside of every fold."""
    if len(data) < FEWEST or len(data.llms) < 2 or len(np.unique(fold)) < 2:
        return False
    return not any(np.isnan(data.quality[fold != one]).all(axis=0).any() for one in np.unique(fold))


def _mean_cost(stack: Stack, cost: Floats) -> Floats:
    weights = stack.contrast + stack.level
    if weights.sum() <= 0:
        return np.asarray(cost.mean(axis=0))
    return np.asarray(np.tensordot(weights / weights.sum(), cost, axes=1))


def _mean(parts: Sequence[FloatMatrix | None], weights: Floats) -> Floats | None:
    """Return the weighted average of the members' values, leaving out members without one."""
    known = [
        (part, weight) for part, weight in zip(parts, weights, strict=True) if part is not None
    ]
    total = sum(weight for _, weight in known)
    if total <= 0:
        return None
    return np.asarray(sum(part * (weight / total) for part, weight in known))
