"""The built-in benchmarks, one a file, each with a ``BENCHMARK``."""
