#!/bin/sh
# Installs what is missing of system.txt, where apt and the right to use it are there;
# elsewhere says what to install. Run from the repository root.
set -eu
missing=''
while read -r package probe; do
    case $package in '' | '#'*) continue ;; esac
    sh -c "$probe" </dev/null >/dev/null 2>&1 || missing="$missing $package"
done <requirements/system.txt
[ -n "$missing" ] || exit 0

as_root=''
if [ "$(id -u)" -ne 0 ]; then as_root='sudo -n'; fi
if ! command -v apt-get >/dev/null 2>&1 || ! $as_root true 2>/dev/null; then
    echo "Missing on this machine (Debian package names):$missing" >&2
    echo "Install them, as root: apt-get install$missing" >&2
    exit 1
fi
echo "Installing:$missing"
export DEBIAN_FRONTEND=noninteractive
# tests run the programs themselves: no package may start its service
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap '$as_root rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
fi
# shellcheck disable=SC2086 # $as_root and $missing are lists of words
{ $as_root apt-get update -qq && $as_root apt-get install -y -qq --no-install-recommends $missing; } >/dev/null
