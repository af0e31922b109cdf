"""Searchers propose settings: random search, Optuna's TPE, or Hyperopt's TPE.

All have an ask-and-tell interface, so one process can ask for many settings before any is measured,
and a resumed sweep replays the journal into a new searcher.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from waypost.contracts.errors import MissingExtraError
from waypost.tune.config import Dimension, Range, TuneConfig
from waypost.tune.journal import Journal, Task, TrialRow
from waypost.tune.space import SearchSpace, Setting, hyperopt_tree, same

LEARNING_SHARE = 0.05
"""Maximum pending settings of a learning searcher, as a share of all trials."""

SAME_AGAIN = 300
"""Repeated proposals in a row after which a space counts as exhausted."""

RowCallback = Callable[[TrialRow], None]
"""Called with each new row."""


class Searcher(Protocol):
    """A source of settings to try."""

    learns: bool
    """Whether proposals depend on earlier scores; if so, few are pending at once."""

    def ask(self) -> Setting | None:
        """Return the next setting; None when exhausted."""

    def tell(self, setting: Mapping[str, Any], score: float | None) -> None:
        """Record the score of a setting, higher is better; None if it failed.

        Settings that this searcher did not propose are recorded as well.
        """


def make_searcher(config: TuneConfig, space: SearchSpace) -> Searcher:
    """Build the sweep's searcher.

    Raises:
        MissingExtraError: The searcher's library is not installed.
    """
    if config.searcher == "random":
        return RandomSearch(space, config.seed)
    if config.searcher == "optuna":
        return OptunaSearch(space, config.seed)
    return HyperoptSearch(space, config.seed)


class RandomSearch:
    """Independent random draws; grid parameters go through their combinations in turn.

    The n-th proposal depends only on seed and n.
    """

    learns = False

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space = space
        self._draw = np.random.default_rng(seed)
        self._grid = space.grid()

    def ask(self) -> Setting | None:
        """Return the next setting; None after the last of a pure grid."""
        point = next(self._grid, None)
        if point is None:
            if self._space.is_grid:
                return None
            self._grid = self._space.grid()
            point = next(self._grid)

        def pick(name: str, dimension: Dimension) -> Any:
            return point[name] if name in point else _drawn(dimension, self._draw)

        return self._space.build(pick)

    def tell(self, setting: Mapping[str, Any], score: float | None) -> None:
        """Do nothing: random search does not learn."""


def _drawn(dimension: Dimension, draw: np.random.Generator) -> Any:
    if not isinstance(dimension, Range):
        return dimension.values[int(draw.integers(len(dimension.values)))]
    low, high = dimension.extremes
    if dimension.type == "randint":
        return int(draw.integers(int(low), int(high), endpoint=True))
    if dimension.type == "loguniform":
        return float(np.exp(draw.uniform(np.log(low), np.log(high))))
    return dimension.fit(float(draw.uniform(low, high)))


class OptunaSearch:
    """Optuna's TPE; conditional parameters are suggested only if their condition holds."""

    learns = True

    def __init__(self, space: SearchSpace, seed: int) -> None:
        try:
            import optuna
        except ImportError:
            raise MissingExtraError("optuna", "tune") from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._asked: list[tuple[Setting, Any]] = []

    def ask(self) -> Setting | None:
        """Return the suggestion of the sampler."""
        trial = self._study.ask()

        def pick(name: str, dimension: Dimension) -> Any:
            if not isinstance(dimension, Range):
                place = trial.suggest_categorical(name, list(range(len(dimension.values))))
                return dimension.values[place]
            low, high = dimension.extremes
            if dimension.type == "randint":
                return trial.suggest_int(name, int(low), int(high))
            log = dimension.type == "loguniform"
            return trial.suggest_float(name, float(low), float(high), log=log, step=dimension.q)

        with warnings.catch_warnings():  # Optuna warns if it lowers high to a multiple of q
            warnings.simplefilter("ignore", UserWarning)
            setting = self._space.build(pick)
        self._asked.append((setting, trial))
        return setting

    def tell(self, setting: Mapping[str, Any], score: float | None) -> None:
        """Pass the score on; settings from elsewhere are added as finished trials."""
        from optuna.trial import TrialState, create_trial

        for place, (asked, trial) in enumerate(self._asked):
            if asked == setting:
                del self._asked[place]
                state = TrialState.FAIL if score is None else None
                self._study.tell(trial, score, state=state)
                return
        if score is None or not self._space.contains(setting):
            return
        spaces = {name: _distribution(self._space.space[name]) for name in setting}
        values = {name: _place(self._space.space[name], value) for name, value in setting.items()}
        self._study.add_trial(create_trial(params=values, distributions=spaces, value=score))


def _distribution(dimension: Dimension) -> Any:
    from optuna import distributions as of

    if not isinstance(dimension, Range):
        return of.CategoricalDistribution(list(range(len(dimension.values))))
    low, high = dimension.extremes
    if dimension.type == "randint":
        return of.IntDistribution(int(low), int(high))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        log = dimension.type == "loguniform"
        return of.FloatDistribution(float(low), float(high), log=log, step=dimension.q)


