"""``waypost new-router``: a plug-in folder to begin with."""

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
    """Learns one linear function for each LLM, from the questions on which it was measured.

    Args:
        alpha: Pull towards each LLM's mean score, counted in questions.

    Learned by ``fit`` (d is the width of an embedding; what is learned ends in ``_``):
        weights_: (d, n_llms).
        offsets_: (n_llms,).
    """

    new_model_support = "few-shot"  # a few measured questions, and another fit
    row_count_parameters = ("alpha",)
    parameter_constraints = {"alpha": Real(0, open_low=True)}

    def __init__(self, alpha=1.0):
        self.alpha = alpha

    def _fit(self, data):
        # data.quality is (n_queries, n_llms), NaN where an LLM was not measured
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
        # the score that each LLM would earn on each query, from 0 to 1; Waypost weighs the cost
        quality = batch.embeddings @ self.weights_ + self.offsets_
        return Prediction(quality=quality.clip(0, 1))
''')

SCORE_CONFIG = """\
# Parameters of the router; `waypost train ... alpha=2` and a train config win over them.
alpha: 1.0
"""

SCORE_TEST = Template('''\
"""The checks that every router of Waypost passes, and what this one is for."""

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
    data = planted(40, seed=7)  # questions it has not seen
    decisions = fitted(HERE.name).route_batch(data.queries)
    right = [SPECIALIST[t] == d.model for t, d in zip(data.task_names, decisions, strict=True)]
    assert sum(right) >= 38
''')

PLAIN = Template('''\
"""Short questions go to the cheapest LLM, long ones to the dearest."""

import math

from waypost import Decision, MetaRouter


class $cls(MetaRouter):
    """Decides by the length of the question.

    `self.candidates` are the LLMs to choose from, with what is known of each (name, size,
    input_price, ...). Waypost sets them, leaves out those that a request may not use, and checks
    every decision.

    Args:
        characters: Length from which a question is long.
    """

    def __init__(self, characters=200):
        self.characters = characters

    def route_single(self, query):
        text = query if isinstance(query, str) else query["query"]
        long = len(text) >= self.characters
        llms = sorted(self.candidates, key=_price, reverse=long)
        reason = f"a {'long' if long else 'short'} question"
        ranking = tuple(llm.name for llm in llms)  # the rest is asked where the first one fails
        return Decision(ranking[0], ranking, reason=reason)

    def route_batch(self, queries):
        return [self.route_single(query) for query in queries]


def _price(llm):
    return math.inf if llm.blended_price is None else llm.blended_price
''')

PLAIN_CONFIG = """\
# Parameters of the router; `waypost train ... characters=300` and a train config win over them.
characters: 200
"""

PLAIN_TEST = Template('''\
"""What this router is for, as route, evaluate and serve see it."""

from pathlib import Path

import pytest

from waypost.registry import make_trainable
from waypost.testing.synthetic import planted

HERE = Path(__file__).resolve().parent


@pytest.fixture
def router():
    router = make_trainable(HERE.name, plugin_paths=[HERE.parent])
    return router.fit(planted(20))  # the LLMs cook, prover (the dearest) and tiny (the cheapest)


def test_long_questions_go_to_the_dearest(router):
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
        kind: ``score`` learns from routing data; ``plain`` decides by a rule.
    """
    score = kind == "score"
    router, config, test = (
        (SCORE, SCORE_CONFIG, SCORE_TEST) if score else (PLAIN, PLAIN_CONFIG, PLAIN_TEST)
    )
    return {
        "router.py": router.substitute(cls=class_name(name)),
        "config.yaml": config,
        # its own name: pytest refuses two files of one name in folders that are no packages
        f"test_{name}.py": test.substitute(),
    }


def class_name(name: str) -> str:
    """Return a name for the class that is unlike any that the file imports."""
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
    help="score learns each LLM's score from routing data; plain decides by a rule of its own.",
)
@click.option(
    "--dir",
    "parent",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("custom_routers"),
    show_default=True,
    help="Where its folder is written.",
)
def command(name: str, kind: str, parent: Path) -> None:
    """Write a working router of your own, to change.

    It is a folder NAME with router.py, config.yaml and a test. Every command finds the routers in
    ./custom_routers, ~/.waypost/plugins and the folders of WAYPOST_PLUGINS.
    """
    from waypost.config import settings

    folder = write_plugin(name, kind, parent)
    for path in sorted(folder.iterdir()):
        click.echo(f"wrote {path}")
    if parent.resolve() not in [path.resolve() for path in settings().plugin_paths]:
        click.echo(f"to have it found: export WAYPOST_PLUGINS={parent.resolve()}")
    click.echo(f"next: pytest {folder}")
    click.echo(f"      waypost train --router {name} --data DIR --out artifacts/{name}")


def write_plugin(name: str, kind: str, parent: Path) -> Path:
    """Write a plug-in folder, all of it or nothing, and return it.

    Raises:
        ConfigError: the name cannot be used, the folder exists, or it cannot be written.
    """
    from waypost.contracts.atomic import replacing_folder
    from waypost.contracts.errors import ConfigError, Fault
    from waypost.registry import list_routers

    folder = parent / name
    if not (name.isidentifier() and name.isascii()) or keyword.iskeyword(name) or name[0] == "_":
        problem = "expected letters, digits and _, a letter first, such as my_router"
        raise ConfigError([Fault(f"name {name!r}", problem)])
    for entry in list_routers():
        if entry.name == name:
            problem = f"there is a router of that name: {entry.source}, {entry.location}"
            raise ConfigError([Fault(f"name {name!r}", problem)])
    if folder.exists():
        raise ConfigError([Fault(str(folder), "exists; take another name, or remove it")])
    try:
        with replacing_folder(folder) as partial:
            for file, text in plugin_files(name, kind).items():
                (partial / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError([Fault(str(folder), f"cannot be written: {error.strerror}")]) from None
    return folder
