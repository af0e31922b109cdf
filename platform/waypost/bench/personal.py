"""Measure personal routers on made-up users, beside other ways of using their feedback.

Users are made over recorded answers for each seed (`waypost data users`). The routers learn from
users seen in training; new users show 0 to 20 events about training questions, and are judged on
test questions. Penalties and numbers of neighbours are chosen on validation users.

Example: waypost bench personal --data ../shared/data/mmlu_pro --seeds 1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import DirectoryPath, Field

from waypost.bench import harness
from waypost.bench._people import EVENTS, Vectors, baselines, judge, scores, visible_of
from waypost.bench.harness import Aim, Result, Table, Tell, at_least, at_most
from waypost.contracts.feedback import UserEvents
from waypost.contracts.records import Query, QueryBatch
from waypost.contracts.routing_data import RoutingData, read_routing_data
from waypost.contracts.types import Floats, Floats32
from waypost.contracts.user_state import UserHistory, UserState
from waypost.encoders import make_encoder
from waypost.pipelines.data.users import Said, World, make_world
from waypost.registry import make_router
from waypost.report.drawing import figure, look, save

ROUTERS = ("gmtrouter", "personalizedrouter")
NONE, RIDGE, WEIGHTS, ORACLE = "no personalisation", "per-user ridge", "oracle weights", "oracle"
SHOWN = ("utility", "regret", "accuracy", "auc", "user_auc")

_TIMED = 200
_T = (float("nan"), 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % quantiles of Student's t for 0 (no interval) to 9 degrees of freedom."""


class Options(harness.Options):
    """Options of ``waypost bench personal``.

    Attributes:
        steps: Maximum number of training steps; None is the routers' default.
    """

    data: DirectoryPath = Field(description="Routing data with the splits train and test.")
    seeds: int = Field(5, ge=1, le=10, description="Number of seeds, from 0 on.")
    users: int = Field(200, ge=8, description="Users, seen in training and new.")
    encoder: str = Field("static", description="Query encoder.")
    plot: Path | None = Field(None, description="File for a plot of utility (PNG or SVG).")
    steps: int | None = None


QUICK = {"seeds": 1, "users": 40, "steps": 40}


def run(options: Options, tell: Tell) -> Result:
    """Make users, fit the routers, and judge them for every seed.

    Returns:
        Figures: ``rows`` (way -> number of events -> metric -> mean, low, high), ``p50_ms`` by
        router, ``chosen`` (knobs by seed), ``beta``.

    Raises:
        WaypostError: See `make_world` and `read_routing_data`.
    """
    train, test = (read_routing_data(options.data, split) for split in ("train", "test"))
    encoder = make_encoder(options.encoder)
    found: list[dict[str, dict[int, dict[str, float]]]] = []
    chosen, betas = [], []
    speed: dict[str, float] = {}
    for seed in range(options.seeds):
        tell.bar(seed, options.seeds, "seeds")
        world = make_world(train, test, users=options.users, seed=seed)
        rows = {k: encoder.encode(v.queries) for k, v in world.data.items()}
        data = world.data["train"].with_embeddings(rows["train"], encoder.id)
        params = {"seed": seed, **({"steps": options.steps} if options.steps else {})}
        judged, knobs, routers = judge_all(world, rows, data, params)
        found.append(judged)
        chosen.append(knobs)
        betas.append(world.beta)
        if not seed:
            speed = {name: decision_ms(one, world, rows) for name, one in routers.items()}
    tell.bar(options.seeds, options.seeds, "seeds")
    table = summed(found)
    if options.plot is not None:
        draw_utility(table, options.plot)
    figures = {"rows": table, "p50_ms": speed, "chosen": chosen, "beta": betas}
    facts = (
        f"{options.data.name}: {options.users} users a seed, seeds 0 to {options.seeds - 1}, 95 % "
        "intervals over the seeds. New users see their events about training questions; targets "
        f"are about test questions. Chosen on validation users: {_told(chosen)}."
    )
    return Result(tables(table), facts, aims(table, speed), figures)


