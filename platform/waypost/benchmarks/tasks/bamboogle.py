"""Bamboogle: two-step questions that a search engine answers wrongly.

125 test rows, MIT licence. Press et al. 2023.
"""

from waypost.benchmarks.open_qa import OpenQA

BENCHMARK = OpenQA("bamboogle", "Bamboogle: two-step questions, wrong in a search engine", "test")
