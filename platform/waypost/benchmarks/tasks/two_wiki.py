"""2WikiMultiHopQA: questions made by templates from chains of facts; here without the articles.

15,000 training and 12,576 dev rows, Apache licence 2.0. Ho et al. 2020.
"""

from waypost.benchmarks.open_qa import OpenQA

BENCHMARK = OpenQA("2wikimultihopqa", "2WikiMultiHopQA: questions over several facts", "dev")
