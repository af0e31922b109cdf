"""Compare routers on logged decisions: `waypost evaluate --decisions`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from waypost.config import StrictModel
from waypost.contracts.errors import PolicyError, SchemaError
from waypost.contracts.records import Decision
from waypost.contracts.router import TrainableRouter
from waypost.contracts.types import Floats
from waypost.feedback import read_decisions, read_rated
from waypost.loading import load_router
from waypost.metrics.off_policy import Estimate, Value, evaluate_policy, mean_of_arms
from waypost.metrics.reward_model import cross_fitted
from waypost.pipelines.evaluation.inputs import Contender, read_contenders
from waypost.pipelines.evaluation.logged import REWARDS, LoggedRows, Row, greedy, read_logged
from waypost.report.folder import report_folder, write_json
from waypost.report.off_policy import render
from waypost.storage import Place, local_copy, mirrored

BATCH = 256

AS_SERVED = "as served"


class DecisionsConfig(StrictModel):
    """One comparison on logged decisions.

    Attributes:
        artifacts: Artifacts that decide the logged questions again; needs their texts.
        lam: Cost weight of utility (``lambda``); None is the finite one that most requests were
            decided with.
        seed: Seed of bootstrap draws and of the folds of reward models.
        draws: Bootstrap draws.
        allow_plugin_code: Run plug-in code packed in artifacts.
    """

    artifacts: tuple[str, ...] = ()
    lam: float | None = Field(default=None, ge=0, alias="lambda")
    seed: int = Field(default=0, ge=0)
    draws: int = Field(default=2000, ge=100)
    allow_plugin_code: bool = False


def evaluate_decisions(
    config: DecisionsConfig,
    decisions: Place,
    feedback: Place | None,
    out: Place,
    command: str = "",
) -> dict[str, Any]:
    """Compare, and write report.json and report.md.

    Args:
        config: What to compare.
        decisions: The decision log.
        feedback: The ``feedback_dir`` with what was said of the answers; None compares dollars.
        out: Folder or URI of the report.
        command: The command line, for the report.

    Returns:
        Content of report.json.

    Raises:
        ConfigError: an argument is not an artifact, or ``out`` is not a report.
        SchemaError: the log has no row to compare on, or no text for an artifact to decide.
        StorageError: a folder cannot be read.
    """
    contenders = read_contenders(config.artifacts, config.seed)
    if named := [one.label for one in contenders if one.artifact is None]:
        raise SchemaError(
            f"{named[0]}: is the name of a router, which would have to be fitted; expected an "
            "artifact (waypost train on what waypost data from-feedback makes)"
        )
    with local_copy(decisions) as folder:
        table = read_decisions(folder)
    rated = None
    if feedback is not None:
        with local_copy(feedback) as folder:
            rated = read_rated(folder)
    routers = [(one.label, _load(one, config)) for one in contenders]
    names = [name for _, router in routers for name in router.model_names]
    rows = read_logged(table, rated, config.lam, names)
    report = compare(config, rows, routers)
    report |= {"rows_of_the_log": len(table), "with_feedback": rated is not None}
    if command:
        report["command"] = command
    with mirrored(out) as target, report_folder(target) as partial:
        written = write_json(partial, report)
        (partial / "report.md").write_text(render(written), encoding="utf-8")
    return written


def _load(one: Contender, config: DecisionsConfig) -> TrainableRouter:
    assert one.artifact is not None
    with local_copy(one.artifact) as folder:
        return load_router(folder, allow_plugin_code=config.allow_plugin_code)


def compare(
    config: DecisionsConfig, rows: LoggedRows, routers: Sequence[tuple[str, TrainableRouter]]
) -> dict[str, Any]:
    """Return the content of report.json; see `evaluate_decisions`."""
    model = reward_model(rows, config.seed)
    policies = {}
    for name, kind, chosen in _targets(rows, routers):
        policy, known = rows.policy(chosen)
        if not len(known):
            raise SchemaError(f"{name}: {_why_none(rows)}")
        found = evaluate_policy(
            policy, rows.logged.taken(known), model[known], draws=config.draws, seed=config.seed
        )
        policies[name] = {"kind": kind, "versions": _versions(rows, name), **_told(found)}
    served = evaluate_policy(
        rows.logged.logging, rows.logged, model, draws=config.draws, seed=config.seed
    )
    return {
        "rows": len(rows.rows),
        "users": served.clusters,
        "left_out": dict(rows.left_out),
        "llms": list(rows.llms),
        "lambda": rows.lam,
        "cost_ref_usd": rows.cost_ref_usd,
        "explores": rows.logged.explores,
        "draws": config.draws,
        "served": _values(served.logged),
        "served_warnings": list(served.warnings),
        "policies": policies,
        "experiments": _experiments(rows, config),
        "warnings": _of_the_log(rows),
    }


def reward_model(rows: LoggedRows, seed: int) -> Floats:
    """Return predicted `REWARDS`, (n, m, 3), by models that saw no row of the row's user."""
    logged = rows.logged
    found = np.full((len(logged), len(rows.llms), len(REWARDS)), np.nan)
    for k, name in enumerate(REWARDS[:2]):
        reward = logged.rewards[:, k]
        if not np.isnan(reward).any():
            features = rows.features[name]
            found[:, :, k] = cross_fitted(
                features, logged.actions, reward, logged.clusters, seed=seed
            )
    weight = rows.lam / rows.cost_ref_usd if rows.lam else 0.0
    found[:, :, 2] = found[:, :, 0] - weight * found[:, :, 1] if weight else found[:, :, 0]
    return found


