"""Episodes of any plan, with any failures of its steps."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.rounds import Script, run, trained
from waypost.contracts.errors import EngineServerError
from waypost.contracts.step_router import Call
from waypost.episode import EpisodeLimits


@pytest.fixture(scope="module")
def router():
    return trained("llmmultiroundrouter", max_steps=8)


@st.composite
def episodes(draw):
    """Draw a plan without circles, in any order of its steps, and which calls fail."""
    n = draw(st.integers(2, 8))
    order = draw(st.permutations(range(1, n + 1)))
    steps = [
        {"id": id_, "text": f"part {id_}", "depends_on": draw(st.sets(st.sampled_from(order[:i])))}
        for i, id_ in enumerate(order)
        if i
    ]
    steps.append({"id": order[0], "text": f"part {order[0]}", "depends_on": []})
    steps = draw(st.permutations(steps))
    failing = draw(st.sets(st.tuples(st.integers(1, n), st.integers(0, 1))))
    return [{**one, "depends_on": sorted(one["depends_on"])} for one in steps], failing


@given(episode=episodes(), max_parallel=st.integers(1, 4))
def test_any_plan_ends_in_an_answer_in_the_order_of_its_dependencies(router, episode, max_parallel):
    steps, failing = episode
    router.max_parallel = max_parallel
    tried: Counter[int] = Counter()

    def says(call: Call) -> str:
        if call.purpose != "step":
            return "the end"
        number = int(re.findall(r"part (\d+)", call.prompt)[-1])
        tried[number] += 1
        if (number, tried[number] - 1) in failing:
            raise EngineServerError("down")
        return f"said {number}"

    script = Script(json.dumps({"needs_split": True, "steps": steps}), says=says)
    result = run(router, script, limits=EpisodeLimits(max_steps=64))
    assert (result.text, result.ended_by) == ("the end", "answer")
    lost = {one["id"] for one in steps if {(one["id"], 0), (one["id"], 1)} <= failing}
    assert result.calls[-1].call.purpose == ("merge" if len(lost) < len(steps) else "answer")
    for one in steps:
        assert tried[one["id"]] == 1 + ((one["id"], 0) in failing)
        last = [
            call.prompt for call in script.of("step") if f"part {one['id']}\n</q" in call.prompt
        ]
        for needed in one["depends_on"]:  # every answer that it depends on was there
            assert (f"said {needed}\n" in last[-1]) == (needed not in lost)
    assert all(len(wave) <= max_parallel for wave in result.steps)
