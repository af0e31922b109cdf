"""Asks LLMs many things through Ray Data: in parallel, within limits, never twice.

`stream.answers` is the way in. Imports run downwards: stream > asker > ledger, logs.
"""
