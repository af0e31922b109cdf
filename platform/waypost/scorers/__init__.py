"""Scores of answers: pure functions, found by the name of a metric.

=============  ==================================================================
exact_match    normalised text equals an accepted answer
f1             best token F1 with an accepted answer
short_answer   an accepted answer stands in the first 25 words (fair to chatty models)
letter         the option that the answer settles on
number         the final number, by value
math           the final expression, by value or by what it means (math-verify)
code           the program passes the tests, in a sandbox
=============  ==================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from waypost.contracts.errors import RegistryError, names
from waypost.contracts.wording import did_you_mean
from waypost.scorers.letters import letter_match
from waypost.scorers.maths import maths_match
from waypost.scorers.numeric import number_match
from waypost.scorers.program import code_match
from waypost.scorers.text import exact_match, short_answer, token_f1, without_reasoning

SCORER_VERSION = "2"
"""Stored with every score; raised whenever any response could score differently."""

Truth = str | Sequence[str]
Choices = Sequence[Mapping[str, str]] | None

Scorer = Callable[[str, Truth, Choices, str | None], float]
"""Of (response, ground_truth, choices, query) to a score in [0, 1]."""

_METRICS: dict[str, Scorer] = {
    "exact_match": lambda response, truth, choices, query: exact_match(response, truth),
    "f1": lambda response, truth, choices, query: token_f1(response, truth),
    "short_answer": lambda response, truth, choices, query: short_answer(response, truth),
    "letter": lambda response, truth, choices, query: letter_match(response, truth, choices),
    "number": lambda response, truth, choices, query: number_match(response, truth),
    "math": lambda response, truth, choices, query: maths_match(response, truth, query),
    "code": lambda response, truth, choices, query: code_match(response, truth, query),
}
METRICS = tuple(_METRICS)
"""Names of all metrics."""

# The field's own names, as they stand in LLMRouter's data sets.
_ALIASES = {
    "em": "exact_match",
    "f1_score": "f1",
    "em_mc": "letter",
    "gsm8k": "number",
    "code_eval": "code",
}


def metric_name(metric: str) -> str:
    """Return the registered name of a metric; case, blanks round it and aliases are resolved.

    Raises:
        RegistryError: where no metric has that name.
    """
    name = metric.strip().lower()
    name = _ALIASES.get(name, name)
    if name not in _METRICS:
        near = did_you_mean(name, METRICS)
        raise RegistryError(f"no metric {metric.strip()!r}{near}; there are {names(METRICS)}")
    return name


def score(
    metric: str | Scorer,
    response: str,
    ground_truth: Truth,
    choices: Choices = None,
    *,
    query: str | None = None,
) -> float:
    """Score one answer, in [0, 1].

    A call that failed has no answer: its performance is null, and it is never scored. What a
    reasoning model puts between ``<think>`` tags is not its answer.

    Args:
        metric: Name of a metric, see the module, or a function in the place of one, such as
            `waypost.benchmarks.catalog.find_scorer` gives for a benchmark's own.
        response: What the model said, as it said it.
        ground_truth: An accepted answer or several; for ``code`` the tests.
        choices: Options with ``label`` and ``text``, for ``letter``.
        query: The prompt: of ``code``, where a model may give a function's body alone, and of
            ``math``, where repeating the question is no answer.

    Raises:
        RegistryError: where no metric has that name.
        PluginError: where the plug-in's metric fails.
        SandboxError: where ``code`` or ``math`` cannot run the process it needs.
        MissingExtraError: where ``math`` needs math-verify, and it is not installed.
    """
    said = without_reasoning(response)
    scorer = _METRICS[metric_name(metric)] if isinstance(metric, str) else metric
    return scorer(said, ground_truth, choices, query)


__all__ = ["METRICS", "SCORER_VERSION", "Scorer", "metric_name", "score"]
