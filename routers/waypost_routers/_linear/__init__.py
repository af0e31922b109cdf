"""Linear models: ridge, logistic, support vectors, lengths of answers."""
