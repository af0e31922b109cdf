from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from waypost.engines.calls import StopFilter


def run(parts: list[str], stops: list[str]) -> tuple[str, bool]:
    stop_filter = StopFilter(stops)
    shown = [stop_filter.push(part) for part in parts]
    return "".join([*shown, stop_filter.flush()]), stop_filter.stopped


def test_a_stop_string_across_parts_is_cut():
    assert run(["the en", "d", "ing"], ["end"]) == ("the ", True)


def test_the_beginning_of_a_stop_string_is_held_back():
    stop_filter = StopFilter(["</s>", "stop"])
    assert [stop_filter.push(part) for part in ("a<", "/", "b", "st")] == ["a", "", "</b", ""]
    assert stop_filter.flush() == "st"


def test_the_earliest_of_several_stops_wins():
    assert run(["abcdef"], ["de", "bc"]) == ("a", True)


def test_empty_stops_are_ignored():
    assert run(["abc"], [""]) == ("abc", False)


@given(
    parts=st.lists(st.text("ab", max_size=4), max_size=12),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
)
def test_the_text_is_that_before_the_first_stop_however_it_is_cut(parts, stops):
    whole = "".join(parts)
    # the first stop to be complete wins; of those the earliest beginning
    ends = [whole.find(stop) + len(stop) for stop in stops if stop in whole]
    shown, stopped = run(parts, stops)
    assert stopped == bool(ends)
    assert whole.startswith(shown)
    assert not any(stop in shown for stop in stops)
    if not ends:
        assert shown == whole
