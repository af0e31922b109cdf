"""Benchmarks and the sandbox that runs the code which models write for them."""
