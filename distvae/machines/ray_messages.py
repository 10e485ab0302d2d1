"""Ray's messages to the user, shortened to a line each."""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from distvae.machines.ray_head import FOLDER_PREFIX

WIDTH = 120
"""Characters of a message that are shown."""


def shorten_ray_messages() -> None:
    """Print Ray's messages as one line each on standard error; keep whole ones in a file of its
    logs.
    """
    from ray._private import worker

    log_file = Path(worker._global_node.get_logs_dir_path()) / f"told-{os.getpid()}.txt"

    def print_batch(data: Mapping[str, list[str]], **_: object) -> None:
        print_shortened("\n".join(data["lines"]), log_file)

    worker.print_to_stdstream = print_batch


def print_shortened(text: str, log_file: Path) -> None:
    """Print the first line of a message, and append the message to a file."""
    with suppress(OSError), log_file.open("a") as log:
        log.write(f"{text}\n")
    first, _, rest = text.strip().partition("\n")
    shown = first if len(first) <= WIDTH else f"{first[:WIDTH]}..."
    is_whole = shown == first and not rest
    log_remains = FOLDER_PREFIX not in str(log_file)
    where = f" (more in {log_file})" if log_remains and not is_whole else ""
    print(f"Ray: {shown}{where}", file=sys.stderr, flush=True)
