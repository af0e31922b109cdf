"""Router-R1 (arXiv 2506.09033): an LLM that thinks, asks other LLMs, and answers.

Pure parts only: what is said in which tags (`protocol`, `transcript`, `format_rules`,
`prompt`) and what an episode earns (`reward`). None of them imports torch, a trainer or a
network library.
"""
