"""Personal routing: vectors of answers, states of users, and their training."""
