"""Contract checks of routers and engines, and the test doubles they use. For tests only."""
