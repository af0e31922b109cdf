"""MuSiQue: questions composed of two to four simpler ones; here without the paragraphs.

19,938 training and 2,417 dev rows, CC BY 4.0. Trivedi et al. 2022.
"""

from waypost.benchmarks.open_qa import OpenQA

BENCHMARK = OpenQA("musique", "MuSiQue: questions of two to four steps", "dev")
