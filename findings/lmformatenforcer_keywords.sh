#!/usr/bin/env bash
# lm-format-enforcer drops keywords of a JSON schema without a word; a constant number raises AttributeError.
#
# Version:   lm-format-enforcer 0.11.3 (a backend of vLLM 0.6 for structured answers, in its 0.10)
# Expected:  what the enforcer lets through fits the schema, or building it raises an error that names the
#            keyword, as llguidance and outlines do.
# Happens:   minimum, maximum, multipleOf, uniqueItems and format do nothing, while maxLength, maxItems,
#            pattern and enum hold; {"const": 3} raises "'int' object has no attribute 'startswith'".
# Here:      `response_format: enforce` uses llguidance for the local engines, vLLM of both versions included:
#            it holds these or names the one that it cannot ("Unimplemented keys").
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check lm-format-enforcer==0.11.3
cat >"$work/try.py" <<'PYTHON'
import json

from lmformatenforcer import JsonSchemaParser

TRIED = (
    ({"type": "integer", "minimum": 5}, "1"),
    ({"type": "integer", "maximum": 5}, "9"),
    ({"type": "integer", "multipleOf": 2}, "3"),
    ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "[1,1]"),
    ({"type": "string", "format": "date"}, '"x"'),
    ({"type": "string", "maxLength": 2}, '"abc"'),
    ({"type": "array", "items": {"type": "integer"}, "maxItems": 1}, "[1,2]"),
    ({"type": "string", "pattern": "^a+$"}, '"b"'),
    ({"type": "integer", "enum": [1, 2]}, "3"),
    ({"const": 3}, "3"),
)


def passes(value: dict, text: str) -> str:
    """Feed an object with this value, character by character."""
    schema = {"type": "object", "properties": {"n": value}, "required": ["n"], "additionalProperties": False}
    try:
        parser = JsonSchemaParser(schema)
        for character in f'{{"n":{text}}}':
            if character not in parser.get_allowed_characters():
                return "refused"
            parser = parser.add_character(character)
    except AttributeError as error:
        return f"AttributeError: {error}"
    return "accepted" if parser.can_end() else "not complete"


for value, text in TRIED:
    print(json.dumps(value), text, passes(value, text))
PYTHON
"$work/venv/bin/python" "$work/try.py" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
{"type": "integer", "minimum": 5} 1 accepted
{"type": "integer", "maximum": 5} 9 accepted
{"type": "integer", "multipleOf": 2} 3 accepted
{"type": "array", "items": {"type": "integer"}, "uniqueItems": true} [1,1] accepted
{"type": "string", "format": "date"} "x" accepted
{"type": "string", "maxLength": 2} "abc" refused
{"type": "array", "items": {"type": "integer"}, "maxItems": 1} [1,2] refused
{"type": "string", "pattern": "^a+$"} "b" refused
{"type": "integer", "enum": [1, 2]} 3 refused
{"const": 3} 3 AttributeError: 'int' object has no attribute 'startswith'
SEEN
echo "as described"
