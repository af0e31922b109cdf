"""The Serve graph: an OpenAI-compatible gateway, a router, and one deployment for each LLM."""
