"""Call LLMs many times through Ray Data: in parallel, within limits, and resumable.

`stream.Stream` is the entry point. Imports run downwards: stream, worker, rate_limits and log.
"""
