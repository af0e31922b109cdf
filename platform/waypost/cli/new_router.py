"""``waypost new-router``: write a plug-in folder to start from."""

from __future__ import annotations

import keyword
from pathlib import Path
from string import Template

import click

SCORE = Template('''\
"""Ridge regression: each LLM's score as a linear function of the question's embedding."""

import numpy as np

from waypost import ScoreRouter
from waypost.contracts.parameters import Real
from waypost.contracts.router import Prediction


class $cls(ScoreRouter):
    """A router with one linear function per LLM, fitted on the questions with a score.

    Args:
        alpha: Strength of the pull towards each LLM's mean score, in questions.

    Learned by ``fit`` (d is the embedding dimension; names of learned attributes end in ``_``):
        weights_: (d, n_llms).
        offsets_: (n_llms,).
    """

    new_model_support = "few-shot"  # a new LLM needs a few measured questions and another fit
    row_count_parameters = ("alpha",)
    parameter_constraints = {"alpha": Real(0, open_low=True)}

    def __init__(self, alpha=1.0):
        self.alpha = alpha

    def _fit(self, data):
        # data.quality is (n_queries, n_llms); NaN marks a missing score
        x = data.embeddings.astype(np.float64)
        columns = [self._fit_one(x, scores) for scores in data.quality.T]
        self.weights_ = np.stack([weights for weights, _ in columns], axis=1)
        self.offsets_ = np.array([offset for _, offset in columns])

    def _fit_one(self, x, scores):
        measured = ~np.isnan(scores)
        x, scores = x[measured], scores[measured]
        center, mean = x.mean(axis=0), scores.mean()
        x = x - center
        gram = x.T @ x + self.alpha * np.eye(x.shape[1])
        weights = np.linalg.solve(gram, x.T @ (scores - mean))
        return weights, mean - center @ weights

    def _predict(self, batch):
        # the predicted score of each LLM on each query, from 0 to 1; Waypost adds the cost
        quality = batch.embeddings @ self.weights_ + self.offsets_
        return Prediction(quality=quality.clip(0, 1))
''')

SCORE_CONFIG = """\
# Parameters of the router; `waypost train ... alpha=2` and a train config override them.
alpha: 1.0
"""

SCORE_TEST = Template('''\
"""The checks that every router of Waypost passes, and a check of this one."""

from pathlib import Path

import pytest

from waypost.registry import searching
from waypost.testing.fitted_routers import fitted
from waypost.testing.router_contract import all_checks
from waypost.testing.synthetic import SPECIALIST, planted

HERE = Path(__file__).resolve().parent


@pytest.fixture(autouse=True)
def _this_folder():
    with searching([HERE.parent]):
        yield


@pytest.mark.parametrize("check", all_checks(), ids=lambda check: check.__name__)
def test_contract(check):
    check(HERE.name)


def test_each_topic_goes_to_its_specialist():
    data = planted(40, seed=7)  # questions that are not in the training data
    decisions = fitted(HERE.name).route_batch(data.queries)
    right = [SPECIALIST[t] == d.model for t, d in zip(data.task_names, decisions, strict=True)]
    assert sum(right) >= 38
''')

PLAIN = Template('''\
"""Route short questions to the cheapest LLM and long ones to the most expensive."""

import math

from waypost import Decision, MetaRouter


class $cls(MetaRouter):
    """A router that decides by the length of the question.

    `self.candidates` are the LLMs to choose from, with their facts (name, size, input_price,
    ...). Waypost sets them, removes those that a request may not use, and checks every decision.

    Args:
        characters: Minimum length of a long question.
    """

    def __init__(self, characters=200):
        self.characters = characters

    def route_single(self, query):
        text = query if isinstance(query, str) else query["query"]
        long = len(text) >= self.characters
        llms = sorted(self.candidates, key=_price, reverse=long)
        reason = f"a {'long' if long else 'short'} question"
        ranking = tuple(llm.name for llm in llms)  # the next LLM is called if the first one fails
        return Decision(ranking[0], ranking, reason=reason)

    def route_batch(self, queries):
        return [self.route_single(query) for query in queries]


def _price(llm):
    return math.inf if llm.blended_price is None else llm.blended_price
''')

PLAIN_CONFIG = """\
# Parameters of the router; `waypost train ... characters=300` and a train config override them.
characters: 200
"""

