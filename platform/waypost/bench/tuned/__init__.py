"""``waypost bench tuned``: what tuning earns on questions that no sweep has seen."""
