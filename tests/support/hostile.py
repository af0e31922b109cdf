"""Hostile and malformed request bodies, grouped by the status that the gateway must return.

Sizes follow the defaults of `Limits`: a body may have 4 MiB.
"""

from __future__ import annotations

import json
from typing import Any

SIZE = 4 * 1024 * 1024 - 200
"""Size of the largest bodies here in bytes, just within the limit."""


def said(content: bytes, **fields: bytes) -> bytes:
    """Return a chat request with one message; ``content`` and the fields are raw JSON."""
    more = b"".join(b',"%s":%s' % (name.encode(), value) for name, value in fields.items())
    return b'{"model":"auto","messages":[{"role":"user","content":' + content + b"}]" + more + b"}"


def many(item: bytes, count: int) -> bytes:
    """Return a raw JSON array that repeats one item ``count`` times."""
    return b"[" + b",".join([item] * count) + b"]"


def members(count: int, value: bytes = b"1") -> bytes:
    """Return a raw JSON object with ``count`` members."""
    return b"{" + b",".join(b'"%d":%s' % (i, value) for i in range(count)) + b"}"


def text(unit: str) -> bytes:
    """Return a raw JSON string that repeats a unit up to nearly the size limit of a body."""
    raw = json.dumps(unit, ensure_ascii=False)[1:-1].encode()
    return b'"' + raw * ((SIZE - 100) // len(raw)) + b'"'


def _deep(before: bytes, after: bytes, depth: int) -> bytes:
    return before * depth + b"1" + after * depth


def unreadable() -> dict[str, bytes]:
    """Return bodies that cannot be parsed; the gateway returns 400."""
    return {
        "empty": b"",
        "blank": b" \r\n\t",
        "cut off": b'{"messages": [{"role": "user"',
        "two": b"{}{}",
        "byte order mark": b"\xef\xbb\xbf" + said(b'"x"'),
        "utf-16": said(b'"x"').decode().encode("utf-16"),
        "invalid utf-8": said(b'"\xff\xfe"'),
        "overlong utf-8": said(b'"\xc0\xaf"'),
        "surrogate in utf-8": said(b'"\xed\xa0\x80"'),
        "lone surrogate": said(b'"\\ud800"'),
        "turned surrogates": said(b'"\\udc00\\ud800"'),
        "raw nul": said(b'"a\0b"'),
        "raw line break": said(b'"a\nb"'),
        "NaN": said(b'"x"', temperature=b"NaN"),
        "Infinity": said(b'"x"', temperature=b"Infinity"),
        "-Infinity": said(b'"x"', temperature=b"-Infinity"),
        "hexadecimal": said(b'"x"', seed=b"0x10"),
        "leading zero": said(b'"x"', seed=b"007"),
        "ten thousand digits": said(b'"x"', seed=b"9" * 10_000),
        "four million digits": said(b'"x"', seed=b"9" * 4_000_000),
        "single quotes": b"{'model': 'auto'}",
        "comment": b"{} // all",
        "deep arrays": _deep(b"[", b"]", 100_000),
        "deep objects": _deep(b'{"a":', b"}", 100_000),
        "deep and open": b"[" * 100_000,
        "deep in a field": said(b'"x"', response_format=_deep(b'{"a":', b"}", 1_000)),
        "deep tool": said(
            b'"x"',
            tools=b'[{"type":"function","function":{"name":"f","parameters":%s}}]'
            % _deep(b'{"properties":', b"}", 1_000),
        ),
        "form": b"model=auto&messages=x",
        "xml": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    }


def no_objects() -> dict[str, bytes]:
    """Return JSON values that are not objects; the gateway returns 400."""
    return {name: name.encode() for name in ("null", "true", "0", '"x"', "[]", "[{}]", "-0.0")}


def wrong() -> dict[str, bytes]:
    """Return invalid JSON objects; the gateway returns 400, or 404 for an unknown model."""
    return {
        "100,000 messages": b'{"messages":'
        + many(b'{"role":"user","content":"x"}', 100_000)
        + b"}",
        "10,001 messages": b'{"messages":' + many(b'{"role":"user","content":""}', 10_001) + b"}",
        "10,000 wrong messages": b'{"messages":' + many(b'{"role":"king"}', 10_000) + b"}",
        "10,000 numbers": b'{"messages":' + many(b"1", 10_000) + b"}",
        "3,000 parts": said(many(b'{"type":"text","text":"a"}', 3_000)),
        "20,000 wrong parts": said(many(b'{"type":"text"}', 20_000)),
        "100,000 stops": said(b'"x"', stop=many(b'"a"', 100_000)),
        "40,000 stops": said(b'"x"', stop=many(b'"a"', 40_000)),
        "a long stop": said(b'"x"', stop=text("a")),
        "40,000 allowed": said(b'"x"', waypost=b'{"allowed_models":%s}' % many(b'"cook"', 40_000)),
        "20,000 tools": said(b'"x"', tools=many(b'{"type":"function"}', 20_000)),
        "2,000 unknown fields": members(2_000),
        "40,000 unknown fields": members(40_000),
        "2,000 unknown in waypost": said(b'"x"', waypost=members(2_000)),
        "2,000 wrong biases": said(b'"x"', logit_bias=members(2_000, b"101")),
        "40,000 biases": said(b'"x"', logit_bias=members(40_000)),
        "2,000 wrong metadata": said(b'"x"', metadata=members(2_000)),
        "a million lists": b'{"a":' + many(b"[[[[]]]]", 400_000) + b"}",
        "a million objects": b'{"a":' + many(b"{}", 1_000_000) + b"}",
        "two million numbers": b'{"a":' + many(b"1", 2_000_000) + b"}",
        "a million texts": b'{"a":' + many(b'""', 1_000_000) + b"}",
        "a long name": b'{"' + b"k" * SIZE + b'":1}',
        "a long model": b'{"model":' + text("m") + b',"messages":[]}',
        "a long role": b'{"messages":[{"content":"x","role":' + text("r") + b"}]}",
        "a long user": said(b'"x"', user=text("u")),
        "ten to the 400th": said(b'"x"', max_tokens=str(10**400).encode()),
        "two to the 63rd": said(b'"x"', max_tokens=str(2**63).encode()),
        "seed of 65 bits": said(b'"x"', seed=str(2**64).encode()),
        "a thousand million answers": said(b'"x"', n=b"1000000000"),
        "1e999": said(b'"x"', temperature=b"1e999"),
        "1e999 in a free field": said(b'"x"', response_format=b'{"a":[1e999]}'),
        "-1e999 in an extra": said(b'"x"', waypost=b'{"extra":{"a":-1e999}}'),
        "unknown field": said(b'"x"', max_token=b"1"),
        "unknown in waypost": said(b'"x"', waypost=b'{"lamda":1}'),
        "unknown in stream_options": said(b'"x"', stream_options=b'{"usage":true}'),
        "prototype": said(b'"x"', __proto__=b'{"a":1}'),
        "duplicate keys, the last wrong": b'{"model":"auto","model":7,"messages":[]}',
        "line breaks in the model": said(b'"x"').replace(b"auto", b"a\\r\\nx-evil: 1\\r\\n\\r\\n"),
        "nul in the model": said(b'"x"').replace(b"auto", b"a\\u0000b"),
        "path as model": said(b'"x"').replace(b"auto", b"../../etc/passwd"),
        "unknown part": said(b'[{"type":"video","video":{}}]'),
        "image for local models": said(
            b'[{"type":"image_url","image_url":{"url":"data:image/png;base64,%s"}}]'
            % (b"A" * 3_000_000)
        ),
    }


def accepted() -> dict[str, bytes]:
    """Return unusual but valid bodies; the gateway returns 200."""
    return {
        "duplicate keys": said(b'"x"').replace(b'"auto"', b'"nobody","model":"auto"'),
        "nul in the text": said(b'"a\\u0000b"'),
        "control characters": said(b'"\\u0001\\u001b[2J\\u007f\\u2028\\u202e"'),
        "noncharacters": said('"\ufffe\uffff\U0010ffff"'.encode()),
        "an emoji": said(b'"\\ud83d\\ude00"'),
        "10,000 messages": b'{"messages":' + many(b'{"role":"user","content":"x"}', 10_000) + b"}",
        "unknown in a message": said(b'"x","mood":{"a":[1,null]}'),
        "odd tool calls": b'{"messages":[{"role":"assistant","tool_calls":[{},{"a":{}}]}]}',
        "2,000 biases": said(b'"x"', logit_bias=members(2_000)),
        "greatest seed": said(b'"x"', seed=str(2**63 - 1).encode(), n=b"3"),
        **{
            f"4 MB of {unit!r}": said(text(unit))
            for unit in (*'x1 \n$`(\\"{,\u4e2d\U0001f600', "word ", "A) ", "1.", "a\u0301")
        },
    }  # fmt: skip


LONGEST_ERROR = 2_600
"""Maximum size of an error body in bytes; longer messages, which may quote a request, are cut."""


def check_error(status: int, body: bytes) -> dict[str, Any]:
    """Check that a body is a short OpenAI error body; return its ``error``."""
    assert 400 <= status < 500, (status, body[:500])
    assert len(body) <= LONGEST_ERROR, body[:500]
    error: dict[str, Any] = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["type"] in {
        "invalid_request_error", "authentication_error", "rate_limit_error"
    }  # fmt: skip
    return error
