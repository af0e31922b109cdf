import pytest

from waypost.contracts.errors import SchemaError
from waypost.contracts.records import Decision, LLMInfo, Query, parse_size


@pytest.mark.parametrize(
    ("text", "billions"),
    [
        ("7B", 7.0),
        ("135M", 0.135),
        ("512m", 0.512),
        ("1T", 1000.0),
        ("250K", 0.00025),
        ("8x22B", 176.0),
        ("8 x 7b", 56.0),
        (" 0.5B ", 0.5),
    ],
)
def test_sizes(text, billions):
    assert parse_size(text) == pytest.approx(billions)


@pytest.mark.parametrize("text", ["", "7", "B", "7BB", "big", "x7B", "-7B", "7e3B"])
def test_not_a_size(text):
    with pytest.raises(SchemaError, match="expected a number"):
        parse_size(text)


def test_llm_facts():
    llm = LLMInfo(name="m", size="8x7B", input_price=1.0, output_price=5.0)
    assert llm.size_b == 56
    assert llm.blended_price == 2.0
    assert LLMInfo(name="m", size=7).size_b == 7
    assert LLMInfo(name="m", size="unknown").size_b is None
    assert LLMInfo(name="m", size="").size is None
    assert LLMInfo(name="m", input_price=1.0).blended_price is None


def test_further_facts_are_kept():
    assert LLMInfo(name="m", mean_cost_usd=0.5).model_dump()["mean_cost_usd"] == 0.5


def test_query_of_text_and_of_a_mapping():
    assert Query.of("hi") == Query("hi")
    query = Query.of(
        {
            "query": "hi",
            "query_id": 7,
            "allowed_models": ["b", "a"],
            "lambda": 2,
            "max_cost_usd": 0.1,
            "input_tokens": 12,
            "something": "else",
        }
    )
    assert query == Query(
        "hi", "7", allowed_models=("b", "a"), lam=2.0, max_cost_usd=0.1, input_tokens=12
    )
    assert Query.of(query) is query


@pytest.mark.parametrize(
    "wrong",
    [
        7,
        None,
        {},
        {"query": 7},
        {"query": "q", "allowed_models": "a"},
        {"query": "q", "allowed_models": [1]},
        {"query": "q", "lambda": -1},
        {"query": "q", "lambda": "0.5"},
        {"query": "q", "lambda": float("nan")},
        {"query": "q", "lambda": True},
        {"query": "q", "max_cost_usd": -0.1},
        {"query": "q", "input_tokens": "many"},
        {"query": "q", "input_tokens": -1},
    ],
)
def test_wrong_queries(wrong):
    with pytest.raises(SchemaError, match="query"):
        Query.of(wrong)


def test_a_wrong_query_is_not_quoted():
    with pytest.raises(SchemaError) as caught:
        Query.of({"query": "my secret question", "lambda": "x"})
    assert "secret" not in str(caught.value)


DECISION = Decision(
    "a", ("a", "b"), {"a": 0.9, "b": 0.1}, {"a": 0.01}, 0.8, 0.5, 0.7, "why", "knn", "v"
)


def test_decision_is_a_mapping_with_the_names_of_the_field():
    assert DECISION["model_name"] == DECISION["predicted_llm"] == "a"
    assert DECISION["lambda"] == 0.5
    assert dict(DECISION) == DECISION.to_dict()
    assert len(DECISION) == len(list(DECISION))
    with pytest.raises(KeyError):
        DECISION["nonsense"]


def test_decision_survives_its_plain_form():
    assert Decision.from_dict(DECISION.to_dict()) == DECISION