PLAIN_TEST = Template('''\
"""Checks of this router, through the interface that route, evaluate and serve use."""

from pathlib import Path

import pytest

from waypost.registry import make_trainable
from waypost.testing.synthetic import planted

HERE = Path(__file__).resolve().parent


@pytest.fixture
def router():
    router = make_trainable(HERE.name, plugin_paths=[HERE.parent])
    return router.fit(planted(20))  # LLMs: cook, prover (most expensive), tiny (cheapest)


def test_long_questions_go_to_the_most_expensive_llm(router):
    assert router.route_single("Why?").model == "tiny"
    assert router.route_single("Why? " * 40).model == "prover"


def test_the_length_is_a_parameter():
    router = make_trainable(HERE.name, {"characters": 3}, [HERE.parent]).fit(planted(20))
    assert router.route_single("Why?").model == "prover"


def test_only_allowed_models_are_chosen(router):
    decision = router.route_single({"query": "Why?", "allowed_models": ["prover", "cook"]})
    assert decision.ranking == ("cook", "prover")


def test_a_batch_is_decided_as_each_query_alone(router):
    queries = ["Why?", "Why? " * 40, {"query": "How?", "task_name": "any"}]
    assert router.route_batch(queries) == [router.route_single(query) for query in queries]
''')


def plugin_files(name: str, kind: str) -> dict[str, str]:
    """Return the content of each file of a new plug-in.

    Args:
        name: Registry name, an identifier.
        kind: ``score`` (learns from routing data) or ``plain`` (decides by a rule).
    """
    score = kind == "score"
    router, config, test = (
        (SCORE, SCORE_CONFIG, SCORE_TEST) if score else (PLAIN, PLAIN_CONFIG, PLAIN_TEST)
    )
    return {
        "router.py": router.substitute(cls=class_name(name)),
        "config.yaml": config,
        # pytest rejects two test files of the same name outside of packages
        f"test_{name}.py": test.substitute(),
    }


def class_name(name: str) -> str:
    """Return a class name that differs from those that the file imports."""
    words = "".join(word.capitalize() for word in name.split("_"))
    found = words if words.endswith("Router") else f"{words}Router"
    return f"My{found}" if found in {"ScoreRouter", "MetaRouter", "Router"} else found


@click.command("new-router", epilog="Example: waypost new-router myrouter")
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(["score", "plain"]),
    default="score",
    show_default=True,
    help="score: learns each LLM's score from routing data; plain: decides by a rule.",
)
@click.option(
    "--dir",
    "parent",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("custom_routers"),
    show_default=True,
    help="Parent of the new folder.",
)
def command(name: str, kind: str, parent: Path) -> None:
    """Write a working router plug-in to start from.

    Writes a folder NAME with router.py, config.yaml and a test. Every command searches
    ./custom_routers, ~/.waypost/plugins and the folders in WAYPOST_PLUGINS for routers.
    """
    from waypost.config import settings

    folder = write_plugin(name, kind, parent)
    for path in sorted(folder.iterdir()):
        click.echo(f"wrote {path}")
    if parent.resolve() not in [path.resolve() for path in settings().plugin_paths]:
        click.echo(f"to make it available: export WAYPOST_PLUGINS={parent.resolve()}")
    click.echo(f"next: pytest {folder}")
    click.echo(f"      waypost train --router {name} --data DIR --out artifacts/{name}")


def write_plugin(name: str, kind: str, parent: Path) -> Path:
    """Write a plug-in folder atomically and return its path.

    Raises:
        ConfigError: the name is invalid or taken, or the folder exists or cannot be written.
    """
    from waypost.contracts.atomic import replacing_folder
    from waypost.contracts.errors import ConfigError, Fault
    from waypost.registry import list_routers

    folder = parent / name
    if not (name.isidentifier() and name.isascii()) or keyword.iskeyword(name) or name[0] == "_":
        problem = "expected a letter, then letters, digits and _, such as my_router"
        raise ConfigError([Fault(f"name {name!r}", problem)])
    for entry in list_routers():
        if entry.name == name:
            problem = f"a router of that name exists: {entry.source}, {entry.location}"
            raise ConfigError([Fault(f"name {name!r}", problem)])
    if folder.exists():
        raise ConfigError([Fault(str(folder), "exists; choose another name or remove it")])
    try:
        with replacing_folder(folder) as partial:
            for file, text in plugin_files(name, kind).items():
                (partial / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError([Fault(str(folder), f"cannot be written: {error.strerror}")]) from None
    return folder
