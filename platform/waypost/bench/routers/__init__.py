"""How fast routers learn and decide, beside scikit-learn on the same data in the same run."""
