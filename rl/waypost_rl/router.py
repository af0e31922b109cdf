"""Let an LLM trained by reinforcement learning reason, query other LLMs, and write the answer.

Router-R1 (arXiv 2506.09033). The policy is an LLM of the pool. It thinks, sends questions of its
own to other LLMs, reads their replies, and answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from waypost.contracts import policy
from waypost.contracts.cost import CostModel, column_mean
from waypost.contracts.errors import ConfigError, Fault, SchemaError, names
from waypost.contracts.parameters import Integer, OneOf, Text
from waypost.contracts.records import Decision, LLMInfo, Query, QueryBatch, QueryLike
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.step_router import (
    ANSWER,
    Action,
    Call,
    Delegate,
    EpisodeState,
    FinalAnswer,
    TrainableStepRouter,
)
from waypost_rl.constraints import Pairs, Template, Texts
from waypost_rl.prompt import MAX_SEARCHES, PromptForm, budget_of, describe
from waypost_rl.protocol import INFORMATION_TOKENS, STOP_STRINGS, Candidates, defuse
from waypost_rl.rules import Rules
from waypost_rl.served_episode import POLICY, SEARCH, play

_CONTINUED = "\n\nYour text so far, which you continue without repeating it:\n\n"


class RouterR1(TrainableStepRouter):
    """A policy LLM that reasons, queries other LLMs, and answers.

    The policy gets the question and the candidates, described; the other LLMs that the request
    allows are candidates. Each turn it writes a search, which is sent to the candidate, or the
    answer. An LLM that is unknown, not allowed or failing gives the information ``None``, any
    other malformed action a correction. A search that was answered before is not sent again. After
    ``max_turns`` turns one more generation may only answer. If there is no answer then, if the
    policy fails or is not allowed, or at a cap of the episode, the best single LLM answers the
    question. In the prompt the request's lambda is a budget in words.

    A step is one call, so an episode has up to 2 x ``max_turns`` + 1 steps: set the Serve file's
    ``limits.max_steps`` accordingly. The answer is the policy's own text, so ``max_tokens`` and
    ``stop`` of the client apply only where another LLM answers. ``fit`` learns nothing but the
    means, which order the LLMs that answer instead.

    When to take it:
        With a policy trained for it (``waypost rl import``), for questions that need several
        facts. Another instruct LLM works as the policy, too, but is not trained to weigh costs. A
        request takes several calls in a row.

    Args:
        policy_llm: Name of the LLM that is the policy. It has to be set; its own answers need not
            be measured.
        delegates: Name of an LLM in the prompt and in searches -> its name in the pool; None is
            all LLMs but the policy under their own names.
        descriptions: Name of an LLM in the prompt -> its description there; an LLM that is not
            named, and every LLM with None, is described by its size and strengths.
        fallback_llm: Name of the LLM that answers where the policy does not; None is the best
            single LLM at the request's lambda. With it, ``fit`` needs no measured outcomes.
        prompt: The policy's prompt, with ``{question}`` and optionally ``{models}``,
            ``{searches}`` and ``{budget}``; None is Waypost's own.
        frame: Text before and after the prompt: the policy's chat template. The policy then
            continues its own text. None sends prompt and text as a message of the user.
        reserved: Special tokens of the policy. A blank is put into those that a question or a
            reply contains.
        budget: Whether Waypost's prompt contains the budget.
        corrective: Whether malformed actions are corrected; False gives an empty observation, as
            the reference code does.
        max_turns: Maximum searches and malformed actions.
        policy_tokens: Maximum tokens of a generation of the policy.
        search_tokens: Maximum tokens of a candidate's reply.
        information_tokens: Maximum tokens of a reply that the policy reads, estimated as a quarter
            of its bytes.

    Needed parameters:
        policy_llm=qwen2.5-coder-1.5b
    """

    name = "router_r1"
    router_family = "multi-round"
    needs_embeddings = False
    new_model_support = "few-shot"
    artifact_commands = "`waypost rl import` or `waypost rl export`"
    parameter_constraints: ClassVar = {
        "policy_llm": Text(optional=True),
        "delegates": Pairs("the pool's"),
        "descriptions": Pairs("its description", empty=True),
        "fallback_llm": Text(optional=True),
        "prompt": Template(),
        "frame": Texts(2),
        "reserved": Texts(),
        "budget": OneOf((True, False)),
        "corrective": OneOf((True, False)),
        "max_turns": Integer(1, 16),
        "policy_tokens": Integer(1),
        "search_tokens": Integer(1),
        "information_tokens": Integer(1),
    }

    def __init__(
        self,
        policy_llm: str | None = None,
        delegates: Mapping[str, str] | None = None,
        descriptions: Mapping[str, str] | None = None,
        fallback_llm: str | None = None,
        prompt: str | None = None,
        frame: Sequence[str] | None = None,
        reserved: Sequence[str] | None = None,
        budget: bool = True,
        corrective: bool = True,
        max_turns: int = MAX_SEARCHES,
        policy_tokens: int = 1024,
        search_tokens: int = 512,
        information_tokens: int = INFORMATION_TOKENS,
    ) -> None:
        self.policy_llm = policy_llm
        self.delegates = delegates
        self.descriptions = descriptions
        self.fallback_llm = fallback_llm
        self.prompt = prompt
        self.frame = frame
        self.reserved = reserved
        self.budget = budget
        self.corrective = corrective
        self.max_turns = max_turns
        self.policy_tokens = policy_tokens
        self.search_tokens = search_tokens
        self.information_tokens = information_tokens

    # -- fit ----------------------------------------------------------------------------------

    def _prepare(self, data: RoutingData) -> None:
        self.check_params(self.get_params())
        self._check_names(data)
        if self.policy_llm not in data.names:
            data = with_column(data, LLMInfo(name=self.policy_llm or ""))
        self.mean_quality_ = column_mean(data.quality)
        unmeasured = [
            name
            for name, mean in zip(data.names, self.mean_quality_, strict=True)
            if np.isnan(mean) and name != self.policy_llm
        ]
        if unmeasured and self.fallback_llm is None:
            problem = "leave it out, or set fallback_llm to the LLM that answers without the policy"
            raise SchemaError(f"fit: no score at all for {names(unmeasured)}; {problem}")
        self.llms_ = data.llms
        self.cost_model_ = CostModel.fit(data)
        self.n_features_in_ = 0

    def _check_names(self, data: RoutingData) -> None:
        if self.policy_llm is None:
            problem = (
                "is not set; name the LLM of the pool that is the policy, or import a trained one "
                "with `waypost rl import`"
            )
            raise ConfigError([Fault(f"{self.name}: policy_llm", problem)])
        others = [name for name in data.names if name != self.policy_llm]
        wanted = {f"delegates.{key}": name for key, name in (self.delegates or {}).items()}
        if self.fallback_llm is not None:
            wanted["fallback_llm"] = self.fallback_llm
        faults = [
            Fault(
                f"{self.name}: {key}",
                "is the policy itself"
                if name == self.policy_llm
                else f"the data has no LLM {name}; it has {names(others)}",
            )
            for key, name in wanted.items()
            if name not in others
        ]
        if not others:
            faults.append(Fault(f"{self.name}: delegates", "the data has no LLM but the policy"))
        if faults:
            raise ConfigError(faults)
        Candidates(others, self.delegates)  # raises where a spelling stands for two LLMs

    def _fit(self, data: RoutingData) -> None:
        """Learn nothing more."""

    # -- route --------------------------------------------------------------------------------

    def route_single(self, query: QueryLike) -> Decision:
        """Return the LLM that answers where the policy does not; the reason names the policy.

        The ranking is by mean score at the request's lambda, a policy without one last. Quality and
        dollars are those of one call of that LLM, not of the episode.
        """
        return self._route(Query.of(query))[0]

    def _route(self, query: Query) -> tuple[Decision, dict[str, str]]:
        """Return the decision, and what `_allowed` returns; empty where the policy is not asked."""
        known = self.model_names
        lam = policy.cost_weights([query], self.policy)
        cost = self.predict_cost(QueryBatch((query,)))
        order = policy.rank(
            np.nan_to_num(self.mean_quality_, nan=0.0),
            cost,
            known,
            lam=lam,
            cost_ref=self.cost_model_.cost_ref,
            allowed=policy.allowed_mask([query], self.policy, known),
            max_cost_usd=policy.cost_limits([query], self.policy),
        )
        rate, seed = self.policy.exploration, self.policy.seed
        order, propensity, drawn = policy.explore(order, known, [query.text], rate, seed)
        eligible = ranking = [known[j] for j in order[0] if j >= 0]
        if not drawn[0]:
            last = np.isnan(self.mean_quality_[known.index(self.policy_llm or "")])
            unmeasured = self.policy_llm if last else None
            ranking = sorted(
                eligible, key=lambda name: (name == unmeasured, name != self.fallback_llm)
            )
        allowed = {} if drawn[0] else self._allowed(query)
        facts = zip(known, self.mean_quality_, cost[0], strict=True)
        of = {name: (float(q), float(usd)) for name, q, usd in facts if name in eligible}
        decision = Decision(
            model=ranking[0],
            ranking=tuple(ranking),
            quality={name: q for name, (q, _) in of.items() if not np.isnan(q)},
            cost_usd={name: usd for name, (_, usd) in of.items() if not np.isnan(usd)},
            confidence=None,
            lam=float(lam[0]),
            propensity=float(propensity[0]),
            reason="drawn at random (exploration)" if drawn[0] else self._reason(ranking, allowed),
            router=self.name,
            router_version=self.version,
        )
        return decision, allowed

    def _reason(self, ranking: Sequence[str], allowed: Mapping[str, str]) -> str:
        if not allowed:
            return f"{ranking[0]} answers at once: the policy or every other LLM is not allowed"
        return (
            f"{self.policy_llm} reasons first, at most {self.max_turns} turns, and may query "
            f"{names(sorted(set(allowed.values())))}; {ranking[0]} answers if it does not"
        )

    def _allowed(self, query: Query) -> dict[str, str]:
        """Return the LLMs that the policy may query, by its names for them.

        Empty where the policy may not be called.
        """
        known = self.model_names
        mask = policy.allowed_mask([query], self.policy, known)[0]
        allowed = {name for name, free in zip(known, mask, strict=True) if free}
        if self.policy_llm not in allowed:
            return {}
        named = self.delegates or {name: name for name in known if name != self.policy_llm}
        return {spelling: name for spelling, name in named.items() if name in allowed}

    # -- step ---------------------------------------------------------------------------------

    def step(self, state: EpisodeState) -> Action:
        """Call the policy, or the LLM that it queries, or answer. Pure.

        Raises:
            EmptyPoolError, BudgetError: No LLM may be called.
        """
        _, allowed = self._route(state.query)
        if not allowed:
            return self.fallback(state)
        played = play(state, self._rules(allowed))
        if played.finals or played.failed:
            return self.fallback(state)
        if played.answer is not None:
            return FinalAnswer(played.answer, self.policy_llm)
        if played.turns > self.max_turns:
            return self.fallback(state)
        if played.pending is not None:
            search = played.pending
            call = Call(search.candidate, search.query, self.search_tokens, purpose=SEARCH)
            return Delegate((call,))
        return Delegate((self._policy_call(state.query, allowed, played.transcript.text),))

    def fallback(self, state: EpisodeState) -> Action:
        """Ask the question itself, of the LLMs of `route_single` one after another. Pure.

        LLMs that failed in this episode come last.
        """
        finals = [one for step in state.steps for one in step if one.call.purpose == ANSWER]
        for result in finals:
            if result.ok:
                return FinalAnswer(result.text, result.call.model)
        tried = {result.call.model for result in finals}
        failed = {
            one.call.model for step in state.steps for one in step if not (one.ok or one.cancelled)
        }
        ranking = self.route_single(state.query).ranking
        for model in sorted(ranking, key=failed.__contains__):
            if model not in tried:
                return Delegate((Call(model, state.query.text, final=True),))
        return FinalAnswer(None)

    def last_resort(self, query: Query) -> str:
        """Return the first LLM of `route_single`."""
        return self.route_single(query).model

    def _rules(self, allowed: Mapping[str, str]) -> Rules:
        own = tuple(dict.fromkeys(allowed.values()))
        candidates = Candidates(own, {k: v for k, v in allowed.items() if k != v})
        return Rules(
            candidates,
            self.max_turns,
            self.information_tokens,
            self.corrective,
            self._form().clean,
        )

    def _form(self) -> PromptForm:
        before, after = self.frame or ("", "")
        reserved = tuple(self.reserved or ())
        return PromptForm(self.prompt, (before, after), reserved, self.max_turns)

    def _policy_call(self, query: Query, allowed: Mapping[str, str], written: str) -> Call:
        descriptions = {
            spelling: self._description(spelling, name) for spelling, name in allowed.items()
        }
        lam = self.policy.lam if query.lam is None else query.lam
        budget = budget_of(lam) if self.budget else None
        prompt = self._form().text(query.text, descriptions, budget)
        raw = self.frame is not None
        return Call(
            self.policy_llm or "",
            f"{prompt}{'' if raw or not written else _CONTINUED}{written}",
            self.policy_tokens,
            purpose=POLICY,
            stop=STOP_STRINGS,
            raw=raw,
        )

    def _description(self, spelling: str, name: str) -> str:
        if self.descriptions is not None and spelling in self.descriptions:
            return defuse(self.descriptions[spelling])
        return describe(self.llms_[self.model_names.index(name)])


def with_column(data: RoutingData, llm: LLMInfo) -> RoutingData:
    """Return the data with one more LLM, which was not measured."""
    matrices = ("quality", "input_tokens", "output_tokens", "cost_usd", "latency_s")
    nothing = np.full((len(data), 1), np.nan)
    wider: dict[str, Any] = {name: np.hstack([getattr(data, name), nothing]) for name in matrices}
    without: dict[str, Any] = dict.fromkeys(
        ("verdicts", "verify_input_tokens", "verify_output_tokens")
    )
    return replace(data, llms=(*data.llms, llm), **wider, **without)
