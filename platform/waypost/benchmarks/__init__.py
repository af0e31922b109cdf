"""Benchmarks, the sources of questions for routing data.

``catalog`` finds a benchmark by name, ``rows`` loads its questions, ``tasks`` are built in.
"""
