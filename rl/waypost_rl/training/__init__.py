"""Train the policy of Router-R1 by reinforcement learning.

Imports run one way: `loop` builds the parts and runs the steps; `rollout` plays episodes between a
sampler and a pool of LLMs; `parts` holds their interfaces. Only `trl_compat` imports TRL. Modules
that need torch import it at the top, so they are imported when a run starts.
"""
