"""report.md: the tables of an evaluation, and how each number was computed."""

from __future__ import annotations

from waypost.report import tables
from waypost.report.numbers import percent
from waypost.report.tables import Report


def render(report: Report) -> str:
    """Return report.md of a report (null where a number cannot be computed)."""
    parts = [
        ["# Evaluation", "", *_facts(report)],
        ["## Routers", "", *tables.routers(report)],
        *([tables.failed(report)] if report["failed"] else []),
        *([lines] if (lines := tables.by_seed(report)) else []),
        tables.unseen(report),
        ["## Quality by task, lambda 0", "", *tables.tasks(report)],
        ["## Single LLMs", "", *tables.llms(report)],
        *tables.prices(report),
        ["## At the best single LLM's cost", "", *tables.matched(report)],
        *tables.two_models(report),
        ["## Predictions", "", *tables.predictions(report)],
        ["## Paired tests and hard questions", "", *tables.paired(report)],
        *tables.episodes(report),
        ["## Plots", "", *_plots(report)],
        ["## How the numbers were computed", "", *_how(report)],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _facts(report: Report) -> list[str]:
    seeds = report["seed"]
    lines = [
        f"- data digest `{report['data_digest']}`",
        f"- {report['split']} split: {report['n_queries']:g} queries of "
        f"{len(report['tasks'])} tasks, {len(report['llms'])} LLMs; "
        f"training split: {report['n_train']:g} queries",
        f"- seed{'s' if isinstance(seeds, list) else ''} "
        f"{', '.join(map(str, seeds)) if isinstance(seeds, list) else seeds}",
        f"- cost: {report['cost_basis']}",
    ]
    if report.get("command"):
        lines.append(f"- `{report['command']}`")
    return lines


def _plots(report: Report) -> list[str]:
    files = {
        "curve.png": "Cost and quality of each router, hull of the single LLMs, oracle",
        "usage.png": "Who answers, by lambda",
        "reliability.png": "Predicted and measured scores",
    }
    return [f"![{text}]({name})" for name, text in files.items()]


def _how(report: Report) -> list[str]:
    how = report["how"]
    lines = [
        "Replay: each choice is looked up in the measured outcomes; no LLM was called. A choice "
        "that was not measured is left out and counted, never 0.",
        "Intervals: paired bootstrap over queries, near-duplicates drawn together, percentile "
        f"95 %, {how['bootstrap_draws']} draws; curve metrics, and those of predictions, computed "
        f"anew in {how['curve_draws']} of them."
        + (
            " Numbers are means over the seeds; intervals from nested draws of seeds and queries, "
            "in which a query weighs alike in every split that holds it."
            if isinstance(report["seed"], list)
            else ""
        ),
        "Best single and cheapest are chosen on the training split. Task oracle: the best LLM of "
        "the query's true task by training means. Zero router: the hull of the single LLMs on "
        "this split. Oracle: the cheapest of the best LLMs of each query; it profits from luck.",
        "AIQ: area below the non-decreasing convex hull of (mean cost, mean quality) over lambda, "
        "from the cheapest to the dearest single LLM's mean cost on this split, divided by that "
        "range; the hull starts at the cheapest single LLM and goes on flat to the right. "
        "`aiq_log` in report.json is the same over log cost.",
        "CostSave@x: 1 - cost of the cheapest setting of at least x of the best single LLM's "
        "quality / the best single LLM's cost. PerfGain: best setting's quality over the best "
        "single LLM's, minus 1. Both look for a setting on this split, so they are a little "
        "optimistic. Headroom: share of oracle minus best single that is reached at lambda 0.",
        "Delta IBC: quality gained for a dollar beyond the cheapest single LLM, over what the best "
        "single LLM gains for one, minus 1; above 0 lies above the line between the two.",
        "Hypervolume: share of the box up to the dearest single LLM's cost and above random's "
        "quality that the settings dominate, without mixing. Arena score: RouterArena's, of "
        "quality and cost at lambda 0.",
        "Brier, log loss, ECE (15 bins of equal mass) and AUROC (for a score of at least .5, mean "
        "of the LLMs): over measured cells; by LLM in report.json. Kendall tau-b and NDCG: the "
        "order of each query's LLMs, over queries whose scores differ.",
        "Quality over coverage: some queries fall back to the best single LLM, those of low "
        "confidence or of little predicted gain; mean over all coverages. Over random order: that "
        "minus the same with queries in random order; above 0 the order tells where the router "
        "helps. Cost error: median of |predicted - spent| / spent over all calls; n/a where the "
        "data's costs are of parts of calls.",
        "APGR: mean over all shares of strong calls of the part of the gap between the two LLMs "
        "that is closed, .5 at random; CPT(x): least share that closes x of it (RouteLLM). Not "
        f"stated for a gap below {how['least_gap_errors']:g} standard errors.",
        "The row that others are compared with has the highest quality on this split; where the "
        "interval holds 0 the two cannot be told apart.",
        "Routers of several calls: escalated is the share of queries whose answer is not that of "
        "the LLM asked first; of the kept answers some are wrong, of those left some were right. "
        "Calls include verdicts.",
        "Decision ms: text to decision, one at a time, embedding included, on "
        f"{how['timed']:g} texts; flips: mean share of {how['rewritten']:g} texts whose choice "
        "changes with case, blanks, punctuation or typos. Fit s: without embedding.",
        "Lambda 1e9: cost alone decides. Dollars are those of 1,000 queries, in report.json, too.",
        f"A mean cost is stated where at most {percent(how['most_unknown_cost'])} of the calls "
        "have none.",
    ]
    return [f"- {line}" for line in lines]