def _targets(
    rows: LoggedRows, routers: Sequence[tuple[str, TrainableRouter]]
) -> Iterator[tuple[str, str, list[str | None]]]:
    """Yield (name, kind, LLM in each row) of the policies to evaluate."""
    names = {one.router: one for row in rows.made for one in row}
    for name in names:
        chosen: list[str | None] = [
            next((greedy(one.ranking, one.propensity) for one in row if one.router == name), None)
            for row in rows.made
        ]
        acted = any(row[0].router == name for row in rows.made)
        yield name, "acts" if acted else "shadow", chosen
    for label, router in routers:
        yield (
            label if label not in names else f"{label} (artifact)",
            "artifact",
            decide_again(router, rows.rows),
        )


def decide_again(router: TrainableRouter, rows: Sequence[Row]) -> list[str | None]:
    """Return the LLM that a router chooses in each logged row; None where it cannot decide.

    It decides without exploration, by its own prices, with the lambda, budget and LLMs of the row.
    """
    known = set(router.model_names)
    able = [i for i, row in enumerate(rows) if row["query"] is not None]
    able = [i for i in able if known & set(rows[i]["ranking"])]
    found: list[str | None] = [None] * len(rows)
    for first in range(0, len(able), BATCH):
        part = able[first : first + BATCH]
        queries = [_query(rows[i], known) for i in part]
        for i, made in zip(part, _decided(router, queries), strict=True):
            found[i] = None if made is None else made.model
    return found


def _why_none(rows: LoggedRows) -> str:
    if all(row["query"] is None for row in rows.rows):
        return (
            "can decide no logged request again, for the log has no texts: set log_queries: true "
            "in the Serve file"
        )
    known = sorted({name for row in rows.rows for name in row["ranking"]})
    return (
        f"can decide no logged request again; the log has the LLMs {', '.join(known)}: expected an "
        "artifact that knows some of them, and budgets that one fits"
    )


def _query(row: Row, known: set[str]) -> Row:
    fields = {
        "query": row["query"],
        "lambda": row["lambda"],
        "max_cost_usd": row["max_cost_usd"],
        "allowed_models": [name for name in row["ranking"] if name in known],
        "input_tokens": row["routed_tokens"],
        "user_id": row["user_id"],
        "session_id": row["session_id"],
    }
    return {key: value for key, value in fields.items() if value is not None}


def _decided(router: TrainableRouter, queries: Sequence[Row]) -> list[Decision | None]:
    try:
        return list(router.route_batch(queries))
    except PolicyError:  # a budget that no LLM fits by this router's predictions
        if len(queries) == 1:
            return [None]
        return [made for query in queries for made in _decided(router, [query])]


def _versions(rows: LoggedRows, name: str) -> list[str]:
    return sorted({one.version for row in rows.made for one in row if one.router == name})


def _told(found: Estimate) -> dict[str, Any]:
    plain = asdict(found)
    return {
        **{key: plain[key] for key in _DIAGNOSTICS},
        "logged": _values(found.logged),
        "difference": _values(found.difference),
        "estimates": {name: _values(values) for name, values in found.values.items()},
    }


_DIAGNOSTICS = (
    "rows", "clusters", "agreement", "mean_weight", "effective_rows", "largest_weight",
    "without_support", "warnings",
)  # fmt: skip


def _values(values: Sequence[Value]) -> dict[str, dict[str, float]]:
    return {name: asdict(value) for name, value in zip(REWARDS, values, strict=True)}


def _experiments(rows: LoggedRows, config: DecisionsConfig) -> dict[str, Any]:
    """Return the means of the arms of each experiment, by what each arm's own users got."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(row["experiment"] for row in rows.rows if row["experiment"]):
        inside = np.array(
            [i for i, row in enumerate(rows.rows) if row["experiment"] == name], np.intp
        )
        arms = [rows.rows[i]["arm"] for i in inside]
        order = sorted(set(arms), key=lambda arm: (-arms.count(arm), arm))
        number: NDArray[np.intp] = np.array([order.index(arm) for arm in arms], np.intp)
        means, differences = mean_of_arms(
            rows.logged.taken(inside), number, draws=config.draws, seed=config.seed
        )
        found[name] = {
            arm: {
                "rows": arms.count(arm),
                "share": float(np.mean([rows.rows[i]["arm_share"] for i in inside[number == j]])),
                "mean": _values(means[j]),
                "difference": None if j == 0 else _values(differences[j]),
            }
            for j, arm in enumerate(order)
        }
    return found


def _of_the_log(rows: LoggedRows) -> list[str]:
    told = []
    unrated = rows.left_out.get("without feedback", 0)
    total = unrated + len(rows.rows)
    if unrated:
        told.append(
            f"{len(rows.rows) / total:.0%} of the answers have feedback; where people rate answers "
            "for what they are like, the others may be better or worse"
        )
    some = len(rows.unpriced) < len({row["decided_model"] for row in rows.rows})
    if rows.unpriced and some:
        told.append(
            f"the dollars of {', '.join(rows.unpriced)} are unknown, so dollars are not compared: "
            "set prices in the Serve file"
        )
    if rows.lam and not math.isfinite(rows.cost_ref_usd):
        told.append("no dollars are compared, so utility is not")
    told += [
        f"the shares of experiment {name} changed in the log: a difference of its arms may be one "
        "of times; give new shares a new name, with the old one as salt"
        for name in _with_new_shares(rows.rows)
    ]
    return told


def _with_new_shares(rows: Sequence[Row]) -> list[str]:
    """Return the experiments in which the share of an arm changed."""
    shares: dict[tuple[str, str], set[float]] = {}
    for row in rows:
        if row["experiment"]:
            shares.setdefault((row["experiment"], row["arm"]), set()).add(row["arm_share"])
    return sorted({name for (name, _), known in shares.items() if len(known) > 1})
