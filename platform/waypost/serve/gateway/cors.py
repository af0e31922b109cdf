"""Cross-origin requests: which web pages may read the gateway's answers.

A browser asks first (a preflight request, which has no key) and then shows an answer to a page
only if the answer names the page's origin. Cookies are not used, so no credentials are allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

ANY = "*"
"""Allows every origin."""

MAX_AGE_S = 600
"""How long a browser may keep the answer to a preflight request."""


def allowed(origins: Sequence[str], headers: Mapping[str, str]) -> dict[str, object]:
    """Return the headers of an answer to a page, by the request's headers (names in lower case)."""
    vary = {} if ANY in origins else {"vary": "origin"}
    origin = headers.get("origin")
    if origin is None or not (ANY in origins or origin in origins):
        return {**vary}
    return {
        **vary,
        "access-control-allow-origin": ANY if ANY in origins else origin,
        "access-control-expose-headers": ANY,
    }


def preflight(
    origins: Sequence[str], method: str, headers: Mapping[str, str]
) -> dict[str, object] | None:
    """Return the further headers that answer a preflight request; None where it is none."""
    wanted = headers.get("access-control-request-method")
    if method != "OPTIONS" or wanted is None:
        return None
    if "access-control-allow-origin" not in allowed(origins, headers):
        return None
    return {
        "access-control-allow-methods": "GET, POST, OPTIONS",
        # those asked for: the wildcard does not cover `authorization`
        "access-control-allow-headers": headers.get("access-control-request-headers"),
        "access-control-max-age": MAX_AGE_S,
    }
