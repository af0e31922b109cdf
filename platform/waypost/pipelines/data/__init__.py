"""From benchmarks to routing data: questions, answers, scores."""
