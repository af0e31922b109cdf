"""Cascades with self-verification."""
