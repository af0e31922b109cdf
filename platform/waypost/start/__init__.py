"""A user's first steps: `waypost init` writes the files of a pool, `waypost doctor` checks them."""
