"""Pages of routers, from their docstrings and their classes."""

from __future__ import annotations

import inspect
import re
from typing import Any

from reference_keys import as_json, code, doc_of, fenced, named, page, sections, table

PAPERS = {
    "1003.0146": "LinUCB",
    "2305.05176": "FrugalGPT",
    "2310.12963": "AutoMix",
    "2403.12031": "RouterBench",
    "2404.14618": "Hybrid LLM",
    "2406.18665": "RouteLLM",
    "2407.02348": "Agreement-Based Cascading",
    "2409.19886": "RouterDC",
    "2410.02223": "EmbedLLM",
    "2410.03834": "GraphRouter",
    "2505.12601": "When simple kNN beats complex learned routers",
    "2506.09033": "Router-R1",
    "2508.12631": "Avengers-Pro",
    "2511.08590": "GMTRouter",
    "2511.16883": "PersonalizedRouter",
}
"""Names of the papers that routers cite, by arXiv number."""

FAMILIES = {
    "single-round": "one call of the chosen LLM",
    "multi-round": "several calls; later calls can depend on earlier answers",
    "personal": "one call of an LLM chosen for the user",
    "agentic": "a plan of sub-questions, each routed separately",
}

ROUTERS = """
A router predicts each LLM's score on a query and the cost of the call. One policy for all routers
ranks the LLMs by these predictions (see [architecture](../architecture.md#one-decision)), so a
fitted router works for every lambda, and for new prices without a new fit. `waypost list-routers`
prints this table with plug-ins; [results](../results/routers.md) compares routers."""

NEW_LLM = """
Adding an LLM needs `refit` (a new fit on outcomes of all questions), `few-shot` (a new fit with its
outcomes on some questions) or `zero-shot` (only its price or its size). Every router supports
removing an LLM: it is no longer chosen."""


def router_pages() -> dict[str, str]:
    """Return the page of every built-in router, and the page that lists them."""
    from waypost.registry import check_router, list_routers
    from waypost.registry.classes import load_class

    found, rows = {}, []
    for entry in (entry for entry in list_routers([]) if entry.source == "built-in"):
        facts = check_router(entry)
        found[f"routers/{entry.name}.md"] = router_page(entry.name, facts, load_class(entry))
        needs = facts.new_model_support if facts.trainable else "nothing"
        summary = entry.summary.rstrip(".")
        rows.append([f"[{entry.name}]({entry.name}.md)", facts.family, summary, needs])
    listed = table(["router", "family", "what it does", "a new LLM needs"], rows)
    families = table(["family", "calls of a request"], FAMILIES.items())
    parts = [ROUTERS, listed, NEW_LLM, "## Families", families]
    return {"routers/index.md": page("Routers", *parts), **found}


def router_page(name: str, facts: Any, cls: Any) -> str:
    """Return the page of one router, from its docstrings and its class."""
    doc = doc_of(cls)
    said = sections_of(cls)
    numbers = dict.fromkeys(re.findall(r"\b\d{4}\.\d{4,5}\b", doc + cls.__doc__))
    papers = [f"{PAPERS[n]} ([arXiv {n}](https://arxiv.org/abs/{n}))" for n in numbers]
    rows = [
        ["family", f"{facts.family}: {FAMILIES[facts.family]}"],
        ["learns", "from routing data" if facts.trainable else "nothing"],
        ["looks at the question's embedding", "yes" if facts.needs_embeddings else "no"],
        ["a new LLM needs", facts.new_model_support],
        ["papers", "; ".join(papers) or "none"],
        ["class", f"`{cls.__module__}.{cls.__qualname__}`"],
    ]
    parts = [
        re.sub(r"^`\w+`: (\w)", lambda m: m[1].upper(), doc),
        table(["property", "value"], rows),
    ]
    parts += ["## When to take it", code(said["When to take it"]), "## What it computes", said[""]]
    texts = parameters_of(cls)
    rows = []
    for one in inspect.signature(cls).parameters.values():
        default = "required" if one.default is one.empty else as_json(one.default)
        allowed = cls.parameter_constraints.get(one.name, "anything")
        rows.append([f"`{one.name}`", default, allowed, texts[one.name]])
    if rows:
        head = ["parameter", "default", "allowed", "meaning"]
        parts += ["## Parameters", table(head, rows)]
    for title in (title for title in said if title.startswith("Learned by")):
        extra = code(title).removeprefix("Learned by `fit`").strip(" ,()")
        learned = [[f"`{attribute}`", meaning] for attribute, meaning in named(said[title], "None")]
        parts += ["## Learned", f"{extra[:1].upper()}{extra[1:]}." if extra else ""]
        parts.append(table(["attribute", "content"], learned))
    data = "--data serve_configs/starter/data"
    train = f"waypost train --router {name} {data} --out artifacts/{name}"
    train = f"{train} {said.get('Needed parameters', '')}".rstrip()
    parts += ["## Use it", fenced(said["Example"], "python") if "Example" in said else ""]
    return page(name, *parts, fenced(train, "sh"))


def sections_of(cls: Any) -> dict[str, str]:
    """Return the sections of a class's docstring; what it lacks is that of the nearest base.

    What all routers have is left out: pages would repeat it.
    """
    found: dict[str, str] = {}
    for base in (one for one in cls.__mro__ if one.__module__ != "waypost.contracts.router"):
        titles = {title.partition(" ")[0] for title in found}
        said = sections(vars(base).get("__doc__"))
        found |= {key: text for key, text in said.items() if key.partition(" ")[0] not in titles}
    return found


def parameters_of(cls: Any) -> dict[str, str]:
    """Return the text of each parameter; "As NAME's." is replaced by that router's text."""
    from waypost.registry import router_class

    texts = dict(named(sections_of(cls).get("Args", "")))
    for name, text in texts.items():
        if other := re.fullmatch(r"As (\w+)'s\.", text):
            texts[name] = parameters_of(router_class(other[1]))[name]
    return texts
