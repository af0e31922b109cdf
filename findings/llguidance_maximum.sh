#!/usr/bin/env bash
# llguidance forces a further digit after a number that is the maximum without its last digit.
#
# Version:   llguidance 1.9.1 (vLLM's backend "guidance" for structured answers, too)
# Expected:  with "maximum": 0.95 a model can answer 0.9, as it can 0.8.
# Happens:   after 0.9 the mask leaves only digits: the model answers 0.90 to 0.95 where it wanted to end
#            the number, so it may change the value. The same with 1.2 under 1.25, and with an exclusive
#            maximum. A maximum of one decimal place is not affected.
# Here:      `response_format: enforce` of the engine `transformers` has this (docs/serving.md). A maximum
#            of one decimal place, or none, avoids it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check llguidance==1.9.1
cat >"$work/try.py" <<'PYTHON'
import json

from llguidance import LLMatcher, LLTokenizer

TOKENS = LLTokenizer("byte")  # a token is a byte


def may_follow(bounds: dict, number: str) -> str:
    """Return the characters that the mask of tokens leaves after {"confidence":NUMBER."""
    schema = {
        "type": "object",
        "properties": {"confidence": {"type": "number", "minimum": 0, **bounds}},
        "required": ["confidence"],
        "additionalProperties": False,
    }
    matcher = LLMatcher(TOKENS, LLMatcher.grammar_from_json_schema(json.dumps(schema)))
    assert matcher.consume_tokens(TOKENS.tokenize_str('{"confidence":' + number)), matcher.get_error()
    mask = matcher.compute_bitmask()
    return "".join(chr(byte) for byte in range(0x21, 0x7F) if mask[byte // 8] >> byte % 8 & 1)


for bounds, numbers in (
    ({"maximum": 0.95}, ("0.8", "0.9", "0.90")),
    ({"exclusiveMaximum": 0.95}, ("0.9",)),
    ({"maximum": 1.25}, ("1.1", "1.2")),
    ({"maximum": 0.9}, ("0.9",)),
):
    for number in numbers:
        print(*bounds, *bounds.values(), "after", number, "may follow", may_follow(bounds, number))
PYTHON
"$work/venv/bin/python" "$work/try.py" | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
maximum 0.95 after 0.8 may follow 0123456789}
maximum 0.95 after 0.9 may follow 012345
maximum 0.95 after 0.90 may follow 0123456789}
exclusiveMaximum 0.95 after 0.9 may follow 01234
maximum 1.25 after 1.1 may follow 0123456789}
maximum 1.25 after 1.2 may follow 012345
maximum 0.9 after 0.9 may follow }
SEEN
echo "as described"
