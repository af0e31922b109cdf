"""METRICS: every number of an evaluation, one row each.

A new metric is a row here (with its function, here or in another module of the package) and a test.
The tables and notes of a report, report.json and the documentation's reference use this table.

In a formula s[i,j] is the measured score of LLM j on question i and p[i,j] the predicted score; Q
and C are the mean score and dollars of the choices at lambda 0. Cells that were not measured are
left out.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from waypost.metrics import live_metrics as live
from waypost.metrics import predictions
from waypost.metrics import subject_metrics as of
from waypost.metrics.behaviour import picks_best, solver_recall, usage_entropy
from waypost.metrics.comparison import CURVE_DRAWS, mean
from waypost.metrics.curves import arena_score
from waypost.metrics.intervals import interval
from waypost.metrics.measure import Metric, Need, headline_draws

ROUTERS = "Routers"
MATCHED = "At the best single LLM's cost"
TWO = "With two LLMs"
PREDICTIONS = "Predictions"
PAIRED = "Paired tests and hard questions"
CALLS = "Calls and seconds"

_BENCH = "LLMRouterBench, arXiv 2601.07206"
_ROUTELLM = "RouteLLM, arXiv 2406.18665"
_ROUTERBENCH = "RouterBench, arXiv 2403.12031"
_AUTOMIX = "AutoMix, arXiv 2310.12963"

_COSTS: tuple[Need, ...] = ("scores", "costs")
_CURVE: tuple[Need, ...] = ("scores", "costs", "curve")
_PREDICTED: tuple[Need, ...] = ("scores", "predictions")


METRICS = (
    # The main table: quality and cost at lambda 0, the curve, how the router behaves.
    Metric(
        "quality", "quality", "Q", lambda s: mean(s.first.quality), "score", "higher",
        table=ROUTERS, draws=lambda s: s.once(headline_draws)[:, 0],
    ),
    Metric(
        "cost_usd_per_1k", "USD per 1k", "1000 C",
        lambda s: 1000 * float(s.curve.cost_usd[0]), "USD per 1,000 queries",
        "lower", ("costs",), ROUTERS,
    ),
    Metric(
        "delta_best_single", "vs best single",
        "Q less that of the best single LLM (chosen by training), on the same questions",
        lambda s: mean(s.difference), "score", "higher", table=ROUTERS, signed=True,
        draws=lambda s: s.once(headline_draws)[:, 1], ends=("delta_low", "delta_high"),
    ),
    *(
        Metric(
            f"cost_save{key}", f"CostSave@{share} %",
            f"1 - cost of the cheapest setting of at least {share} % of the best single LLM's "
            "quality / that LLM's cost; n/a is not reached",
            partial(of.cost_save, share=share / 100),
            "share", "higher", _CURVE, table, source=_BENCH,
        )
        for key, share, table in (
            ("", 100, ROUTERS), ("_95", 95, ROUTERS), ("_99", 99, MATCHED), ("_90", 90, MATCHED),
        )
    ),
    Metric(
        "perf_gain", "PerfGain",
        "highest Q of a setting / Q of the best single LLM - 1; the setting is selected on the "
        "evaluated split, so it is slightly optimistic",
        lambda s: of.ratio(of.highest(s) - of.best_quality(s), of.best_quality(s)),
        "share", "higher", ("scores", "curve"), table=ROUTERS, source=_BENCH,
    ),
    Metric(
        "aiq", "AIQ",
        "area below the non-decreasing convex hull of (C, Q) over lambda, from the mean cost of "
        "the cheapest to that of the most expensive single LLM, divided by that range; the hull "
        "starts at the cheapest single LLM and is flat to the right of its last corner",
        of.aiq, "score", "higher", _CURVE, ROUTERS,
        draws=lambda s: s.once(of.aiq_draws), source=_ROUTERBENCH,
    ),
    Metric(
        "delta_aiq", "AIQ vs zero", "AIQ less that of the zero router",
        lambda s: of.aiq(s) - of.zero_aiq(s), "score", "higher", _CURVE, ROUTERS,
        draws=of.delta_aiq_draws, source=_ROUTERBENCH, signed=True,
    ),
    Metric(
        "aiq_log", "AIQ, log cost", "AIQ over the logarithm of cost",
        lambda s: of.aiq(s, log=True), "score", "higher", _CURVE,
    ),
    Metric(
        "gap_oracle", "Gap@Oracle", "1 - Q / Q of the oracle",
        lambda s: 1 - of.ratio(mean(s.first.quality), of.oracle_quality(s)),
        "share", "lower", table=ROUTERS, source=_BENCH,
    ),
    Metric(
        "recovered_headroom", "headroom",
        "(Q - Q of the best single LLM) / (Q of the oracle - Q of the best single LLM)",
        lambda s: of.ratio(mean(s.difference), of.oracle_quality(s) - of.best_quality(s)),
        "share", "higher", table=ROUTERS,
    ),
    Metric(
        "decision_ms_p50", "decision ms p50",
        "median time from text to decision, one question at a time, embedding included, of at most "
        "200 questions",
        lambda s: s.once(live.latency)[0], "ms", "lower", ("router",), ROUTERS,
    ),
    Metric(
        "decision_ms_p99", "decision ms p99", "99th percentile of the same",
        lambda s: s.once(live.latency)[1], "ms", "lower", ("router",), ROUTERS,
    ),
    Metric(
        "usage_entropy", "usage entropy",
        "entropy of usage / log of the number of LLMs; 0 is one LLM for all",
        lambda s: usage_entropy(s.once(of.shares)), "0 to 1", table=ROUTERS,
        source="RouterEval, arXiv 2503.10657",
    ),
    Metric(
        "collapse_index", "collapse",
        "largest share of an LLM less the oracle's largest; above 0 the choice has collapsed",
        of.collapse, "share", "lower", table=ROUTERS, signed=True, source="arXiv 2602.03478",
    ),
    Metric(
        "flip_rate", "flips",
        "share of at most 100 questions whose choice changes, mean over case, blanks, punctuation "
        "and typos", lambda s: sum(s.once(live.flip_rates).values()) / len(s.once(live.flip_rates)),
        "share", "lower", ("router",), ROUTERS,
    ),
    Metric(
        "flips", "flips by kind", "`flip_rate` of each change",
        lambda s: s.once(live.flip_rates), "share", "lower", ("router",),
    ),
    Metric(
        "seed_disagreement", "seeds apart",
        "share of questions that two fits, with this seed and the next, route differently; n/a if "
        "the fit has no seed",
        live.seed_disagreement, "share", "lower", ("router",), ROUTERS, on_request=True,
    ),
    Metric(
        "fit_s", "fit s", "time of the fit without embedding", lambda s: s.live and s.live.fit_s,
        "s", "lower", ("router",), ROUTERS,
    ),
    Metric(
        "quality_at_cost", "best quality within {} % of its cost",
        "best Q of a setting within 10, 25, 50, 75 and 100 % of the best single LLM's cost",
        lambda s: of.at_costs(s.curve.points(s.curve.cost_usd), of.best_usd(s)),
        "score", "higher", _CURVE, MATCHED,
        unknown={str(share): np.nan for share in of.SHARES},
    ),
    Metric(
        "hypervolume", "hypervolume",
        "share of a box that the settings dominate, without mixing; the box is cost 0 to that of "
        "the most expensive single LLM, and quality of a random choice to 1",
        of.dominated, "0 to 1", "higher", _CURVE, MATCHED, source="Zitzler and Thiele, 1999",
    ),
    Metric(
        "arena_score", "arena score",
        "(1 + b) Q K / (b Q + K), b = .1, K = log(200 / c) / log(200 / .0044), c the USD per 1,000 "
        "questions within [.0044, 200]",
        lambda s: arena_score(float(s.curve.quality[0]), 1000 * float(s.curve.cost_usd[0])),
        "0 to 1", "higher", _COSTS, MATCHED, source="RouterArena, arXiv 2510.00202",
    ),
    # Two LLMs alone.
    Metric(
        "apgr", "APGR",
        "share of the gap between two LLMs (the cheapest and the best single one) that is closed, "
        "mean over all shares of strong calls; about .5 at random; n/a for a gap below two "
        "standard errors", of.apgr, "share", "higher", _PREDICTED, TWO, draws=of.apgr_draws,
        source=_ROUTELLM,
    ),
    *(
        Metric(
            f"cpt_{part}", f"CPT({part} %)",
            f"smallest share of strong calls that closes {part} % of the gap",
            partial(of.cpt, part=part / 100), "share", "lower", _PREDICTED, TWO, source=_ROUTELLM,
        )
        for part in (50, 80, 95)
    ),
    # What was predicted.
    Metric(
        "brier", "Brier", "mean of (p - s)^2 over measured cells",
        lambda s: predictions.brier(s.predicted, s.scores), "score squared", "lower",
        _PREDICTED, PREDICTIONS, source="Brier, 1950",
    ),
    Metric(
        "log_loss", "log loss", "mean of -(s log p + (1 - s) log(1 - p)), p in [1e-6, 1 - 1e-6]",
        lambda s: predictions.log_loss(s.predicted, s.scores), "nats", "lower",
        _PREDICTED, PREDICTIONS,
    ),
    Metric(
        "ece", "ECE", "mean distance of predicted and measured over 15 bins of equal mass",
        lambda s: predictions.calibration_error(s.once(of.bins)), "score", "lower",
        _PREDICTED, PREDICTIONS,
    ),
    Metric(
        "auroc", "AUROC (worst to best LLM)",
        "mean over LLMs of the area below the ROC curve for a score of at least .5",
        lambda s: mean([one["auroc"] for one in s.once(of.by_llm).values()]),
        "0 to 1", "higher", _PREDICTED, PREDICTIONS,
    ),
    Metric(
        "kendall_tau", "Kendall tau",
        "mean over questions with different scores of tau-b between predicted and measured order "
        "of the LLMs", lambda s: mean(s.once(of.kendall)), "-1 to 1", "higher", _PREDICTED,
        PREDICTIONS, signed=True, source="Kendall, 1945",
        draws=lambda s: s.comparison.bootstrap.means(s.once(of.kendall), CURVE_DRAWS)[:, 0],
    ),
    Metric(
        "ndcg", "NDCG",
        "mean over questions with different scores of DCG by falling prediction / DCG of the best "
        "order", lambda s: mean(predictions.ndcg(s.predicted, s.scores)), "0 to 1", "higher",
        _PREDICTED, PREDICTIONS, source="Järvelin and Kekäläinen, 2002",
    ),
    *(
        row
        for key, by, order, source in (
            ("selective", of.by_confidence, "confidence", "arXiv 1705.08500"),
            ("margin", of.by_margin, "predicted gain over the best single LLM", ""),
        )
        for row in (
            Metric(
                f"{key}_area", f"by {order}: quality over coverage",
                f"mean quality over all shares of questions that the router decides, those of high "
                f"{order} first; the others go to the best single LLM",
                partial(of.selective_area, by=by), "score", "higher",
                _PREDICTED, PREDICTIONS, source=source,
            ),
            Metric(
                f"{key}_gain", f"by {order}: over random order",
                f"`{key}_area` less that of a random order; above 0 the order shows where the "
                "router helps", partial(of.selective_gain, by=by), "score", "higher",
                _PREDICTED, PREDICTIONS, signed=True, draws=partial(of.selective_draws, by=by),
            ),
            Metric(
                f"{key}_curve", "", f"`{key}_area` at each coverage",
                partial(of.selective_curve, by=by), needs=_PREDICTED, unknown=[],
            ),
        )
    ),
    Metric(
        "cost_error", "cost error",
        "median of |predicted - spent| / spent over all calls; n/a if the data has only part of "
        "the cost of calls",
        lambda s: s.once(of.dollars)[0], "share", "lower", ("costs", "predictions"), PREDICTIONS,
    ),
    Metric(
        "cost_too_low", "cost too low", "share of calls that cost more than predicted",
        lambda s: s.once(of.dollars)[1], "share", needs=("costs", "predictions"), table=PREDICTIONS,
    ),
    Metric(
        "reliability", "", "predicted, measured and number of cells of each of the bins of `ece`",
        lambda s: s.once(of.bins), needs=_PREDICTED, unknown=[],
    ),
    Metric(
        "by_llm", "", "`brier`, `log_loss`, `ece` and `auroc` of each LLM",
        lambda s: s.once(of.by_llm), needs=_PREDICTED, unknown={},
    ),
    # Paired tests, and checks of the policy.
    Metric(
        "delta_top", "vs the best",
        "Q less the highest Q of a router on this split; not significant if the interval contains "
        "0", None, "score", "higher", ("scores", "other routers"), PAIRED, signed=True,
        ends=("delta_top_low", "delta_top_high"),
    ),
    Metric(
        "wins", "wins", "questions where the score is above the best single LLM's",
        partial(of.count, sign=1), "queries", "higher", table=PAIRED,
    ),
    Metric(
        "ties", "ties", "questions where the score is equal to the best single LLM's",
        partial(of.count, sign=0), "queries", table=PAIRED,
    ),
    Metric(
        "losses", "losses", "questions where the score is below the best single LLM's",
        partial(of.count, sign=-1), "queries", "lower", table=PAIRED,
    ),
    Metric(
        "mcnemar_p", "McNemar p",
        "two-sided exact p of McNemar's test against the best single LLM, for scores of 0 and 1",
        of.mcnemar_p, "p", source="McNemar, 1947",
    ),
    Metric(
        "mcnemar_p_holm", "McNemar p (Holm)", "`mcnemar_p` corrected for the number of routers",
        None, "p", needs=("scores", "other routers"), table=PAIRED, source="Holm, 1979",
    ),
    Metric(
        "picks_best", "picks a best LLM",
        "share of questions whose choice has the highest measured score; ties count as right",
        lambda s: picks_best(s.scores, s.first.model), "share", "higher", table=PAIRED,
    ),
    Metric(
        "solver_recall", "solver picked, {} solve it",
        "share of the questions solved by 1, 2, 3 to 5, 6 or more LLMs whose choice solves them",
        lambda s: solver_recall(s.scores, s.first.model), "share", "higher", table=PAIRED,
    ),
    Metric(
        "non_inferior", "not worse by 2 points",
        "lower end of the interval of `delta_best_single` above -.02",
        lambda s: of.non_inferior(interval(s.once(headline_draws)[:, 1])[0]), "yes or no",
        table=PAIRED,
    ),
    Metric(
        "beats_singles", "beats single LLMs",
        "single LLMs that the hull of (C, Q) beats at their own cost", of.beats_singles, "LLMs",
        "higher", _CURVE, PAIRED, unknown=None,
    ),
    Metric(
        "delta_ibc", "delta IBC",
        "100 (slope / slope of the best single LLM - 1), slope = (Q - Q of the cheapest LLM) / (C "
        "- C of the cheapest LLM); above 0 lies above the line between the two LLMs",
        of.delta_ibc_of, "%", "higher", _COSTS, PAIRED, source=_AUTOMIX,
    ),
    Metric(
        "dominates_cheapest", "dominates the cheapest",
        "costs no more than the cheapest LLM and is not worse", of.dominates_cheapest,
        "yes or no", needs=_COSTS, source=_AUTOMIX,
    ),
    Metric(
        "cost_rises", "cost rises", "steps of a rising lambda at which the expected cost rises",
        of.rises, "steps", "lower", ("costs", "predictions"), PAIRED, unknown=None,
    ),
    Metric(
        "not_measured", "not measured", "questions whose choice has no measured score",
        lambda s: int(np.isnan(s.first.quality).sum()), "queries", "lower", table=PAIRED,
    ),
    # The number of calls, and their time.
    Metric(
        "calls", "calls", "mean number of calls per question, with verdicts and failed calls",
        live.calls, "calls", "lower", table=CALLS,
    ),
    Metric(
        "answer_s", "seconds, mean",
        "mean seconds from question to answer by recorded latencies; with several calls the sum "
        "over the steps of the slowest call of each; n/a if latencies are unknown",
        live.answer_s, "s", "lower", table=CALLS,
    ),
    Metric(
        "answer_s_p95", "seconds, p95", "95th percentile of the same",
        live.answer_s_p95, "s", "lower", table=CALLS,
    ),
    # In report.json, and in separate tables.
    *(
        Metric(
            f"gain_{key}", f"Gain@{key}", f"Q / Q of the {name} - 1", partial(of.gain, base=base),
            "share", "higher", source=_BENCH,
        )
        for key, name, base in (
            ("best", "best single LLM", of.best_quality),
            ("random", "random choice", of.random_quality),
        )
    ),
    Metric(
        "macro_quality", "mean of tasks", "mean over tasks of each task's Q",
        lambda s: mean(list(of.tasks(s).values())), "score", "higher",
    ),
    Metric("tasks", "", "Q of each task", of.tasks, "score", "higher"),
    Metric(
        "quality_at_price", "",
        "each list price, best Q within it of one setting, and of a mix of two settings",
        of.at_prices, "score", "higher", ("scores", "list prices", "curve"),
        unknown=[],
    ),
    Metric(
        "list_price", "price at lambda 0",
        "mean list price of the chosen LLMs, three prompt tokens for one generated",
        lambda s: float(s.curve.price[0]), "USD per million tokens", "lower", ("list prices",),
    ),
    Metric(
        "cost_unknown", "", "questions whose choice has no known cost",
        lambda s: int(np.isnan(s.first.cost_usd).sum()), "queries", "lower", ("costs",),
    ),
    Metric(
        "episodes", "",
        "for routers of several calls, at each lambda: `calls` per question, verdicts included; "
        "`escalated`, share answered by an LLM other than the first; `kept_wrong`, share of wrong "
        "answers among the others; `left_right`, share of the escalated whose first answer was "
        "right", of.episodes, source=_AUTOMIX,
    ),
    Metric("usage", "", "share of the questions that each LLM answers", of.usage, "share"),
    Metric("usage_curve", "", "`usage` at each lambda, in the order of the LLMs", of.usage_curve),
    Metric(
        "curve", "", "lambda, Q and USD per 1,000 questions of each setting",
        lambda s: s.curve.points(1000 * s.curve.cost_usd), needs=_COSTS,
    ),
    Metric(
        "curve_price", "", "lambda, Q and list price of each setting",
        lambda s: s.curve.points(s.curve.price), needs=("scores", "list prices"),
    ),
)  # fmt: skip
"""Every number of an evaluation, in the order of columns."""

BY_KEY = {metric.key: metric for metric in METRICS}
