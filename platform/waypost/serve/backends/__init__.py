"""Backends of the gateway: routers and LLMs, in this process or in deployments."""
