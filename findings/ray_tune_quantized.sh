#!/usr/bin/env bash
# The values of tune.qrandint and tune.qlograndint depend on the searcher of Ray Tune.
#
# Versions:  ray 2.60.0, optuna 5.0.0, hyperopt 0.3.0
# Expected:  tune.qrandint(1, 10, 4) gives multiples of 4 between the bounds, 4 and 8, as its
#            documentation says; the converted spaces of searchers are adjusted to it.
# Happens:   only Tune's own sampling does. OptunaSearch counts from the lower bound: 1, 5, 9, none of
#            which is a multiple. HyperOptSearch rounds after it has drawn, and gives 0, which is below the
#            bound. With tune.qlograndint(1, 64, 8) HyperOptSearch gives 0, too; OptunaSearch fails with a
#            ValueError. quniform refuses bounds that are no multiples; the integers do not.
# Here:      waypost.tune.config moves the bounds of a range to multiples before a searcher sees them.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    "ray[tune]==2.60.0" optuna==5.0.0 hyperopt==0.3.0
export RAY_USAGE_STATS_ENABLED=0
cat >"$work/try.py" <<'PYTHON'
import logging

import optuna
from ray import tune
from ray.tune.search.hyperopt import HyperOptSearch
from ray.tune.search.optuna import OptunaSearch

DRAWS = 100
optuna.logging.disable_default_handler()
logging.disable(logging.WARNING)


def by_tune(domain):
    return [domain.sample() for _ in range(DRAWS)]


def by_optuna(domain):
    search = OptunaSearch({"x": domain}, metric="score", mode="max", seed=1)
    return [search.suggest(str(i))["x"] for i in range(DRAWS)]


def by_hyperopt(domain):
    search = HyperOptSearch(
        {"x": domain}, metric="score", mode="max", n_initial_points=DRAWS, random_state_seed=1
    )
    return [search.suggest(str(i))["x"] for i in range(DRAWS)]


DOMAINS = {
    "qrandint(1, 10, 4)": tune.qrandint(1, 10, 4),
    "qlograndint(1, 64, 8)": tune.qlograndint(1, 64, 8),
}
for name, domain in DOMAINS.items():
    for draw in (by_tune, by_optuna, by_hyperopt):
        try:
            found = sorted(set(draw(domain)))
        except ValueError as error:
            found = type(error).__name__
        print(f"{name} {draw.__name__}: {found}")
PYTHON
"$work/venv/bin/python" -W ignore "$work/try.py" 2>"$work/errors" | tee "$work/seen" || { cat "$work/errors"; exit 1; }
diff "$work/seen" - <<'SEEN'
qrandint(1, 10, 4) by_tune: [4, 8]
qrandint(1, 10, 4) by_optuna: [1, 5, 9]
qrandint(1, 10, 4) by_hyperopt: [0, 4, 8]
qlograndint(1, 64, 8) by_tune: [8, 16, 24, 32, 40, 48, 56, 64]
qlograndint(1, 64, 8) by_optuna: ValueError
qlograndint(1, 64, 8) by_hyperopt: [0, 8, 16, 24, 32, 40, 48, 56, 64]
SEEN
echo "as described"
