from __future__ import annotations

import pytest

from waypost.contracts.errors import (
    EngineAuthError,
    EngineConnectionError,
    EngineOverloadedError,
    EngineRequestError,
    EngineServerError,
    EngineTimeoutError,
)
from waypost.serve.backends.circuit_breaker import FIRST_REST_S, LONGEST_REST_S, PROBE_S, Circuit


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


def test_a_full_queue_of_ours_causes_no_rest(circuit):
    for _ in range(5):
        circuit.failed("a", EngineOverloadedError("its queue is full"))
    assert circuit.order(("a", "b")) == ("a", "b")


def test_an_upstream_that_says_429_and_no_wait_rests_after_three(circuit):
    for expected in (("a", "b"), ("a", "b"), ("b", "a")):
        circuit.failed("a", EngineOverloadedError("429", status=429))
        assert circuit.order(("a", "b")) == expected


@pytest.mark.parametrize(
    "error",
    [
        EngineAuthError("key", status=401, retryable=True),
        EngineRequestError("no such model", status=404, retryable=True),
    ],
)
def test_a_refusal_that_is_the_models_own_counts(circuit, error):
    for _ in range(3):
        circuit.failed("a", error)
    assert circuit.order(("a", "b")) == ("b", "a")


def test_of_many_requests_that_fail_together_only_the_first_counts(circuit, clock):
    sent = clock.now
    for _ in range(100):
        clock.now += 0.01
        circuit.failed("a", EngineConnectionError("gone"), sent)
    clock.now = sent + 0.01 + FIRST_REST_S
    assert circuit.order(("a", "b")) == ("a", "b")


def test_a_failure_from_before_the_rest_does_not_end_the_probe(circuit, clock):
    sent = clock.now
    clock.now += 1
    circuit.failed("a", EngineConnectionError("gone"), sent)
    clock.now += FIRST_REST_S
    assert circuit.order(("a", "b")) == ("a", "b")
    circuit.failed("a", EngineTimeoutError("late"), sent)
    circuit.succeeded("a", clock.now)
    assert circuit.order(("a", "b")) == ("a", "b")


def test_a_rest_that_was_asked_for_outlasts_earlier_requests(circuit, clock):
    sent = clock.now
    clock.now += 1
    circuit.failed("a", EngineOverloadedError("429", status=429, retry_after_s=5), sent)
    circuit.succeeded("a", sent)
    assert circuit.order(("a", "b")) == ("b", "a")
    circuit.succeeded("a", clock.now)
    assert circuit.order(("a", "b")) == ("a", "b")


def test_after_a_rest_that_was_asked_for_one_request_tries_it(circuit, clock):
    circuit.failed("a", EngineOverloadedError("429", status=429, retry_after_s=5))
    clock.now += 5
    assert circuit.order(("a", "b")) == ("a", "b")
    assert circuit.order(("a", "b")) == ("b", "a")


def test_a_stream_that_begins_lets_others_in_but_its_break_is_remembered(circuit, clock):
    for rest in (2, 4, 8):
        circuit.failed("a", EngineConnectionError("cut"), clock.now)
        assert circuit.order(("a", "b")) == ("b", "a")
        clock.now += rest
        assert circuit.order(("a", "b")) == ("a", "b")
        circuit.began("a", clock.now)
        assert circuit.order(("a", "b")) == ("a", "b")
        assert circuit.order(("a", "b")) == ("a", "b")


def test_where_all_rest_the_order_is_the_routers(circuit):
    for name in ("b", "a"):
        circuit.failed(name, EngineConnectionError("gone"))
    assert circuit.order(("a", "b")) == ("a", "b")


def test_a_pinned_model_is_asked_though_it_rests(circuit):
    circuit.failed("a", EngineConnectionError("gone"))
    assert circuit.order(("a",)) == ("a",)


def test_a_model_that_rests_is_not_admitted_while_another_does_not(circuit):
    assert circuit.admits("a", ("b",))
    circuit.failed("a", EngineConnectionError("gone"))
    assert not circuit.admits("a", ("b",))
    assert circuit.admits("a", ())  # there is nobody else
    circuit.failed("b", EngineConnectionError("gone"))
    assert circuit.admits("a", ("b",))
    assert circuit.admits("b", ("a",))


def test_after_its_rest_one_request_is_admitted_and_the_others_wait_for_it(circuit, clock):
    circuit.failed("a", EngineConnectionError("gone"))
    clock.now += FIRST_REST_S + 0.1
    assert circuit.admits("a", ("b",))
    assert not circuit.admits("a", ("b",))
    circuit.succeeded("a")
    assert circuit.admits("a", ("b",))
