"""The helper process of ``_equivalence``: read pairs of answers, write whether they are equal.

Runs in a new interpreter, with ``_confine`` as the only other module of Waypost. A comparison that
takes too much processor time ends this process: the timer's signal keeps its default action, which
also ends a multiplication that does not return to the interpreter.
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
    """Import math-verify, then answer each input line ``[gold, said]`` with true or false."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify
    from sympy import Expr  # type: ignore[import-untyped]

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
        equal = verify(
            *parsed,
            float_rounding=6,
            strict=True,
            allow_set_relation_comp=True,
            timeout_seconds=None,
        )
        return bool(equal) and alike(*(one[0] for one in parsed))

    def alike(gold: Any, said: Any) -> bool:
        """Say whether two numbers below 1 agree in six digits: math-verify rounds to decimals."""
        if not all(isinstance(one, Expr) and one.is_number for one in (gold, said)):
            return True
        if gold == said or not 0 < abs(gold.evalf(15)) < 1:
            return True
        return bool(abs((said / gold).evalf(15) - 1) < 1e-5)

    same("\\frac{1}{2}", "0.5")  # triggers lazy imports before the barriers close
    _confine.hide_memory()
    _confine.limit(settings["life_cpu_s"], settings["memory_bytes"], 0)
    _confine.restrict_files(folder=None)
    _confine.restrict_calls()
    _write("ready")
    for line in sys.stdin:
        answer = False
        signal.setitimer(signal.ITIMER_PROF, settings["cpu_s"])
        # An answer that the parser fails on counts as unequal.
        with contextlib.suppress(Exception):
            answer = same(*json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        _write(answer)


def _write(message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
