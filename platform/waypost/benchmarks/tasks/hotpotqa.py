"""HotpotQA: questions whose answer needs two articles of Wikipedia; here without the articles.

90,447 training and 7,405 dev rows, CC BY-SA 4.0. Yang et al. 2018.
"""

from waypost.benchmarks.open_qa import OpenQA

BENCHMARK = OpenQA("hotpotqa", "HotpotQA: questions over two articles of Wikipedia", "dev")
