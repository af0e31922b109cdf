"""One page and one browser for all tests of the chat page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.chat_browser import Visitor
from support.chat_page import Served, served

Visit = Callable[..., Visitor]


@pytest.fixture(scope="session")
def chat_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page over a gateway with echo engines."""
    with served(tmp_path_factory.mktemp("chat")) as found:
        yield found


@pytest.fixture
def user(chat_page: Served, browser: Any) -> Iterator[Visitor]:
    """A user with a page of their own; it must not have raised an error at the end."""
    visitor = Visitor(browser, chat_page.url)
    yield visitor
    visitor.close()
    assert visitor.errors == []


@pytest.fixture
def visit(chat_page: Served, browser: Any) -> Iterator[Visit]:
    """Open the page as a new user; the page must not have raised an error at the end."""
    opened: list[Visitor] = []

    def open_page(**options: Any) -> Visitor:
        opened.append(Visitor(browser, options.pop("url", chat_page.url), **options))
        return opened[-1]

    yield open_page
    errors = [error for visitor in opened for error in visitor.errors]
    for visitor in opened:
        visitor.close()
    assert errors == []
