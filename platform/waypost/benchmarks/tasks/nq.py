"""Natural Questions, open version, in the form in which Router-R1 trains and evaluates.

79,168 training, 8,757 dev and 3,610 test rows, CC BY-SA 3.0. `natural_qa` asks the same questions
with a prompt for short answers. Kwiatkowski et al. 2019, Lee et al. 2019.
"""

from waypost.benchmarks.open_qa import OpenQA

BENCHMARK = OpenQA("nq", "Natural Questions, as Router-R1 asks it", "test")
