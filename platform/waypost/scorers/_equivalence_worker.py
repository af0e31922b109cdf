"""The helper process of ``_equivalence``: reads pairs of answers, writes whether they are equal.

Handed to a fresh interpreter; of Waypost only ``_confine`` comes along. A comparison that takes
too much processor time ends this process: the timer's signal keeps its default action, so it
also ends a multiplication that never returns to the interpreter.
"""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import sys
from typing import Any

from waypost.sandbox import _confine


def main() -> None:
    """Import math-verify, then answer each line ``[gold, said]`` with true or false."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)
    settings = json.loads(sys.argv[1])
    config = LatexExtractionConfig(
        normalization_config=NormalizationConfig(
            basic_latex=True, units=True, malformed_operators=True, nits=True, boxed="none"
        )
    )

    def same(gold: str, said: str) -> bool:
        parsed = [
            parse(f"${text}$", [config], fallback_mode="no_fallback", parsing_timeout=None)
            for text in (gold, said)
        ]
        return bool(
            verify(
                *parsed,
                float_rounding=6,
                strict=True,
                allow_set_relation_comp=True,
                timeout_seconds=None,
            )
        )

    same("\\frac{1}{2}", "0.5")  # what is imported late is imported before the barriers
    _confine.hide_memory()
    _confine.limit(settings["life_cpu_s"], settings["memory_bytes"], 0)
    _confine.restrict_files(folder=None)
    _confine.restrict_calls()
    _write("ready")
    for line in sys.stdin:
        answer = False
        signal.setitimer(signal.ITIMER_PROF, settings["cpu_s"])
        # Whatever the parser raises over an answer means: not shown to be equal.
        with contextlib.suppress(Exception):
            answer = same(*json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        _write(answer)


def _write(message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
