"""Routers that compare the answers of several LLMs and ask further where that pays."""
