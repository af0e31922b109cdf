"""Router-R1 (arXiv 2506.09033): a policy LLM that reasons, queries other LLMs, and answers.

Only the pure parts: the tag protocol (`protocol`, `transcript`, `format_rules`, `prompt`) and
the reward (`reward`, `episode_reward`). None of them imports torch, a trainer or a network
library.
"""
