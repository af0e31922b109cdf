"""Multi-round routing: a plan of sub-questions, a call for each, and a merging call."""
