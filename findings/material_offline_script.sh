#!/usr/bin/env bash
# A site that is built to be read offline links to a script on the network, and without it has no
# search.
#
# Versions:  mkdocs-material 9.8.2, mkdocs 1.6.1
# Expected:  the plug-in `offline` of mkdocs-material with `font: false` makes a site that needs no
#            network: search works from the file system.
# Happens:   every page loads https://unpkg.com/iframe-worker/shim, which is what makes search work
#            without a server. Only the plug-in `privacy` beside it fetches the script, at build time.
# Here:      the 1.4 KB script is docs/iframe-worker.js, named in mkdocs.yml under `polyfills`, which
#            the plug-in then leaves as it is.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet "mkdocs-material==9.8.2" "mkdocs==1.6.1"
mkdir "$work/docs"
echo '# Page' >"$work/docs/index.md"
cat >"$work/mkdocs.yml" <<'YAML'
site_name: A site
theme: {name: material, font: false}
plugins: [search, offline]
YAML
"$work/venv/bin/mkdocs" build --quiet --config-file "$work/mkdocs.yml" 2>"$work/log"
grep -oE '<script src="https?://[^"]*"' "$work/site/index.html" | tee "$work/found"
[ "$(cat "$work/found")" = '<script src="https://unpkg.com/iframe-worker/shim"' ] ||
    { echo "changed: look at this finding anew" >&2; exit 1; }
