"""TriviaQA in the form in which Router-R1 evaluates.

78,785 training, 8,837 dev and 11,313 test rows. `trivia_qa` asks the same questions with a prompt
for short answers. Joshi et al. 2017.
"""

from waypost.benchmarks.open_qa import OpenQA

BENCHMARK = OpenQA("triviaqa", "TriviaQA, as Router-R1 asks it", "test")
