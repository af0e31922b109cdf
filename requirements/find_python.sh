#!/bin/sh
# Prints a Python 3.11 or 3.12 that can make virtual environments. PYTHON names the one to take.
set -u
usable='import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'
for candidate in ${PYTHON:-python3.11 python3.12 python3 python}; do
    if "$candidate" -c "$usable" >/dev/null 2>&1; then
        exec "$candidate" -c 'import sys; print(sys.executable)'
    fi
done
cat >&2 <<END
No usable Python found (looked for: ${PYTHON:-python3.11 python3.12 python3 python}).
Waypost needs Python 3.11 or 3.12 with its venv module.
On Debian and Ubuntu: apt-get install python3-venv. Or name one: make PYTHON=/path/to/python3.11
END
exit 1
