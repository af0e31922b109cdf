"""Always choose the first LLM: failover in a fixed order, without routing."""

from __future__ import annotations

from waypost.contracts.records import Decision, QueryLike
from waypost.contracts.router import MetaRouter


class InOrder(MetaRouter):
    """A fixed ranking of the LLMs in the order in which they are listed, whatever the cost weight.

    The order is that of ``pool`` in a Serve file, or of ``llms.json``.

    When to take it:
        To call one LLM and have the others for the case that it does not answer.
    """

    name = "in_order"

    def route_single(self, query: QueryLike) -> Decision:
        """Return the first of the candidates; see `MetaRouter.route_single`."""
        ranking = tuple(llm.name for llm in self.candidates)
        return Decision(ranking[0], ranking, reason="the first of the pool", router=self.name)
