"""A step router as a plug-in: a cheap answer, verdicts on it, then an expensive answer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waypost.config import settings
from waypost.loading import save_router
from waypost.registry import make_router
from waypost.testing.synthetic import planted

SOURCE = '''"""Call the tiers in turn until the verifier accepts an answer."""

from waypost.contracts.policy import allowed_mask
from waypost.contracts.records import Decision, Query
from waypost.contracts.step_router import (
    Call, Delegate, FinalAnswer, TrainableStepRouter, Vote,
)


class Tiers(TrainableStepRouter):
    needs_embeddings = False

    def __init__(self, tiers="tiny prover", verifier="cook", votes=3, stubborn=False):
        self.tiers = tiers
        self.verifier = verifier
        self.votes = votes
        self.stubborn = stubborn

    def _fit(self, data):
        pass

    def _names(self, query):
        if self.stubborn:  # ignores the allowed models of the request
            return self.tiers.split()
        allowed = allowed_mask([query], self.policy, self.model_names)[0]
        known = dict(zip(self.model_names, allowed, strict=True))
        return [name for name in self.tiers.split() if known[name]] or [
            name for name in known if known[name]
        ]

    def route_single(self, query):
        names = self._names(Query.of(query))
        reason = "the first tier is called first"
        return Decision(
            names[0], tuple(names), confidence=0.5, reason=reason, router=self.name,
            router_version=self.version,
        )

    def step(self, state):
        names = self._names(state.query)
        answer = None
        for results in state.steps:
            if results[0].call.purpose != "verify":
                answer = results[0]
                names.remove(answer.call.model)
            elif 2 * sum("yes" in (result.text or "") for result in results) > self.votes:
                return FinalAnswer(answer.text, answer.call.model)
        latest = state.steps[-1][0] if state.steps else None
        if latest is not None and latest.ok and latest.call.purpose != "verify":
            if not names:
                return FinalAnswer(latest.text, latest.call.model)
            asked = Call(self.verifier, f"yes or no? {latest.text}", 5, 0.7, purpose="verify")
            need = self.votes // 2 + 1
            outcomes = tuple(int(n >= need) for n in range(self.votes + 1))
            return Delegate((asked,) * self.votes, Vote("yes", outcomes))
        if not names:
            return FinalAnswer(None)
        return Delegate((Call(names[0], state.query.text, 50),))
'''
"""Source of the plug-in. With the `echo` engine a verifier repeats its prompt, which says yes."""


def tiers_artifact(folder: Path, **parameters: Any) -> Path:
    """Save the router as an artifact below ``folder``: tiny answers, cook verifies, then prover."""
    plugins = folder / "plugins"
    (plugins / "tiers").mkdir(parents=True, exist_ok=True)
    (plugins / "tiers" / "router.py").write_text(SOURCE)
    data = planted()
    with _plugins(plugins):
        router: Any = make_router("tiers", parameters)
        router.fit(data)
        save_router(router, folder / "artifact", data)
    return folder / "artifact"


@contextmanager
def _plugins(path: Path) -> Iterator[None]:
    before = os.environ.get("WAYPOST_PLUGINS")
    os.environ["WAYPOST_PLUGINS"] = str(path)
    settings.cache_clear()
    try:
        yield
    finally:
        if before is None:
            del os.environ["WAYPOST_PLUGINS"]
        else:
            os.environ["WAYPOST_PLUGINS"] = before
        settings.cache_clear()