def _place(dimension: Dimension, value: Any) -> Any:
    """Return a value in Optuna's form: for a choice, its index."""
    if isinstance(dimension, Range):
        return value
    return next(i for i, one in enumerate(dimension.values) if same(one, value))


class HyperoptSearch:
    """Hyperopt's TPE.

    Hyperopt has no conditions on the value of another parameter. A conditional parameter becomes a
    nested choice with a branch for each outcome of its conditions.
    """

    learns = True

    def __init__(self, space: SearchSpace, seed: int) -> None:
        try:
            import hyperopt
        except ImportError:
            raise MissingExtraError("hyperopt", "tune") from None

        logging.getLogger("hyperopt").setLevel(logging.ERROR)
        self._space, self._seed = space, seed
        self._tree = hyperopt_tree(space)
        self._domain = hyperopt.Domain(lambda _: 0.0, self._tree.expression)
        self._trials = hyperopt.Trials()
        self._asked: list[tuple[Setting, Any]] = []
        self._count = 0

    def ask(self) -> Setting | None:
        """Return the suggestion of TPE."""
        from hyperopt import tpe

        ids = self._trials.new_trial_ids(1)
        self._trials.refresh()
        self._count += 1
        seed = (self._seed * 1_000_003 + self._count) % 2**31
        (document,) = tpe.suggest(ids, self._domain, self._trials, seed, verbose=False)
        self._trials.insert_trial_docs([document])
        self._trials.refresh()
        setting = self._tree.setting(document["misc"]["vals"])
        stored = next(d for d in self._trials._dynamic_trials if d["tid"] == document["tid"])
        self._asked.append((setting, stored))
        return setting

    def tell(self, setting: Mapping[str, Any], score: float | None) -> None:
        """Pass the score on; settings from elsewhere are added as finished trials."""
        import hyperopt

        status = hyperopt.STATUS_FAIL if score is None else hyperopt.STATUS_OK
        result = {"status": status, "loss": None if score is None else -score}
        for place, (asked, document) in enumerate(self._asked):
            if asked == setting:
                del self._asked[place]
                document["state"], document["result"] = hyperopt.JOB_STATE_DONE, result
                self._trials.refresh()
                return
        if score is None or not self._space.contains(setting):
            return
        (tid,) = self._trials.new_trial_ids(1)
        values = self._tree.values(setting)
        misc = {
            "tid": tid,
            "cmd": ("domain_attachment", "FMinIter_Domain"),
            "workdir": None,
            "idxs": {label: [tid] * len(value) for label, value in values.items()},
            "vals": values,
        }
        documents = self._trials.new_trial_docs([tid], [None], [result], [misc])
        documents[0]["state"] = hyperopt.JOB_STATE_DONE
        self._trials.insert_trial_docs(documents)
        self._trials.refresh()


class Proposals:
    """The tasks of a search in order: the default first, then the searcher's distinct settings.

    Args:
        space: The search space.
        searcher: Proposes settings; the rows of the journal are replayed into it.
        journal: Journal of the sweep.
        trials: Maximum number of trials, including the default.
        sign: 1 if a high metric is good, -1 if a low one is.
    """

    def __init__(
        self, space: SearchSpace, searcher: Searcher, journal: Journal, trials: int, sign: float
    ) -> None:
        self._space, self._searcher, self._journal = space, searcher, journal
        self._trials, self._sign = trials, sign
        self._proposed = {row.key for row in journal.search()}
        self._next = max((row.number for row in journal.search()), default=0) + 1
        self._exhausted = False
        for row in journal.search():
            self.tell(row)

    @property
    def left(self) -> int:
        """Number of settings still to be proposed, as far as known."""
        return 0 if self._exhausted else max(self._trials - len(self._proposed), 0)

    @property
    def at_once(self) -> int:
        """Maximum settings of one batch."""
        return max(1, int(self._trials * LEARNING_SHARE)) if self._searcher.learns else self._trials

    def next(self) -> Task | None:
        """Return the next task; None when exhausted."""
        if self.left and self._space.key({}) not in self._proposed:
            return self._task({}, 0)
        for _ in range(SAME_AGAIN + len(self._proposed)):
            setting = self._searcher.ask() if self.left else None
            if setting is None:
                break
            key = self._space.key(setting)
            if key not in self._proposed:
                number, self._next = self._next, self._next + 1
                return self._task(setting, number)
            known = self._journal.rows.get((key, 0))
            self._searcher.tell(setting, None if known is None else self._earned(known))
        self._exhausted = True
        return None

    def tell(self, row: TrialRow) -> None:
        """Pass the score of a row to the searcher."""
        self._searcher.tell(row.setting, self._earned(row))

    def _task(self, setting: Setting, number: int) -> Task:
        key = self._space.key(setting)
        self._proposed.add(key)
        return Task(number, key, setting, self._space.parameters(setting))

    def _earned(self, row: TrialRow) -> float | None:
        return None if row.score is None else self._sign * row.score
