from __future__ import annotations

import pytest

from waypost.contracts.errors import (
    EngineConnectionError,
    EngineOverloadedError,
    EngineRequestError,
    EngineServerError,
    EngineTimeoutError,
)
from waypost.serve.circuit import FIRST_REST_S, LONGEST_REST_S, PROBE_S, Circuit


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def circuit(clock: Clock) -> Circuit:
    return Circuit(clock)


def test_a_lost_connection_puts_a_model_last_at_once(circuit):
    circuit.failed("a", EngineConnectionError("gone"))
    assert circuit.order(("a", "b", "c")) == ("b", "c", "a")
    assert circuit.resting() == ("a",)


def test_other_failures_rest_a_model_after_three_in_a_row(circuit):
    for _ in range(2):
        circuit.failed("a", EngineServerError("500"))
    assert circuit.order(("a", "b")) == ("a", "b")
    circuit.failed("a", EngineTimeoutError("late"))
    assert circuit.order(("a", "b")) == ("b", "a")


def test_an_answer_between_them_starts_the_count_anew(circuit):
    for _ in range(5):
        circuit.failed("a", EngineServerError("500"))
        circuit.failed("a", EngineServerError("500"))
        circuit.succeeded("a")
    assert circuit.order(("a", "b")) == ("a", "b")


def test_a_refused_request_says_nothing_of_the_model(circuit):
    for _ in range(5):
        circuit.failed("a", EngineRequestError("bad"))
    assert circuit.order(("a", "b")) == ("a", "b")


def test_after_its_rest_one_request_tries_it_and_the_others_pass_over_it(circuit, clock):
    circuit.failed("a", EngineConnectionError("gone"))
    clock.now += FIRST_REST_S
    assert circuit.order(("a", "b")) == ("a", "b")
    assert circuit.order(("a", "b")) == ("b", "a")
    clock.now += PROBE_S
    assert circuit.order(("a", "b")) == ("a", "b")


def test_the_rest_doubles_up_to_a_bound(circuit, clock):
    for rest in (2, 4, 8, 16, LONGEST_REST_S, LONGEST_REST_S):
        circuit.failed("a", EngineConnectionError("gone"))
        clock.now += rest - 0.1
        assert circuit.order(("a", "b")) == ("b", "a")
        clock.now += 0.1
        assert circuit.order(("a", "b")) == ("a", "b")


def test_an_overloaded_model_rests_as_long_as_it_asks(circuit, clock):
    circuit.failed("a", EngineOverloadedError("429", retry_after_s=5))
    assert circuit.order(("a", "b")) == ("b", "a")
    clock.now += 5
    assert circuit.order(("a", "b")) == ("a", "b")


def test_an_overload_that_names_no_wait_causes_no_rest(circuit):
    circuit.failed("a", EngineOverloadedError("429"))
    assert circuit.order(("a", "b")) == ("a", "b")


def test_where_all_rest_the_order_is_the_routers(circuit):
    for name in ("b", "a"):
        circuit.failed(name, EngineConnectionError("gone"))
    assert circuit.order(("a", "b")) == ("a", "b")


def test_a_pinned_model_is_asked_though_it_rests(circuit):
    circuit.failed("a", EngineConnectionError("gone"))
    assert circuit.order(("a",)) == ("a",)
