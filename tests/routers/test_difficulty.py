"""difficulty: what it knows is what this repository made; a threshold splits weak and strong."""

from __future__ import annotations

import numpy as np
import pytest

from waypost.contracts.errors import SchemaError
from waypost.contracts.records import LLMInfo
from waypost.contracts.routing_data import read_routing_data
from waypost.registry import make_trainable
from waypost.registry.rule_router import no_outcomes
from waypost_routers._difficulty.making import make
from waypost_routers._difficulty.model import shipped

WEAK = LLMInfo(name="weak", input_price=0.1, output_price=0.2)
MIDDLE = LLMInfo(name="middle", input_price=0.5, output_price=1.0)
STRONG = LLMInfo(name="strong", input_price=2.0, output_price=8.0)


@pytest.fixture(scope="module")
def questions(root) -> list[str]:
    return list(read_routing_data(root / "serve_configs/starter/data").queries)


def fitted(*llms: LLMInfo, **parameters):
    return make_trainable("difficulty", parameters).fit(no_outcomes(llms or (WEAK, STRONG)))


def share(router, questions, lam: float = 0.0) -> float:
    asked = [{"query": text, "lambda": lam} for text in questions]
    return float(np.mean([decision.model == "strong" for decision in router.route_batch(asked)]))


def test_the_weights_are_those_that_the_starter_data_gives(root) -> None:
    made, known = make(read_routing_data(root / "serve_configs/starter/data")), shipped()
    assert made.learned_on == known.learned_on
    np.testing.assert_allclose(made.weights, known.weights, atol=1e-4)
    np.testing.assert_allclose(made.quantiles, known.quantiles, atol=1e-4)


def test_the_threshold_is_a_share_of_the_questions(questions) -> None:
    shares = [share(fitted(threshold=at), questions) for at in (0.0, 0.3, 0.5, 0.8, 1.0)]
    assert shares[0] > 0.95
    assert shares == sorted(shares, reverse=True)
    assert shares[2] == pytest.approx(0.5, abs=0.15)
    assert shares[-1] == 0.0


def test_a_larger_lambda_asks_the_strong_llm_less(questions) -> None:
    router = fitted(threshold=0.0)
    shares = [share(router, questions, lam) for lam in (0.0, 0.25, 0.5, 1.2)]
    assert shares == sorted(shares, reverse=True)
    assert shares[1] - shares[2] > 0.1
    assert shares[-1] == 0.0


def test_a_proof_looks_harder_than_a_capital() -> None:
    router = fitted()
    easy, hard = router.difficulty(
        [
            "what is the capital of france",
            "Prove that $\\sum_{k=1}^{n} k^3 = (n(n+1)/2)^2$ for all n.",
        ]
    )
    assert 0 <= easy < hard <= 1


def test_small_talk_looks_easier_than_work() -> None:
    easy = ["hi", "Thanks!", "What is the capital of France?", "Write a haiku about autumn."]
    hard = [
        "Compute $\\int_0^1 x^2 e^{x} dx$ and justify each step.",
        "Refactor this to be async:\n```python\ndef f(x):\n    return g(x) + 1\n```\nAdd tests.",
        "A train leaves at 3 pm at 60 km/h, another at 4 pm at 90 km/h; they are 300 km apart. "
        "When and where do they meet?",
        "Design a rate limiter for an API that serves 100,000 requests a second in three regions; "
        "discuss consistency, failures and cost, and compare two designs.",
    ]
    router = fitted()
    assert max(router.difficulty(easy)) < 0.1
    assert min(router.difficulty(hard)) > 0.5


def test_the_dearest_is_strong_and_names_overrule_prices() -> None:
    def best(router) -> tuple[str, str]:
        strengths = dict(zip(router.model_names, router._strengths(), strict=True))
        return min(strengths, key=strengths.get), max(strengths, key=strengths.get)

    assert best(fitted(MIDDLE, STRONG, WEAK)) == ("weak", "strong")
    assert best(fitted(MIDDLE, STRONG, WEAK, strong="weak", weak="middle")) == ("middle", "weak")
    assert best(fitted(MIDDLE, STRONG, WEAK, weak="strong")) == ("strong", "middle")


def test_a_middle_llm_is_asked_where_its_price_pays(questions) -> None:
    router = fitted(WEAK, MIDDLE, STRONG, threshold=0.0)
    asked = [{"query": text, "lambda": 0.4} for text in questions]
    assert {d.model for d in router.route_batch(asked)} == {"weak", "middle", "strong"}


@pytest.mark.parametrize(
    ("llms", "parameters", "told"),
    [
        ((LLMInfo(name="a"), LLMInfo(name="b")), {}, "no LLM has prices"),
        ((WEAK, STRONG), {"strong": "nobody"}, "there is no LLM nobody"),
        ((WEAK, STRONG), {"strong": "weak", "weak": "weak"}, "the same LLM"),
    ],
)
def test_what_it_cannot_go_by_is_told(llms, parameters, told) -> None:
    with pytest.raises(SchemaError, match=told):
        fitted(*llms, **parameters)


def test_without_prices_names_are_enough_and_one_llm_needs_neither() -> None:
    nameless = LLMInfo(name="a"), LLMInfo(name="b")
    assert fitted(*nameless, strong="a", weak="b").route_single("x").model in {"a", "b"}
    assert fitted(LLMInfo(name="a")).route_single("x").model == "a"


def test_with_outcomes_the_best_training_mean_is_strong(root) -> None:
    data = read_routing_data(root / "serve_configs/starter/data")
    router = make_trainable("difficulty").fit(data)
    assert data.names[int(np.argmax(router._strengths()))] == "qwen2.5-coder-1.5b"
