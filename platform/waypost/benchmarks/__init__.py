"""Benchmarks and the sandbox that runs the code which models write for them.

``catalog`` finds one by name, ``rows`` loads its questions, ``tasks`` holds the built-in ones.
"""
