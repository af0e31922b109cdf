"""Models of a Serve config that compare routers on live traffic: shadow routers and experiments.

An experiment gives each user a router by a race of exponential variables: arm j with share w_j has
the time -ln(u_j) / w_j, where u_j in (0, 1) is a hash of salt, user and arm, and the first arm wins
(weighted rendezvous hashing). The probability of an arm is its share. A user changes arms only
towards one whose share grew against that of the earlier arm; with two arms, no more users change
than must. With any number of arms at most 2 d / (1 + d) of them do, where d is the share that must,
which is the least that is possible without memory (Bavarian et al., arXiv 1612.01041).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from waypost.config import StrictModel
from waypost.contracts.errors import Fault
from waypost.feedback import Arm

_SUM = 1e-6


class ShadowArgs(StrictModel):
    """Routers that decide beside the one that acts.

    A shadow decides requests once they have ended, and only the decision log has its decisions:
    rankings, headers and answers do not depend on it.

    Attributes:
        routers: Names of ``routers``.
        share: Share of the requests that they decide, drawn anew for each request.
    """

    routers: tuple[str, ...] = Field(min_length=1)
    share: float = Field(default=1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _names_differ(self) -> ShadowArgs:
        if len(set(self.routers)) < len(self.routers):
            raise ValueError("a router stands there twice")
        return self

    def takes(self, request_id: str) -> bool:
        """Return whether the shadows decide this request."""
        return self.share >= 1 or _uniform(request_id, "shadow") < self.share


def _switched(value: Any) -> Any:
    """Return None for ``off``, which YAML 1.1 reads as false."""
    return None if value is False or value == "off" else value


def _named(value: Any) -> Any:
    value = _switched(value)
    if isinstance(value, str):
        return {"routers": (value,)}
    return {"routers": tuple(value)} if isinstance(value, list | tuple) else value


Shadow = Annotated[ShadowArgs | None, BeforeValidator(_named)]
"""The name of a router, a list of names, the settings of `ShadowArgs`, or ``off``."""


class ExperimentArgs(StrictModel):
    """Shares of users whose ``model: auto`` is decided by different routers (an A/B test).

    A user keeps the router over replicas, restarts and machines. Other shares move few users:
    with two arms no more than must.

    Attributes:
        name: Name of the experiment, in the decision log.
        arms: Router -> share of the users; the shares sum to 1.
        by: Whose router is the same: that of a ``user`` (without ``user_id`` of a session, without
            ``session_id`` of a request), of a ``session`` (without one of a request), or of a
            ``request``.
        salt: Experiments with different salts divide users independently; null is ``name``.
    """

    name: str = Field(min_length=1, max_length=100)
    arms: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(min_length=1)
    by: Literal["user", "session", "request"] = "user"
    salt: str | None = None

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> ExperimentArgs:
        total = math.fsum(self.arms.values())
        if abs(total - 1) > _SUM:
            raise ValueError(f"the shares of arms sum to {total:g}; expected 1")
        return self

    def arm(self, query: Mapping[str, Any], request_id: str) -> Arm:
        """Return the arm of a request.

        Args:
            query: Has ``user_id`` and ``session_id`` where they are known.
            request_id: Id of the request.
        """
        unit = self._unit(query, request_id)
        salt = self.name if self.salt is None else self.salt
        router = min(
            self.arms, key=lambda arm: -math.log(_uniform(salt, *unit, arm)) / self.arms[arm]
        )
        return Arm(self.name, router, self.arms)

    def _unit(self, query: Mapping[str, Any], request_id: str) -> tuple[str, str]:
        kinds = {"user": ("user_id", "session_id"), "session": ("session_id",)}
        for kind in kinds.get(self.by, ()):
            if (found := query.get(kind)) is not None:
                return kind, found
        return "request_id", request_id


def _uniform(*parts: str) -> float:
    """Return a number in (0, 1) that is a hash of some texts."""
    # the length of each part keeps ("ab", "c") apart from ("a", "bc")
    text = "".join(f"{len(part)}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") + 0.5) / 2**64


class ComparingArgs(StrictModel):
    """Keys of a Serve file that compare routers.

    Attributes:
        shadow: A router, or several, that decide beside the one that acts; needs ``decision_log``.
            A name, a list of names, the settings below, or ``off``. In a ``user_config`` an absent
            key keeps what the arguments say, and ``off`` ends it.
        experiment: Shares of users whose ``model: auto`` is decided by different routers; or
            ``off``, as above.
    """

    shadow: Shadow = None
    experiment: Annotated[ExperimentArgs | None, BeforeValidator(_switched)] = None


def comparing_faults(
    given: ComparingArgs,
    routers: Collection[str],
    stepping: Collection[str],
    decision_log: str | None,
    where: str,
) -> list[Fault]:
    """Return what is wrong with shadow and experiment in a graph.

    Args:
        given: The settings.
        routers: Names of the routers that are loaded.
        stepping: Those that work in steps.
        decision_log: The decision log; None keeps none.
        where: The file and the part of it.
    """
    found = []
    shadows = () if given.shadow is None else given.shadow.routers
    arms = () if given.experiment is None else tuple(given.experiment.arms)
    for key, named in (("shadow", shadows), ("experiment.arms", arms)):
        if unknown := [name for name in named if name not in routers]:
            known = ", ".join(routers)
            problem = f"{unknown[0]!r} is not a router; known: {known}. Add it to routers"
            found.append(Fault(f"{where}: {key}", problem))
    if steps := [name for name in shadows if name in stepping]:
        problem = f"{steps[0]} works in steps: what it decides depends on the answers it gets"
        found.append(Fault(f"{where}: shadow", problem))
    if shadows and decision_log is None:
        problem = "only the decision log has its decisions: set decision_log"
        found.append(Fault(f"{where}: shadow", problem))
    return found
