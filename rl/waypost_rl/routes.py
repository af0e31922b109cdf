"""Which candidates the episodes of a batch asked: distribution, entropy, and a bonus for it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from waypost.contracts.errors import ConfigError
from waypost_rl.format_rules import format_faults
from waypost_rl.protocol import Candidates
from waypost_rl.token_episode import TokenEpisode


@dataclass(frozen=True, slots=True)
class RouteStatistics:
    """The calls of a batch of episodes; failed calls count as calls of their candidate.

    Attributes:
        episodes: Number of episodes.
        shares: Candidate -> its share of all calls, in the pool's order; all 0 without a call.
        entropy: Of the shares, in nats, in [0, ln(number of candidates)].
        evenness: Entropy divided by its maximum, in [0, 1]; 0 with one candidate.
        without_search: Share of episodes without a call.
        calls: Mean calls of an episode.
        failed: Mean failed calls of an episode.
        turns: Mean generations of the policy in an episode.
        well_formed: Share of episodes that break no format rule.
    """

    episodes: int
    shares: dict[str, float]
    entropy: float
    evenness: float
    without_search: float
    calls: float
    failed: float
    turns: float
    well_formed: float

    def to_dict(self) -> dict[str, float]:
        """Return flat names and numbers for logs; the share of a candidate is ``share/NAME``."""
        numbers = {name: getattr(self, name) for name in self.__slots__ if name not in {"shares"}}
        return numbers | {f"share/{name}": share for name, share in self.shares.items()}


def route_statistics(
    episodes: Sequence[TokenEpisode],
    candidates: Candidates,
    *,
    exactly_one_colon: bool = False,
) -> RouteStatistics:
    """Return the statistics of a batch; all zeros for an empty one.

    Args:
        episodes: Finished episodes.
        candidates: The pool.
        exactly_one_colon: See `waypost_rl.format_rules.format_faults`.
    """
    chosen = Counter(call.candidate for episode in episodes for call in episode.calls)
    shares = _shares(chosen)
    transcripts = [episode.transcript for episode in episodes]
    faulty = [
        bool(format_faults(one, candidates, exactly_one_colon=exactly_one_colon))
        for one in transcripts
    ]
    return RouteStatistics(
        episodes=len(episodes),
        shares={name: shares.get(name, 0.0) for name in candidates.names},
        entropy=_entropy(shares.values()),
        evenness=evenness({name: chosen[name] for name in candidates.names}),
        without_search=_mean([not episode.calls for episode in episodes]),
        calls=_mean([len(episode.calls) for episode in episodes]),
        failed=_mean([episode.failed_calls for episode in episodes]),
        turns=_mean([episode.turns for episode in episodes]),
        well_formed=_mean([not fault for fault in faulty]),
    )


def entropy_bonus(episodes: Sequence[TokenEpisode], eta: float) -> list[float]:
    """Return for each episode what its choices contribute to the entropy of the batch's choices.

    With p(k) the share of candidate k in all calls of the batch and H = - sum over k of
    p(k) ln p(k), one more call of k changes H by (-ln p(k) - H) / (number of calls), to first
    order. The bonus of an episode is eta times the mean of -ln p(k) - H over its calls: positive
    for candidates asked seldom, negative for those asked often. Its sum over all calls is 0, so
    that it rewards which candidate is asked and not that one is asked. It is 0 for episodes
    without a call, and for all of them where only one candidate was asked.

    Args:
        episodes: Finished episodes of one batch.
        eta: Weight, at least 0.

    Raises:
        ConfigError: ``eta`` is negative or not finite.
    """
    if not 0.0 <= eta < math.inf:
        raise ConfigError(f"entropy bonus: eta is {eta:g}; expected a number of at least 0")
    chosen = Counter(call.candidate for episode in episodes for call in episode.calls)
    shares = _shares(chosen)
    entropy = _entropy(shares.values())
    return [
        eta * _mean([-math.log(shares[call.candidate]) - entropy for call in episode.calls])
        for episode in episodes
    ]


def evenness(chosen: Mapping[str, float]) -> float:
    """Return the entropy of choices divided by its maximum, in [0, 1].

    Args:
        chosen: Every candidate -> how often it was asked.

    Returns:
        0 with one candidate, or where none was asked.
    """
    total, most = sum(chosen.values()), math.log(max(1, len(chosen)))
    if total <= 0 or most <= 0:
        return 0.0
    return min(1.0, _entropy(count / total for count in chosen.values()) / most)


def _shares(chosen: Counter[str]) -> dict[str, float]:
    total = chosen.total()
    return {name: count / total for name, count in chosen.items()}


def _entropy(shares: Iterable[float]) -> float:
    return -sum(share * math.log(share) for share in shares if share > 0) + 0.0


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 0.0
