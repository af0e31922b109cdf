"""The bench of scores: reading foreign test files, and the whole of it."""

import textwrap

import pytest

from waypost.bench import scores
from waypost.bench.harness import Tell

FILE = """
    @pytest.mark.parametrize("gold,pred,expected", [("$7$", "It is 7", 1), (r"8", "9", 0), (f"{x}", "1", 1)])
    def test_pairs(gold, pred, expected): ...

    @pytest.mark.parametrize("x1, x2", [pytest.param("(2,4)", "(3,5)", id="tuples")])
    def test_different_answers(x1, x2): ...

    @pytest.mark.parametrize("answer", [pytest.param("x+1", id="sum")])
    def test_answer_matches_itself(answer): ...

    def test_filter():
        docs = [{"choices": ["alpha", "beta"]}]
        assert filt.apply([["the answer is beta"]], docs) == [["(B)"]]
        assert len(docs) == 1
"""  # noqa: E501


def test_cases_are_read_and_scored(tmp_path):
    file = tmp_path / "test_x.py"
    file.write_text(textwrap.dedent(FILE))
    cases = list(scores.read(file, "p"))
    assert [(c.test, c.response, c.truth, c.expected) for c in cases] == [
        ("test_pairs", "It is 7", "$7$", True),
        ("test_pairs", "9", "8", False),
        ("test_different_answers", "(3,5)", "(2,4)", False),
        ("test_answer_matches_itself", "x+1", "x+1", True),
        ("test_filter", "the answer is beta", "B", True),
    ]
    assert all(case.agrees() for case in cases)
    assert not scores.Case("p", "f", "t", 0, "math", "7", "7", False).agrees()


@pytest.mark.e2e
def test_every_difference_from_other_suites_has_a_verdict():
    result = scores.run(scores.Options(), Tell())
    assert result.failed == {}
    assert sum(one["cases"] for one in result.figures["suites"]) > 250
    assert len(result.figures["differences"]) == len(scores.VERDICTS)
