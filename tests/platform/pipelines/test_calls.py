"""What a run stands on: logs that survive a kill, keys, rates and budget, LLMs side by side."""

from __future__ import annotations

import json
import os
import threading
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.pipelines.data.calls.log import AppendLog, LogIndex
from waypost.pipelines.data.calls.parallel import run_parallel
from waypost.pipelines.data.calls.rate_limits import LeakyBucket, RateLimiter, RateLimits, Tally
from waypost.pipelines.data.calls.requests import (
    cell_id,
    first_of_each,
    key_array,
    longest_first,
    mixed,
    request_table,
)
from waypost.pipelines.data.calls.worker import request_of
from waypost.pipelines.data.config import LLMConfig
from waypost.pipelines.data.questions_table import (
    Texts,
    question_table,
    row_key,
    split_rows,
    strata,
)


def key(number: int) -> bytes:
    return number.to_bytes(4, "big") * 4


def test_lines_of_many_files_are_found_by_key_and_the_later_one_counts(tmp_path):
    for writer in range(3):
        log = AppendLog(tmp_path, "rows")
        for number in range(writer, writer + 50):
            log.append(key(number), {"writer": writer, "text": f"ünïcode {number}\n"})
        log.close()
        for path in tmp_path.iterdir():  # files are told apart by the time of their last line
            os.utime(path, (written := path.stat().st_mtime - 10, written))
    with LogIndex(tmp_path, "rows") as index:
        assert index.has(key_array([key(51), key(52), key(0)])).tolist() == [True, False, True]
        assert index.get(key(52)) is None
        assert index.get(key(0)) == {"key": key(0).hex(), "writer": 0, "text": "ünïcode 0\n"}
        assert [index.get(key(n))["writer"] for n in (1, 2, 49, 50)] == [1, 2, 2, 2]


def test_the_torn_last_line_of_a_killed_process_is_not_taken(tmp_path):
    log = AppendLog(tmp_path, "rows")
    for number in range(3):
        log.append(key(number), {"text": "a" * 100})
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for cut in (1, 50, 90, 140):
        path.write_bytes(whole[:-cut])
        with LogIndex(tmp_path, "rows") as index:
            assert index.has(key_array([key(1), key(2)])).tolist() == [True, False]
    path.write_bytes(b"\x00garbage\n{}\n" + whole)
    with LogIndex(tmp_path, "rows") as index:
        assert index.get(key(2)) == {"key": key(2).hex(), "text": "a" * 100}


def test_a_log_that_is_not_there_is_empty_and_an_unused_one_leaves_no_file(tmp_path):
    with LogIndex(tmp_path / "none", "rows") as index:
        assert not index.has(key_array([key(1)])).any()
        assert index.get(key(1)) is None
    AppendLog(tmp_path, "rows").close()
    assert list(tmp_path.iterdir()) == []


REQUEST = {"prompt": "2 + 2?", "max_tokens": 8, "temperature": 0.0, "top_p": 1.0, "seed": 0}
LLM = LLMConfig(engine="openai", config={"model": "m", "base_url": "http://one"})


def test_a_cell_is_model_revision_prompt_sampling_and_seed_and_nothing_else():
    first = cell_id("a", LLM, REQUEST)
    others = [
        cell_id("a", LLM, {**REQUEST, name: value})
        for name, value in {
            "prompt": "2 + 3?", "max_tokens": 9, "temperature": 0.1, "top_p": 0.9, "seed": 1,
        }.items()
    ]  # fmt: skip
    others.append(cell_id("a", LLM.model_copy(update={"revision": "2"}), REQUEST))
    others.append(cell_id("a", LLM.model_copy(update={"config": {"model": "n"}}), REQUEST))
    assert len({first, *others}) == 8
    moved = LLM.model_copy(update={"config": {"model": "m", "base_url": "http://two"}})
    cheaper = moved.model_copy(update={"input_price": 1.0, "concurrency": 99})
    assert cell_id("a", moved, REQUEST) == cell_id("b", cheaper, REQUEST) == first


