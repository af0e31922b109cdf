"""Split a query into sub-questions, route each by its nearest neighbours, and merge the answers.

The multi-round kNN router of LLMRouter, with a plan of a checked schema, independent steps at the
same time, and the tokens of planner and merger in the cost. Steps are routed as `knnrouter` routes
queries (arXiv 2505.12601).
"""

from __future__ import annotations

from typing import ClassVar

from waypost_routers._neighbors.regression import NeighbourRegression
from waypost_routers._rounds.rounds import MultiRound


class KNNMultiRoundRouter(MultiRound, NeighbourRegression):
    """A plan by one LLM, its steps by the LLMs that kNN chooses, and a merging call.

    If the planner finds no use in a split, or its reply is not a valid plan, the LLM that kNN
    chooses for the whole query answers it. A failed step goes to the next LLM once; then the
    merger is told that its answer is missing. `route_single` is the choice for the whole query. A
    sub-answer changes neither the plan nor which LLM answers another step.

    When to take it:
        For questions that need several facts or steps, if the planner is an LLM that follows a
        format well. Each request costs a planning call, and a split one a merging call, too. Check
        on own data that it beats `knnrouter`: more rounds are not better by themselves.

    Args:
        k: As knnrouter's.
        weights: As knnrouter's.
        tau: As knnrouter's.
        kappa: As knnrouter's.
        ood_quantile: As knnrouter's.
        index: As knnrouter's.
        planner: The LLM that splits. None takes the allowed LLM with the highest training mean
            whose plan the budget allows, and so does a request that does not allow the one named.
        merger: The LLM that merges the answers; None as for the planner.
        max_steps: Maximum number of steps of a plan. A longer plan is invalid, not cut off; 1
            plans nothing.
        max_parallel: Maximum number of steps at the same time.
        step_tokens: Maximum number of generated tokens of a step.
        plan_tokens: Maximum number of generated tokens of a plan.

    Learned by ``fit`` (n_rows training questions with at least one score, n_llms candidates):
        memory_: float32 (n_rows, d), their embeddings.
        scores_: float32 (n_rows, n_llms), NaN where not measured.
        highest_: float32 (n_rows,), the highest score of each question.
        tokens_, dollars_: As ``scores_``, output tokens and recorded dollars; no row if none were
            recorded.
        best_share_: (n_llms,) share of the questions for which each LLM is among the best.
        k_: The k in use.
        index_: The index; None if the search is exact.
        similarity_floor_: Similarity below which a query is out of distribution.
    """

    name = "knnmultiroundrouter"
    router_family = "agentic"
    parameter_constraints: ClassVar = {
        **NeighbourRegression.parameter_constraints,
        **MultiRound.round_constraints,
    }

    def __init__(
        self,
        k: int | None = None,
        weights: str = "softmax",
        tau: float = 0.1,
        kappa: float = 1.0,
        ood_quantile: float = 0.005,
        index: str = "auto",
        planner: str | None = None,
        merger: str | None = None,
        max_steps: int = 4,
        max_parallel: int = 4,
        step_tokens: int = 512,
        plan_tokens: int = 512,
    ) -> None:
        super().__init__(k, weights, tau, kappa, ood_quantile, index)
        self.planner = planner
        self.merger = merger
        self.max_steps = max_steps
        self.max_parallel = max_parallel
        self.step_tokens = step_tokens
        self.plan_tokens = plan_tokens
