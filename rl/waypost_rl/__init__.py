"""Router-R1 (arXiv 2506.09033): a policy LLM that reasons, queries other LLMs, and answers.

The pure parts are the tag protocol (`protocol`, `transcript`, `format_rules`, `prompt`, `rules`),
the reward (`reward`, `episode_reward`), the environment of training (`environment`,
`token_episode`, `routes`) and the served router (`router`, `served_episode`). None of them imports
torch, a trainer or a network library. `importing` and `commands` make an artifact of a trained
policy.
"""
