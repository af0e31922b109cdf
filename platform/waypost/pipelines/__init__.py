"""Pipelines that build routing data, train routers and evaluate them."""
