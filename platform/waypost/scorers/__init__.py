"""Scorers: pure functions that score an answer, found by the name of a metric.

=============  ==================================================================
exact_match    the normalised answer equals an accepted answer
f1             token F1 with the best accepted answer (partial credit)
short_answer   the first 25 words contain an accepted answer (fair to verbose models)
letter         the final option equals the right option
number         the final number equals an accepted number
math           the final expression equals an accepted one, by value or algebra (math-verify)
code           the program passes the tests in a sandbox
=============  ==================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from waypost.contracts.errors import RegistryError, names
from waypost.contracts.wording import did_you_mean
from waypost.scorers.letters import letter_match
from waypost.scorers.maths import maths_match
from waypost.scorers.numeric import number_match
from waypost.scorers.own_answer import answer_field, own_answer
from waypost.scorers.program import code_match
from waypost.scorers.text import exact_match, short_answer, token_f1, without_reasoning

SCORER_VERSION = "4"
"""Stored with every score; increased whenever any response could score differently."""

Truth = str | Sequence[str]
Choices = Sequence[Mapping[str, str]] | None

Scorer = Callable[[str, Truth, Choices, str | None], float]
"""Function of (response, ground_truth, choices, query) to a score in [0, 1]."""

_METRICS: dict[str, Scorer] = {
    "exact_match": lambda response, truth, choices, query: exact_match(response, truth),
    "f1": lambda response, truth, choices, query: token_f1(response, truth),
    "short_answer": lambda response, truth, choices, query: short_answer(response, truth),
    "letter": lambda response, truth, choices, query: letter_match(response, truth, choices),
    "number": lambda response, truth, choices, query: number_match(response, truth),
    "math": lambda response, truth, choices, query: maths_match(response, truth, query),
    "code": lambda response, truth, choices, query: code_match(response, truth, query),
}
_PROGRAMS = frozenset({"code"})
"""Metrics of programs, in which JSON and lines such as "input:" are no sign of anything."""

METRICS = tuple(_METRICS)
"""Names of all metrics."""

# Names of the same metrics in LLMRouter's data sets.
_ALIASES = {
    "em": "exact_match",
    "f1_score": "f1",
    "em_mc": "letter",
    "gsm8k": "number",
    "code_eval": "code",
}


def metric_name(metric: str) -> str:
    """Return the registered name of a metric; resolves case, surrounding blanks and aliases.

    Raises:
        RegistryError: no metric has that name.
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
    """Return the score of one answer, in [0, 1].

    Text between ``<think>`` tags is not part of the answer, nor is a further question that the LLM
    asked itself; an answer in a field of a JSON object (``{"answer": 18}``) is that field's value.
    The last two do not hold for programs and for scorers of benchmarks. A failed call has no
    answer: do not score it, its performance is null.

    Args:
        metric: Name of a metric (see the module), or a scorer such as
            `waypost.benchmarks.catalog.find_scorer` returns for a benchmark's own metric.
        response: The unchanged response of the LLM.
        ground_truth: An accepted answer or several; for ``code`` the tests.
        choices: Options with ``label`` and ``text``, for ``letter``.
        query: The prompt, for ``code`` (a response may be a function's body only) and ``math``
            (a repeated formula of the question is not an answer).

    Raises:
        RegistryError: no metric has that name.
        PluginError: the metric of a plug-in fails.
        SandboxError: ``code`` or ``math`` cannot start its process.
        MissingExtraError: ``math`` needs math-verify, which is not installed.
    """
    said = without_reasoning(response)
    if not isinstance(metric, str):
        return metric(said, ground_truth, choices, query)
    name = metric_name(metric)
    if name not in _PROGRAMS:
        said = own_answer(said)
        field = answer_field(said)
        said = said if field is None else field
    return _METRICS[name](said, ground_truth, choices, query)


__all__ = ["METRICS", "SCORER_VERSION", "Scorer", "metric_name", "score"]
