"""TriviaQA: questions of quiz enthusiasts, without the evidence documents.

Data set mandarjoshi/trivia_qa, configuration rc.nocontext: 138,384 training and 17,944 validation
rows; the test split has no answers. The questions belong to their authors; the hub lists no
licence. Joshi et al. 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from waypost.benchmarks.base import Benchmark, Fields, Row, RowError, Source

_WITHHELD = "<unk>"


_ANSWER = {"value": str, "aliases": list[str], "normalized_aliases": list[str]}


class TriviaQA(Benchmark):
    """Quiz questions; any name of the answer in Wikipedia is accepted."""

    name = "trivia_qa"
    summary = "TriviaQA: quiz questions with the answer's many names"
    source = Source("mandarjoshi/trivia_qa", "validation", ("rc.nocontext",))
    columns: Mapping[str, Any] = {"question": str, "answer": _ANSWER}
    metric = "short_answer"
    max_tokens = 64

    def question(self, row: Row) -> Fields:
        """Return a prompt that asks for a few words."""
        answer = row["answer"]
        if answer["value"] == _WITHHELD:
            raise RowError("answer.value", "is withheld: this split has no answers; choose another")
        names = [answer["value"], *answer["aliases"], *answer["normalized_aliases"]]
        accepted: dict[str, str] = {}
        for name in filter(str.strip, names):
            accepted.setdefault(name.casefold(), name)
        query = f"{row['question'].strip()}\nAnswer in a few words."
        return Fields(query, list(accepted.values()))


BENCHMARK = TriviaQA()
