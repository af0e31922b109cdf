"""The state of routers that another router holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from waypost.contracts.records import LLMInfo
from waypost.contracts.router import ScoreRouter
from waypost.tune.auto.members import Member

Arrays = dict[str, NDArray[Any]]


def held_state(name: str, routers: Sequence[ScoreRouter]) -> tuple[Arrays, list[dict[str, Any]]]:
    """Return the arrays of routers, with ``name.PLACE.`` before each name, and their other state.

    Args:
        name: Attribute that holds the routers.
        routers: Fitted routers.
    """
    arrays: Arrays = {}
    listed = []
    for place, router in enumerate(routers):
        own, values = router.get_state()
        arrays |= {f"{name}.{place}.{key}": value for key, value in own.items()}
        listed.append({"router": router.name, "parameters": router.get_params(), "state": values})
    return arrays, listed


def held_routers(
    name: str,
    llms: Sequence[LLMInfo],
    arrays: Mapping[str, NDArray[Any]],
    listed: Sequence[Mapping[str, Any]],
    seed: int,
) -> tuple[list[ScoreRouter], Arrays]:
    """Rebuild the routers of `held_state`; also return the arrays that are not theirs.

    Raises:
        ConfigError, RegistryError, PluginError, MissingExtraError: See `Member.make`.
    """
    rest = {key: value for key, value in arrays.items() if not key.startswith(f"{name}.")}
    routers = []
    for place, facts in enumerate(listed):
        prefix = f"{name}.{place}."
        part = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        router = Member(facts["router"], facts["parameters"]).make(seed)
        router.set_state(llms, part, facts["state"])
        routers.append(router)
    return routers, rest
