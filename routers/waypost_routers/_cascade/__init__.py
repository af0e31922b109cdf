"""Cascades by self-verification."""