def judge_all(
    world: World, rows: Mapping[str, Floats32], data: RoutingData, params: Mapping[str, Any]
) -> tuple[dict[str, dict[int, dict[str, float]]], dict[str, float], dict[str, Any]]:
    """Judge every way on test users; return metrics by way and events, knobs, and routers."""
    base: Any = make_router(ROUTERS[0], params).fit(data)  # type: ignore[attr-defined]
    outcomes = {split: base.answer_outcomes(part) for split, part in rows.items()}
    vectors = Vectors.make(outcomes)
    others = baselines(world, vectors)
    said = world.said["test"]
    targets = np.flatnonzero(said.target)
    user, query = said.user[targets], said.query[targets]
    always = {
        NONE: outcomes["test"][query, :, 0],
        WEIGHTS: wanted(world, outcomes["test"])[user, query],
        ORACLE: world.utility["test"][user, query],
    }
    found = {name: dict.fromkeys(EVENTS, judge(world, "test", s)) for name, s in always.items()}
    for name, way in others.ways.items():
        found[name] = {
            k: judge(world, "test", scores(world, vectors, way, "test", k)) for k in EVENTS
        }
    # without an event a ridge regression to zero says nothing
    found[RIDGE][0] = found[NONE][0]
    told = replace(data, events=events_of(world))
    routers: dict[str, Any] = {}
    for name in ROUTERS:
        router: Any = make_router(name, params)
        routers[name] = router.fit(told)
        found[name] = {
            k: judge(world, "test", routed(router, world, rows, "test", k)) for k in EVENTS
        }
    return found, dict(others.chosen), routers


def events_of(world: World) -> UserEvents:
    """Return the events of the users seen in training."""
    said = world.said["train"]
    width = int(said.session.max()) + 1
    return UserEvents(
        user_ids=world.users.user_ids,
        user=said.user,
        query=said.query,
        llm=said.llm,
        other=said.other,
        value=said.value,
        session=said.user * width + said.session,
    )


def wanted(world: World, outcomes: Floats) -> Floats:
    """Return each user's utility of the predicted outcomes, (n_users, n, n_llms)."""
    score, dollars, tokens, size = (outcomes[..., k] for k in range(4))
    known = {"right": score, "cheap": np.exp(dollars), "short": np.exp(tokens)}
    known["quick"] = np.exp(tokens + size)
    satisfied = world.scale.of_amounts([known[want] for want in world.scale.wants])
    return world.users.utility(satisfied, world.data["test"].names)


def history_of(said: Said, user: int, count: int, rows: Floats32, names: Sequence[str]) -> Any:
    """Return what a router sees of a user: the first visible events."""
    seen = visible_of(said, user, count)
    return UserHistory(
        rows[said.query[seen]],
        tuple(names[j] for j in said.llm[seen]),
        tuple(None if j < 0 else names[j] for j in said.other[seen]),
        said.value[seen],
    )


def routed(
    router: Any, world: World, rows: Mapping[str, Floats32], split: str, count: int
) -> Floats:
    """Return a router's predictions for the targets of a split's users, (n_targets, n_llms)."""
    said, data = world.said[split], world.data[split]
    targets = np.flatnonzero(said.target)
    made: dict[int, UserState] = {
        int(user): router.user_state(history_of(said, int(user), count, rows["train"], data.names))
        for user in np.unique(said.user)
    }
    query = said.query[targets]
    batch = QueryBatch(
        tuple(Query(data.queries[i]) for i in query),
        rows[split][query],
        tuple(made[int(user)] for user in said.user[targets]),
    )
    return np.asarray(router.predict(batch).quality)


def decision_ms(router: Any, world: World, rows: Mapping[str, Floats32]) -> float:
    """Return the p50 of one decision with the user's state, vectors given, in milliseconds."""
    said, data = world.said["test"], world.data["test"]
    history = history_of(said, int(said.user[0]), EVENTS[-1], rows["train"], data.names)
    state = router.user_state(history)

    def ask(i: int) -> None:
        router.decide([Query(data.queries[i])], rows["test"][i : i + 1], [state])

    count = min(_TIMED, len(data))
    return harness.percentiles(harness.milliseconds(ask, count))["p50"]


