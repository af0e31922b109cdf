"""The chat page: talk to the pool, see which LLM answered, why and for what."""