def test_stop_strings_and_raw_prompts_change_a_key_only_where_they_are_given():
    first = cell_id("a", LLM, REQUEST)
    assert first.hex() == "eec287fcdb05c44ce84bff84975f4358"
    none = [{"stop": None}, {"stop": []}, {"raw": None}, {"raw": False}]
    assert {cell_id("a", LLM, {**REQUEST, **one}) for one in none} == {first}
    some = [{"stop": ["b"]}, {"stop": ["b", "c"]}, {"raw": True}, {"stop": ["b"], "raw": True}]
    assert len({first, *(cell_id("a", LLM, {**REQUEST, **one}) for one in some)}) == 5


def test_a_row_becomes_a_request_with_its_stop_strings_and_with_or_without_a_template():
    row = {"key": key(1), **REQUEST, "stop": None, "raw": None}
    plain = request_of(row, 3.0)
    assert plain.messages == [{"role": "user", "content": "2 + 2?"}]
    assert (plain.prompt, plain.stop, plain.timeout_s) == (None, (), 3.0)
    raw = request_of({**row, "stop": ["b", "c"], "raw": True}, None)
    assert (raw.messages, raw.prompt, raw.stop) == (None, "2 + 2?", ("b", "c"))


def test_a_row_is_a_cell_a_question_and_how_it_is_scored():
    question = {"query_id": "q", "metric": "number", "ground_truth": '"4"', "choices": "null"}
    first = row_key(b"cell", question, "1")
    changed = [{**question, name: "x"} for name in question]
    keys = {row_key(b"cell", one, "1") for one in changed} | {row_key(b"cell", question, "2")}
    assert len(keys | {first}) == 6


def test_questions_lie_in_a_file_that_nobody_sees(tmp_path):
    tasks = {"train": ["a"] * 1500 + ["b"], "test": ["b", "a"]}
    for split, names in tasks.items():
        rows = [
            {"query_id": f"{split}{n}", "task_name": task, "query": f"{split} {n}?",
             "ground_truth": "7", "metric": "number", "max_tokens": 8}
            for n, task in enumerate(names)
        ]  # fmt: skip
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"queries_{split}.jsonl").write_text(lines)
    before = pa.total_allocated_bytes()
    table = question_table(tmp_path)
    assert pa.total_allocated_bytes() - before < table.nbytes / 10
    assert len(list(tmp_path.iterdir())) == 2
    assert {name: len(rows) for name, rows in split_rows(table).items()} == {
        "train": 1501, "validation": 0, "test": 2,
    }  # fmt: skip
    first = split_rows(table)["test"].start
    assert Texts(table["query"])[first] == "test 0?"
    assert Texts(table["query"])[first : first + 2] == ["test 0?", "test 1?"]
    numbers = strata(table)
    assert len(set(numbers.tolist())) == 4
    assert len(set(numbers[:1500].tolist())) == 1


def test_requests_of_one_run_are_sampled_alike_and_may_be_none():
    keys = key_array([key(5), key(7)])
    sampling = {"temperature": 0.5, "top_p": 1.0, "seed": 3}
    table = request_table(keys, np.array([1, 0]), np.array([8, 9], np.int32), sampling)
    plain = {**sampling, "stop": None, "raw": None}
    assert table.to_pylist() == [
        {"key": key(5), "item": 1, "max_tokens": 8, **plain},
        {"key": key(7), "item": 0, "max_tokens": 9, **plain},
    ]
    none = request_table(keys[:0], np.array([], np.int64), np.array([], np.int32), sampling)
    assert none.num_rows == 0


def test_a_cell_of_several_questions_stands_for_the_first_time_once():
    keys = key_array([key(2), key(1), key(2), key(3), key(1)])
    assert first_of_each(keys).tolist() == [True, True, False, True, False]
    assert first_of_each(keys[:0]).tolist() == []