# -- tables ---------------------------------------------------------------------------------------

Rows = dict[str, dict[int, dict[str, tuple[float, float, float]]]]
"""Way -> number of events -> metric -> mean over the seeds, and the interval's ends."""


def summed(found: Sequence[Mapping[str, Mapping[int, Mapping[str, float]]]]) -> Rows:
    """Average over seeds, with 95 % intervals of Student's t; NaN ends with one seed."""
    half = _T[len(found) - 1] / np.sqrt(len(found))
    table: Rows = {}
    for way in found[0]:
        table[way] = {}
        for count in EVENTS:
            table[way][count] = {}
            for key in SHOWN:
                values = np.array([one[way][count][key] for one in found])
                mean = float(values.mean())
                wide = float(half * values.std(ddof=1)) if len(found) > 1 else float("nan")
                table[way][count][key] = (mean, mean - wide, mean + wide)
    return table


def tables(table: Rows) -> list[Table]:
    """Return a table for each metric: ways by number of visible events."""
    titles = {
        "utility": "Utility of the choice (true, hidden)",
        "regret": "Regret: the best answer's utility less the choice's",
        "accuracy": "Accuracy: which answer of a pair the user prefers",
        "auc": "AUC of the same",
        "user_auc": "AUC of the same, mean over users",
    }
    heads = ("way", *(f"{count} events" for count in EVENTS))
    made = []
    for key, title in titles.items():
        rows = [[way, *(_cell(row[k][key]) for k in EVENTS)] for way, row in table.items()]
        made.append(Table(title, heads, rows))
    return made


def _cell(value: tuple[float, float, float]) -> str:
    mean, low, _ = value
    return f"{mean:.3f}" if np.isnan(low) else f"{mean:.3f} ± {mean - low:.3f}"


def _told(chosen: Sequence[Mapping[str, float]]) -> str:
    return "; ".join(
        f"{name} {', '.join(f'{one[name]:g}' for one in chosen)}" for name in chosen[0]
    )


def aims(table: Rows, speed: Mapping[str, float]) -> list[Aim]:
    """Compare with the project's aims, for each router."""

    def of(way: str, count: int, key: str) -> float:
        return table[way][count][key][0]

    found = []
    for name in ROUTERS:
        none = of(NONE, 0, "utility")
        way = (of(name, 10, "utility") - none) / (of(WEIGHTS, 10, "utility") - none)
        more = [of(name, k, "utility") - of(RIDGE, k, "utility") for k in (1, 5)]
        gain = of(name, 10, "auc") - of(NONE, 0, "auc")
        found += [
            at_least(f"{name}, 10 events: share of the way to oracle weights", way, 0.5),
            at_least(f"{name}, 0 events: utility less {NONE}", of(name, 0, "utility") - none, 0),
            at_least(f"{name}, 1 and 5 events: utility less {RIDGE}, the lesser", min(more), 0),
            at_least(f"{name}, 10 events: AUC less {NONE}", gain, 0.1),
            at_most(f"{name}: one decision with the user's state, p50, ms", speed[name], 1.5),
        ]
    return found


def draw_utility(table: Rows, path: Path) -> None:
    """Draw utility by the number of visible events, with the intervals as bands.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    made = figure(7, 4.2)
    axis = made.subplots()
    for place, (way, row) in enumerate(table.items()):
        if way == ORACLE:
            continue
        mean, low, high = (np.array([row[k]["utility"][i] for k in EVENTS]) for i in range(3))
        axis.plot(range(len(EVENTS)), mean, marker="o", ms=3, lw=1.4, label=way, **look(place))
        if not np.isnan(low).any():
            axis.fill_between(
                range(len(EVENTS)), low, high, color=look(place)["color"], alpha=0.12, lw=0
            )
    axis.set_xticks(range(len(EVENTS)), [str(k) for k in EVENTS])
    axis.set_xlabel("visible events of a new user")
    axis.set_ylabel("utility of the choice")
    axis.grid(alpha=0.25)
    made.legend(loc="outside right upper", fontsize=8, frameon=False)
    save(made, path)
