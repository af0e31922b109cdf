"""Shared contract checks for routers and engines, and the fakes they run on. For tests only."""
