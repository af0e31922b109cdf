"""The gateway's own pages: one HTML file each, without anything from elsewhere.

Style and script stand in the page. The browser runs no others, because the header names their
digests (Content Security Policy), so that no text that a page shows can become code.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

_FOLDER = "waypost.serve.gateway"


@cache
def page(name: str) -> tuple[bytes, dict[str, str]]:
    """Return a page and its headers.

    Args:
        name: ``home`` or ``docs``.
    """
    folder = files(_FOLDER) / "web"
    style = (folder / "page.css").read_text("utf-8")
    script = "".join((folder / each).read_text("utf-8") for each in ("page.js", f"{name}.js"))
    body = (folder / f"{name}.html").read_text("utf-8")
    filled = body.replace("{{style}}", style).replace("{{script}}", script)
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return filled.encode(), {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
