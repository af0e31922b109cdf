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


@pytest.fixture(scope="session")
def one_visitor(chat_page: Served, browser: Any) -> Iterator[Visitor]:
    """A user whose page stays open: to load it anew for each test takes seconds."""
    visitor = Visitor(browser, chat_page.url)
    yield visitor
    visitor.close()


@pytest.fixture
def user(one_visitor: Visitor) -> Iterator[Visitor]:
    """The user with a new talk; the page must not have raised an error at the end."""
    one_visitor.begin_anew()
    yield one_visitor
    assert one_visitor.errors == []


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