@given(
    st.lists(st.sampled_from(["train", "test", "rare"]), min_size=1, max_size=80),
    st.integers(0, 9),
)
def test_each_beginning_of_the_order_holds_its_share_of_every_stratum(strata, seed):
    strata = np.array(strata)
    order = mixed(strata, seed)
    assert sorted(order) == list(range(len(strata)))
    assert mixed(strata, seed).tolist() == order.tolist()
    for name in set(strata.tolist()):
        share = np.mean(strata == name)
        counts = np.cumsum(strata[order] == name)
        firsts = np.arange(1, len(strata) + 1)
        assert (np.abs(counts - share * firsts) <= len(set(strata.tolist()))).all()


@pytest.mark.parametrize(
    ("n", "in_flight", "piece"),
    [
        (600, 4, 32),  # eight rounds
        (300, 4, 18),  # a sixteenth of the run
        (80, 8, 8),  # a round
        (5, 8, 8),
    ],
)
def test_what_is_in_flight_together_is_of_one_length_and_nothing_moves_far(n, in_flight, piece):
    lengths = np.resize(np.array([8, 512, 64], np.int32), n)
    rows = np.random.default_rng(0).permutation(n)
    order = longest_first(rows, lengths, in_flight)
    assert sorted(order) == list(range(n))
    for at in range(0, n, piece):
        part = lengths[order[at : at + piece]]
        assert part.tolist() == sorted(part.tolist(), reverse=True)
        assert set(order[at : at + piece]) == set(rows[at : at + piece])


def spend(max_costs: dict[str, float], calls: dict[str, tuple[float, float, int]], usd: float):
    """Have LLMs ask in turns; a call is booked at its first figure, costs the second, and of the
    third there are so many a turn. Returns cells that were answered, and dollars spent."""
    limiter = RateLimiter({}, usd, max_costs)
    done = dict.fromkeys(calls, 0)
    left = {name: round(max_costs[name] / booked) for name, (booked, _, _) in calls.items()}
    spent, idle = 0.0, False
    while not idle:
        idle = True
        for name, (booked, cost, a_turn) in calls.items():
            admitted = 0
            while admitted < min(a_turn, left[name]):
                if limiter.admit(name, 1, booked) is None:
                    break
                admitted += 1
            for _ in range(admitted):
                limiter.settle(name, 1, booked, 1, cost)
            done[name] += admitted
            left[name] -= admitted
            spent += admitted * cost
            idle = idle and not admitted
            if not left[name]:
                limiter.end(name)
    return done, spent


def test_a_budget_buys_every_llm_the_same_part_of_its_cells():
    # 1,000 cells each; the dear one is slow, and the cheap one gives half the tokens it may
    max_costs = {"dear": 10.0, "cheap": 1.0}
    done, spent = spend(max_costs, {"dear": (0.01, 0.008, 1), "cheap": (0.001, 0.0005, 40)}, 4.0)
    assert spent == pytest.approx(4.0, abs=0.011)
    assert done["dear"] / done["cheap"] == pytest.approx(1.0, abs=0.05)
    assert done["dear"] == pytest.approx(4.0 / 0.0085, rel=0.05)


def test_what_one_leaves_is_for_the_others_and_no_share_holds_money_back():
    # calls that fail cost nothing: all are made, and their share buys the others' answers
    done, spent = spend({"a": 5.0, "b": 10.0}, {"a": (0.01, 0.0, 5), "b": (0.01, 0.01, 5)}, 2.005)
    assert (done, spent) == ({"a": 500, "b": 200}, pytest.approx(2.0))
    # nobody's share holds a call, the budget does
    done, _ = spend(dict.fromkeys("abcd", 1.0), dict.fromkeys("abcd", (0.1, 0.1, 5)), 0.2)
    assert sum(done.values()) == 2


@given(st.lists(st.floats(0, 40), min_size=2, max_size=60), st.integers(1, 100))
def test_no_minute_sees_more_calls_than_the_limit(gaps, per_minute):
    bucket, now, begins = LeakyBucket(per_minute), 0.0, []
    for gap in gaps:
        now += gap
        begins.append(bucket.take(1, now))
    for begin in begins:
        # half-open, less what sums of binary fractions lose
        assert sum(begin <= other < begin + 60 - 1e-6 for other in begins) <= per_minute


