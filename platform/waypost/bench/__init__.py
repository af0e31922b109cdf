"""Benchmarks of Waypost itself: ``waypost bench NAME``.

A bench is a module here, found by its name. Its docstring is the command's help, its last paragraph
an example. It holds ``Options`` (a `harness.Options`), ``QUICK`` (what ``--quick`` sets, where it
has that) and ``run(options, tell) -> harness.Result``. Modules with ``_`` are shared parts.
"""
