"""Linear models: ridge, logistic and support vector regression, and answer lengths."""
