"""Clients of OpenAI's API through a gateway: the table of docs/clients.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import clients

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not (clients.HOME / ".waypost-ready").is_file(), reason="needs `make env-clients`"
    ),
]


async def test_each_cell_is_that_of_the_table(root: Path):
    seen = await clients.run()
    page = (root / "docs" / "clients.md").read_text(encoding="utf-8")
    told = page.partition(clients.BEGIN)[2].partition(clients.END)[0].strip()
    assert "WRONG" not in clients.table(seen), "\n".join(clients.faults(seen))
    assert told == clients.table(seen), "\n".join(clients.faults(seen))
