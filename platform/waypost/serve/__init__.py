"""The Serve graph: an OpenAI-compatible gateway, a router, and one node an LLM."""
