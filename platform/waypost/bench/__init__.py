"""Benchmarks of Waypost itself: ``waypost bench NAME``.

A benchmark is a module of this package, found by its name, or one of `harness.ELSEWHERE`. Its
docstring is the command's help, and the docstring's last paragraph is an example. The module has
``Options`` (a `harness.Options`), ``run(options, tell) -> harness.Result`` and optionally ``QUICK``
(the options that ``--quick`` sets). Modules whose name begins with ``_`` are shared parts.
"""
