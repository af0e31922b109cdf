"""Copy the TensorBoard events of runs from their store to a folder, over and over.

The environment names both: RUNS, a folder or URI as ``--out`` of `waypost tune` has it, and EVENTS.
Checkpoints and tables stay where they are. A file that grew is copied again.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from pyarrow import fs

EVERY_S = 60.0
MARK = "tfevents"


def copy_events(runs: str, events: Path, known: dict[str, int]) -> None:
    """Copy what is new.

    Args:
        runs: Folder or URI.
        events: Folder of the copies.
        known: Path -> bytes of what was copied; updated.
    """
    store, root = fs.FileSystem.from_uri(runs)
    for info in store.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True)):
        if MARK not in info.base_name or info.size == known.get(info.path):
            continue
        target = events / Path(info.path).relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        with store.open_input_stream(info.path) as source:
            target.write_bytes(source.read())
        known[info.path] = info.size


def main() -> None:
    """Copy until the container ends; a store that does not answer is asked again."""
    known: dict[str, int] = {}
    while True:
        try:
            copy_events(os.environ["RUNS"], Path(os.environ["EVENTS"]), known)
        except OSError as error:
            print(f"{os.environ['RUNS']}: {error}", file=sys.stderr)  # noqa: T201 - its log
        time.sleep(EVERY_S)


if __name__ == "__main__":
    main()
