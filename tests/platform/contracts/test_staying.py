"""The LLM of a session: folded over the turns, the same in every replica."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waypost.contracts import staying
from waypost.contracts.cost import CostModel
from waypost.contracts.errors import SchemaError
from waypost.contracts.policy import PolicySettings
from waypost.contracts.pricing import PriceList
from waypost.contracts.records import Decision, LLMInfo, Query
from waypost.contracts.router import MetaRouter
from waypost.contracts.session import Session, Turn
from waypost.encoders import make_encoder
from waypost.registry import make_router
from waypost.registry.rule_router import PlainRouter, no_outcomes
from waypost.testing.synthetic import ENCODER_ID, planted

LLMS = ("a", "b", "c")
PRICES = {
    "a": PriceList(input_price=10.0, output_price=30.0, cached_input_price=1.0),
    "b": PriceList(input_price=2.0, output_price=8.0),
    "c": PriceList(input_price=4.0, output_price=8.0, cached_input_price=4.0),
}
BONUS = 0.02
COOKING, ALGEBRA = planted().queries[:2]


def cost_model(**prices: PriceList) -> CostModel:
    """Cost of three LLMs of 100 tokens an answer; a dollar is 100 points of quality."""
    plain = CostModel(
        np.full((3, 2), np.nan), np.full(3, 0.3), np.full(3, 100.0), np.full(3, np.nan), 0.01
    )
    return plain.with_prices(PRICES | prices, LLMS)


def decide(
    quality: Any, session: Session, lam: float = 0.0, costs: CostModel | None = None, **query: Any
) -> tuple[str, staying.Stay]:
    """Return the LLM that the last turn gets, and why; the quality has a row for each turn."""
    tokens = query.pop("input_tokens", 1000)
    own = Query("now", session=session, input_tokens=tokens, **query)
    queries, rows = staying.with_earlier((own,))
    costs = costs or cost_model()
    characters = np.array([len(each.text) for each in queries], float)
    counted = np.array([each.input_tokens or np.nan for each in queries], float)
    cost = costs.predict(characters, input_tokens=counted)
    allowed = np.array([[n in (own.allowed_models or LLMS) for n in LLMS]] * len(queries))
    weights = np.full(len(queries), lam)
    order, stays = staying.rank(
        np.asarray(quality, float), cost, queries, LLMS, PolicySettings(), costs, allowed,
        lam=weights,
    )  # fmt: skip
    assert rows is not None
    stay = stays[rows[0]]
    assert stay is not None
    return LLMS[order[rows[0], 0]], stay


unit = st.floats(0, 1, width=32)
turns = st.lists(st.tuples(unit, unit, unit), min_size=1, max_size=8)


def talk(count: int, bonus: float = BONUS) -> Session:
    """A session before its turn of that number, from 0."""
    earlier = tuple(Turn(f"turn {i}", 100 * (i + 1), 100 * i) for i in range(count))
    return Session(earlier, 100 * count, bonus)


@settings(max_examples=40)
@given(turns, unit, st.floats(0, 3))
def test_each_turn_stays_with_what_the_turn_before_was_told(
    quality: list[tuple[float, ...]], bonus: float, lam: float
) -> None:
    """What one replica answers is what another one later takes for the last LLM."""
    before = None
    for turn in range(len(quality)):
        tokens = 100 * (turn + 1)
        model, stay = decide(quality[: turn + 1], talk(turn, bonus), lam, input_tokens=tokens)
        assert stay.last == before
        before = model


@settings(max_examples=40)
@given(turns, unit)
def test_no_gain_below_the_bonus_moves_a_session(
    quality: list[tuple[float, ...]], bonus: float
) -> None:
    model, stay = decide(quality, talk(len(quality) - 1, bonus))
    if stay.last is None:
        return
    now = dict(zip(LLMS, quality[-1], strict=True))
    gain = max(now.values()) - now[stay.last]
    if gain <= bonus:
        assert model == stay.last
    elif gain > max(bonus, 2e-6):
        assert model != stay.last
        assert now[model] >= max(now.values()) - 2e-6


@settings(max_examples=40)
@given(turns, st.sampled_from(LLMS))
def test_a_session_always_leaves_an_llm_that_may_not_be_chosen(
    quality: list[tuple[float, ...]], gone: str
) -> None:
    left = tuple(name for name in LLMS if name != gone)
    session = Session((), 0, 1.0, last_model=gone)
    model, stay = decide(quality[-1:], session, allowed_models=left)
    assert model in left
    assert stay.words == f"{gone} may not be chosen for this request"


def test_what_the_client_tells_replaces_the_fold() -> None:
    quality = [[0.9, 0.1, 0.1], [0.50, 0.51, 0.1]]
    assert decide(quality, talk(1))[0] == "a"
    told = Session((), 100, BONUS, last_model="b")
    model, stay = decide(quality[1:], told)
    assert (model, stay.last, stay.told) == ("b", "b", True)


def test_cached_tokens_make_the_staying_llm_cheaper() -> None:
    # 1,000 tokens: a costs 0.013 USD and with 900 cached ones 0.0049; b costs 0.0028
    quality = [[0.9, 0.5, 0.0]]
    session = Session((), 0, BONUS, last_model="a")
    # lambda 0.5: a dollar is 50 points. b: 0.5 - 0.14; a: 0.9 - 0.65, cached 0.9 - 0.245
    assert decide(quality, session, 0.5)[0] == "b"
    model, stay = decide(quality, replace(session, cached_tokens=900), 0.5)
    assert model == "a"
    assert stay.words == "its cached tokens make up for b"


def test_without_a_price_of_its_own_a_cached_token_costs_the_full_price() -> None:
    costs = cost_model()
    assert costs.saved(0, 0, 1000, 900) == pytest.approx(900 * 9e-6)
    assert costs.saved(1, 0, 1000, 900) == 0.0
    assert costs.saved(2, 0, 1000, 900) == 0.0
    assert costs.saved(0, 0, 1000, 5000) == pytest.approx(1000 * 9e-6)  # no more than there are
    assert costs.saved(0, 100, None, 9) == pytest.approx(9 * 9e-6)


def test_cached_tokens_of_a_long_prompt_have_the_price_of_its_tier() -> None:
    tier = {"above_tokens": 500, "input_price": 20.0, "output_price": 1.0}
    long = PriceList(
        input_price=10.0, output_price=1.0, cached_input_price=1.0, tiers=[tier]  # type: ignore[list-item]
    )  # fmt: skip
    assert cost_model(a=long).saved(0, 0, 400, 100) == pytest.approx(100 * 9e-6)
    assert cost_model(a=long).saved(0, 0, 600, 100) == 0.0  # the tier names no price of a cache
    cheaper = PriceList.model_validate(
        {**long.model_dump(), "tiers": [{**tier, "cached_input_price": 2.0}]}
    )
    costs = cost_model(a=cheaper)
    assert costs.saved(0, 0, 600, 100) == pytest.approx(100 * 18e-6)
    again = CostModel.from_arrays(costs.to_arrays())
    assert again.saved(0, 0, 600, 100) == costs.saved(0, 0, 600, 100)
    assert (
        "cached"
        not in cost_model(a=PRICES["b"], c=PRICES["b"])
        .with_prices(dict.fromkeys(LLMS, (1.0, 1.0)), LLMS)
        .to_arrays()
    )


def test_where_cost_alone_decides_a_cheaper_llm_is_taken() -> None:
    session = Session((), 0, 1.0, last_model="a")
    model, stay = decide([[0.5, 0.5, 0.5]], session, np.inf)
    assert (model, stay.words) == ("b", "b is cheaper than a")


def test_an_earlier_turn_beyond_the_budget_does_not_refuse_the_request() -> None:
    quality = [[0.9, 0.1, 0.1], [0.9, 0.2, 0.1]]
    earlier = (Turn("long", 1_000_000),)
    model, stay = decide(quality, Session(earlier), max_cost_usd=0.003)
    assert (model, stay.last) == ("b", "a")


@pytest.mark.parametrize(
    "wrong",
    [
        "s", {"earlier": "x"}, {"earlier": [1]}, {"earlier": [{"query": 1}]}, {"stay_bonus": 2},
        {"stay_bonus": True}, {"cached_tokens": -1}, {"last_model": 1}, {"note": None},
        {"earlier": ["x"] * 257}, {"earlier": [{"query": "x", "input_tokens": 0.5}]},
        {"earlyer": []}, {"earlier": [{"query": "x", "tokens": 3}]},
    ],
)  # fmt: skip
def test_a_session_of_another_form_is_refused(wrong: Any) -> None:
    with pytest.raises(SchemaError, match=r"^session"):
        Query.of({"query": "x", "session": wrong})


def test_a_session_is_read_as_it_is_written() -> None:
    session = Session((Turn("x"), Turn("y", 5, 3)), 8, 0.5, "a", "note")
    query = Query("z", session=session)
    assert Query.of(query.given()) == query
    assert Session.of({"earlier": ["x"]}).earlier == (Turn("x"),)


class Letters(MetaRouter):
    """A rule: prover for algebra, else cook."""

    name = "letters"

    def route_single(self, query: Any) -> Decision:
        assert "session" not in Query.of(query).given()
        best = "prover" if Query.of(query).text == ALGEBRA else "cook"
        return Decision(best, (best,), reason="by rule")


def conversation(*earlier: str, **session: Any) -> dict[str, Any]:
    """A query about algebra after others."""
    return {"query": ALGEBRA, "session": {"earlier": list(earlier), **session}}


def test_a_rule_that_predicts_nothing_keeps_its_llm_while_it_may_be_chosen() -> None:
    router = PlainRouter(Letters()).fit(no_outcomes([LLMInfo(name=n) for n in ("cook", "prover")]))
    first, later, barred = router.route_batch(
        [
            {"query": ALGEBRA},
            conversation(COOKING),
            conversation(last_model="cook") | {"allowed_models": ["prover"]},
        ]
    )
    assert (first.model, first.session) == ("prover", None)
    assert (later.model, later.session, later.last_model) == ("cook", "kept", "cook")
    assert later.reason.startswith("kept: cook may still be chosen")
    assert (barred.model, barred.session) == ("prover", "moved")


def test_a_fitted_router_says_what_becomes_of_a_session() -> None:
    router: Any = make_router("best_single")
    router.fit(planted())
    best = router.route_single(ALGEBRA).model
    other = next(name for name in router.model_names if name != best)
    new, kept, moved, note = router.route_batch(
        [
            conversation(),
            conversation(COOKING, last_model=other, stay_bonus=1),
            conversation(last_model=other, stay_bonus=0),
            conversation(last_model="gone", note="token ignored"),
        ]
    )
    assert (new.model, new.session, new.last_model) == (best, "new", None)
    assert (kept.model, kept.session, kept.last_model) == (other, "kept", other)
    assert kept.reason.startswith(f"kept: {best} is ahead by ")
    assert kept.ranking[:2] == (other, best)
    assert (moved.model, moved.session, moved.last_model) == (best, "moved", other)
    assert moved.reason.startswith(f"moved: {best} is ahead of {other} by ")
    assert note.session == "moved"
    assert note.reason.endswith("; token ignored")
    assert Decision.from_dict(kept.to_dict()) == kept


@pytest.fixture(scope="module")
def learned() -> Any:
    router: Any = make_router("knnrouter")
    router.fit(planted())
    router.encoder = make_encoder(ENCODER_ID)
    return router


indices = st.lists(st.integers(0, len(planted().queries) - 1), min_size=1, max_size=5)


@settings(max_examples=15, deadline=None)
@given(st.lists(indices, min_size=1, max_size=3), st.sampled_from([0.0, 0.05, 1.0]))
def test_replicas_agree_whatever_else_they_decide(
    learned: Any, talks: list[list[int]], bonus: float
) -> None:
    """One replica decides conversations together, another each turn alone as it came."""
    texts = [[planted().queries[i] for i in talk] for talk in talks]
    together = learned.route_batch(
        [
            {"query": talk[-1], "session": {"earlier": talk[:-1], "stay_bonus": bonus}}
            for talk in texts
        ]
    )
    for talk, found in zip(texts, together, strict=True):
        last = None
        for turn, text in enumerate(talk):
            session = {"earlier": talk[:turn], "stay_bonus": bonus}
            one = learned.route_single({"query": text, "session": session})
            told = {"stay_bonus": bonus, "last_model": last}
            assert learned.route_single({"query": text, "session": told}).model == one.model
            assert one.last_model == last
            last = one.model
        assert (found.model, found.session) == (one.model, one.session)


def test_a_drawn_session_keeps_the_drawn_llm() -> None:
    router: Any = make_router("randomrouter")
    router.fit(planted())
    for number in range(8):
        session = f"s{number}"
        texts = [COOKING, ALGEBRA, "a third thing"]
        made = [
            router.route_single(
                {"query": text, "session_id": session, "session": {"earlier": texts[:turn]}}
            )
            for turn, text in enumerate(texts)
        ]
        assert len({one.model for one in made}) == 1
        assert [one.session for one in made] == ["new", "kept", "kept"]
        assert {one.reason for one in made} == {"drawn at random (exploration)"}
