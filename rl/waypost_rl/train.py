"""``python -m waypost_rl.train --config FILE``: train a policy, as ``waypost rl train`` does.

For ``ray job submit``, where the command of the cluster's environment may be missing.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run ``waypost rl train`` with the arguments of this process."""
    from waypost.cli import main as run

    sys.argv[1:1] = ["rl", "train"]
    run()


if __name__ == "__main__":
    main()