def test_what_was_booked_and_not_used_is_given_back():
    bucket = LeakyBucket(600)
    assert bucket.take(100, 0.0) == 0.0
    assert bucket.take(1, 0.0) == pytest.approx(10.0)
    bucket.give_back(90)
    assert bucket.take(1, 0.0) == pytest.approx(1.1)


def test_a_budget_is_never_overdrawn_and_what_is_not_spent_can_be_spent():
    limiter = RateLimiter({}, budget_usd=1.0)
    assert limiter.admit("a", 10, 0.6) == 0.0
    assert limiter.admit("a", 10, 0.6) is None
    assert limiter.waiting()
    limiter.settle("a", 10, 0.6, 5, 0.1)
    assert not limiter.waiting()
    assert limiter.admit("b", 10, 0.9) == 0.0
    limiter.settle("b", 10, 0.9, 5, 0.9)
    assert limiter.admit("b", 10, 0.01) is None


def test_rates_are_kept_by_llm_with_the_later_of_both_limits():
    rates = {"a": RateLimits(requests_per_minute=60, tokens_per_minute=600), "b": RateLimits()}
    limiter = RateLimiter(rates, clock=lambda: 5.0)
    assert limiter.admit("a", 100, 0.0) == 0.0
    assert limiter.admit("a", 100, 0.0) == pytest.approx(10.0)  # 100 tokens take 10 s, a call 1 s
    limiter.settle("a", 100, 0.0, 50, 0.0)
    assert limiter.admit("a", 1, 0.0) == pytest.approx(15.0)
    assert [limiter.admit("b", 1e9, 0.0) for _ in range(3)] == [0.0] * 3


def test_tallies_add_up():
    limiter = RateLimiter({})
    one = Tally(done=2, failed=1, usd=0.5)
    one.errors["EngineTimeoutError"] += 1
    for _ in range(2):
        limiter.add_tally("a", one)
    assert limiter.tallies()["a"] == Tally(
        done=4, failed=2, usd=1.0, errors=one.errors + one.errors
    )


def test_llms_run_side_by_side_as_far_as_there_are_cpus_and_one_that_fails_ends_alone():
    running, peak, lock = 0.0, 0.0, threading.Lock()

    def local(cpus: float):
        def work() -> None:
            nonlocal running, peak
            with lock:
                running += cpus
                peak = max(peak, running)
            time.sleep(0.03)
            with lock:
                running -= cpus

        return work

    met = threading.Barrier(2, timeout=60)
    wanted = {"a": 1.0, "b": 2.0, "c": 2.0, "d": 9.0, "x": 0.0, "y": 0.0, "bad": 0.0}
    work = {name: local(min(cpus, 2.0)) for name, cpus in wanted.items()}
    work |= {"x": lambda: met.wait() and None, "y": lambda: met.wait() and None}
    work["bad"] = lambda: 1 / 0
    polls: list[int] = []
    failed = run_parallel(work, wanted, 2.0, lambda: polls.append(1), every_s=0.01)
    assert {name: type(error) for name, error in failed.items()} == {"bad": ZeroDivisionError}
    assert peak == 2.0
    assert polls


def test_what_interrupts_a_run_ends_its_threads_before_it_goes_on():
    ended: list[str] = []
    running = threading.Barrier(3, timeout=60)

    def work(name: str):
        def run() -> None:
            try:
                running.wait()
                while True:
                    time.sleep(0.001)
            except ValueError:
                ended.append("caught")
            finally:
                ended.append(name)

        return run

    def interrupt() -> None:
        running.wait()
        raise KeyboardInterrupt

    names = ["a", "b", "waits for their CPUs"]
    with pytest.raises(KeyboardInterrupt):
        run_parallel({n: work(n) for n in names}, dict.fromkeys(names, 1.0), 2.0, interrupt, 0.01)
    assert sorted(ended) == ["a", "b"]
