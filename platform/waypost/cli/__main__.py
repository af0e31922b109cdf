"""``python -m waypost.cli``: the ``waypost`` command without its console script."""

from waypost.cli import main

if __name__ == "__main__":
    main()
