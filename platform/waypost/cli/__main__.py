"""``python -m waypost.cli``: the command where no console script is installed."""

from waypost.cli import main

if __name__ == "__main__":
    main()
