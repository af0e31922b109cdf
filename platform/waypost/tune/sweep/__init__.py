"""A sweep: proposes settings of a router, measures them by cross-validation, keeps the best.

settings   what a proposal is: values, conditions, the key it is recorded by
searchers  who proposes: at random, optuna, hyperopt
problem    what every trial is measured on, and how: folds, metric, blocks
journal    trials.jsonl, the record that a sweep is resumed from
desk       which settings are out, which are done, how many go to a worker at once
lockstep   a router that trains by epochs, on all folds side by side: when it is looked at
checkpoints  what is kept of it on the way, and found again after a kill
packed     trials without a scheduler: many settings in one Ray trial
by_epochs  trials under a scheduler that stops some early: one setting a Ray trial
tuner      Ray Tune around the two
winner     which setting is taken
beside     the default and the best other trial, side by side in the report
curves     learning curves
run        all of it, and what is left in the folder
"""
