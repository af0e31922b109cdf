"""How long an LLM takes for whole answers, learned online, so that one that hangs is noticed.

The time of an answer is modelled as (seconds before the first token + seconds a token * tokens) *
spread. The first two are a regression over the completed answers; of the spread and of the number
of tokens the distributions are kept. Old answers are forgotten gradually.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

FEWEST = 20
"""Answers before which nothing is said about an LLM."""

KEPT = 500
"""An answer counts half of a new one after about this number of others."""

PATIENT_FOR = 2
"""Calls given up in a row before the deadline grows: two hang, more say that the LLM is slower."""

_FORGET = 0.5 ** (1 / KEPT)
_STEP = math.log(2) / 8
_REFRESH = 8
"""Answers after which a quantile is computed anew."""


class LogHistogram:
    """Distribution of positive values in classes of 9 % width; old values are forgotten gradually.

    Attributes:
        count: Number of values so far, forgotten ones included.
    """

    def __init__(self) -> None:
        self.count = 0
        self._weight = 1.0  # of the next value; the later a value, the heavier
        self._classes: dict[int, float] = {}

    def add(self, value: float) -> None:
        """Take a value; those below 1e-6 count as 1e-6."""
        place = math.floor(math.log(max(value, 1e-6)) / _STEP)
        self._classes[place] = self._classes.get(place, 0.0) + self._weight
        self.count += 1
        self._weight /= _FORGET
        if self._weight > 1e12:
            self._shrink()

    def _shrink(self) -> None:
        scaled = {place: weight / self._weight for place, weight in self._classes.items()}
        self._classes = {place: weight for place, weight in scaled.items() if weight > 1e-9}
        self._weight = 1.0

    def quantile(self, share: float) -> float:
        """Return the upper edge of the class that holds the quantile.

        Args:
            share: In (0, 1).

        Raises:
            ValueError: no value was taken.
        """
        if not self._classes:
            raise ValueError("the distribution has no value yet")
        wanted = share * sum(self._classes.values())
        for place in sorted(self._classes):
            wanted -= self._classes[place]
            if wanted <= 0:
                break
        return math.exp((place + 1) * _STEP)


@dataclass
class _Line:
    """Least squares of seconds over tokens, with the same forgetting; neither part is negative."""

    weight: float = 0.0
    n: float = 0.0
    t: float = 0.0
    nn: float = 0.0
    nt: float = 0.0

    def add(self, tokens: float, seconds: float) -> None:
        self.weight = _FORGET * self.weight + 1.0
        self.n = _FORGET * self.n + tokens
        self.t = _FORGET * self.t + seconds
        self.nn = _FORGET * self.nn + tokens * tokens
        self.nt = _FORGET * self.nt + tokens * seconds

    def at(self, tokens: float) -> float:
        mean_n, mean_t = self.n / self.weight, self.t / self.weight
        varies = self.nn / self.weight - mean_n * mean_n
        together = self.nt / self.weight - mean_n * mean_t
        steepest = mean_t / mean_n if mean_n else 0.0
        slope = min(max(together / varies if varies > 1e-9 else 0.0, 0.0), steepest)
        return max(mean_t + slope * (tokens - mean_n), 1e-6)


@dataclass
class AnswerTimes:
    """Times of the whole answers of one LLM.

    Attributes:
        given_up: Calls given up since the latest answer.
    """

    given_up: int = 0
    _line: _Line = field(default_factory=_Line)
    _spread: LogHistogram = field(default_factory=LogHistogram)
    _tokens: LogHistogram = field(default_factory=LogHistogram)
    _known: dict[float, tuple[int, float, float]] = field(default_factory=dict)

    def answered(self, seconds: float, tokens: int) -> None:
        """Take a completed answer.

        Args:
            seconds: Its time, without the wait for a place.
            tokens: Tokens generated, those of reasoning included.
        """
        self.given_up = 0
        self._line.add(tokens, seconds)
        self._spread.add(seconds / self._line.at(tokens))
        self._tokens.add(max(tokens, 1))

    def gave_up(self) -> None:
        """Take a call that was ended by its deadline.

        It says nothing about the time of an answer, so an LLM that hangs now and then does not
        teach patience. Only where all hang, the deadline grows.
        """
        self.given_up += 1

    def within_s(self, share: float, max_tokens: int | None) -> float | None:
        """Return the seconds within which a share of the answers comes; None if not yet known.

        Args:
            share: Quantile, in (0, 1), of the number of tokens and of the spread.
            max_tokens: Most tokens of the answer; None is no limit.
        """
        if self._spread.count < FEWEST:
            return None
        spread, tokens = self._quantiles(share)
        if max_tokens is not None:
            tokens = min(tokens, max_tokens)
        return spread * self._line.at(tokens) * 2.0 ** min(max(0, self.given_up - PATIENT_FOR), 20)

    def _quantiles(self, share: float) -> tuple[float, float]:
        at, spread, tokens = self._known.get(share, (-_REFRESH, 0.0, 0.0))
        if self._spread.count - at >= _REFRESH:
            at = self._spread.count
            spread, tokens = self._spread.quantile(share), self._tokens.quantile(share)
            self._known[share] = at, spread, tokens
        return spread, tokens
