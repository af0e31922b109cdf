"""PopQA: questions about facts of Wikidata, many of them little known.

14,267 test rows. Mallen et al. 2023.
"""

from waypost.benchmarks.open_qa import OpenQA

BENCHMARK = OpenQA("popqa", "PopQA: facts about less known people and things", "test")
