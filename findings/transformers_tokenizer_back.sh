#!/usr/bin/env bash
# A tokenizer that transformers 5 saves does not load in transformers 4.
#
# Versions:  transformers 5.23.0 and 4.45.2 (tokenizers 0.20.3 there)
# Expected:  a folder of save_pretrained with a tokenizer.json, whose format did not change, loads, as
#            the model beside it does.
# Happens:   tokenizer_config.json names the class "TokenizersBackend", which transformers 4 does not
#            have, so AutoTokenizer refuses the folder. The other way round it loads. With the name
#            changed to PreTrainedTokenizerFast, version 4 reads it and encodes as version 5 does.
# Here:      vLLM 0.6.3 and TRL 0.11.4 need transformers 4.45: policies of Router-R1 are written in the
#            environment of training, and converted models name PreTrainedTokenizerFast.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for version in 5.23.0 4.45.2; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/pip" install --quiet --disable-pip-version-check "transformers==$version" jinja2
done

cat >"$work/save.py" <<'PYTHON'
import sys

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

plain = Tokenizer(models.WordLevel({"[UNK]": 0, "one": 1, "two": 2}, unk_token="[UNK]"))
plain.pre_tokenizer = pre_tokenizers.Whitespace()
PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="[UNK]").save_pretrained(sys.argv[1])
PYTHON
cat >"$work/load.py" <<'PYTHON'
import json
import sys
from pathlib import Path

import transformers

folder = Path(sys.argv[1])
named = json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"]
try:
    ids = transformers.AutoTokenizer.from_pretrained(folder)("two one")["input_ids"]
except ValueError as error:
    ids = str(error).split(".")[0]
print(f"{transformers.__version__} reads {named}: {ids}")
PYTHON

"$work/5.23.0/bin/python" "$work/save.py" "$work/new" 2>/dev/null
"$work/4.45.2/bin/python" "$work/save.py" "$work/old" 2>/dev/null
cp -r "$work/new" "$work/mended"
sed -i 's/"TokenizersBackend"/"PreTrainedTokenizerFast"/' "$work/mended/tokenizer_config.json"
{
    "$work/4.45.2/bin/python" "$work/load.py" "$work/new"
    "$work/5.23.0/bin/python" "$work/load.py" "$work/old"
    "$work/4.45.2/bin/python" "$work/load.py" "$work/mended"
} 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
4.45.2 reads TokenizersBackend: Tokenizer class TokenizersBackend does not exist or is not currently imported
5.23.0 reads PreTrainedTokenizerFast: [2, 1]
4.45.2 reads PreTrainedTokenizerFast: [2, 1]
SEEN
echo "as described"
