"""The built-in benchmarks: one per file, each with a ``BENCHMARK``."""
