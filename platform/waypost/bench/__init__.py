"""Benchmarks of Waypost itself: waypost bench."""
