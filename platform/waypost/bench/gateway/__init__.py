"""``waypost bench gateway``: what a request through the gateway costs, beside LiteLLM's proxy.

- `run`: the whole measurement, and what it returns
- `targets`, `litellm`, `processes`: what is measured, started and stopped here
- `upstream`: the endpoint behind every target, a process of its own
- `load`, `http1`, `prompts`: the client that measures, a process of its own
- `decision`: text to decision, in this process
- `figures`, `aims`, `report`: from samples to figures, to what was hoped for, to tables
"""
