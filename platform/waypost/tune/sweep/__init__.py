"""A sweep: proposes settings of a router, measures them by cross-validation, keeps the best.

settings   what a proposal is: values, conditions, the key it is recorded by
searchers  who proposes: at random, optuna, hyperopt
problem    what every trial is measured on, and how: folds, metric, blocks
journal    trials.jsonl, the record that a sweep is resumed from
desk       which settings are out, which are done, how many go to a worker at once
packed     trials of routers that are fitted in one go: many settings in one Ray trial
epochs     trials of routers that train by epochs: one setting a Ray trial
tuner      Ray Tune around the two
winner     which setting is taken
run        all of it, and what is left in the folder
"""
