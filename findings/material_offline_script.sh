#!/usr/bin/env bash
# A site built for offline use loads a script from the network; without it, search does not work.
#
# Versions:  mkdocs-material 9.8.2, mkdocs 1.6.1
# Expected:  the plug-in `offline` of mkdocs-material with `font: false` builds a site that needs no
#            network; search works from the file system.
# Happens:   every page loads https://unpkg.com/iframe-worker/shim, which search needs without a
#            server. Only the plug-in `privacy` downloads the script at build time.
# Here:      docs/iframe-worker.js (1.4 KB) is that script, set in mkdocs.yml under `polyfills`; the
#            plug-in does not replace it.
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
