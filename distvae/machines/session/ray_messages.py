"""Ray's messages to the user, shortened to a line each; those about lost machines go to a file."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from distvae.machines.session.ray_head import FOLDER_PREFIX

WIDTH = 120
"""Characters of a message that are shown."""
LOSSES = ("Raylet is terminated", "The node with node id")
"""The beginnings of messages about a machine that is lost."""


class RayMessages:
    """Destination of Ray's messages: all of them to a file, a line of each to standard error."""

    def __init__(self, log_file: Path) -> None:
        self.log_file = log_file
        self.hides_losses = False
        """Whether somebody else says that a machine is lost."""

    def print_batch(self, data: Mapping[str, list[str]], **_: object) -> None:
        """Print some lines of Ray's, as Ray itself would."""
        self.print_shortened("\n".join(data["lines"]))

    def print_shortened(self, text: str) -> None:
        """Print the first line of a message, and append the message to the file."""
        with suppress(OSError), self.log_file.open("a") as log:
            log.write(f"{text}\n")
        first, _, rest = text.strip().partition("\n")
        if self.hides_losses and first.startswith(LOSSES):
            return
        shown = first if len(first) <= WIDTH else f"{first[:WIDTH]}..."
        is_whole = shown == first and not rest
        log_remains = FOLDER_PREFIX not in str(self.log_file)
        where = f" (more in {self.log_file})" if log_remains and not is_whole else ""
        print(f"Ray: {shown}{where}", file=sys.stderr, flush=True)


def shorten_ray_messages() -> RayMessages:
    """Print Ray's messages as one line each on standard error; keep whole ones in a file of its
    logs.
    """
    from ray._private import worker

    logs = Path(worker._global_node.get_logs_dir_path())
    messages = RayMessages(logs / f"told-{os.getpid()}.txt")
    worker.print_to_stdstream = messages.print_batch
    return messages


@contextmanager
def losses_in_a_file() -> Iterator[Path]:
    """Print no message of Ray about lost machines; yield the file that has them."""
    messages = shorten_ray_messages()
    messages.hides_losses = True
    try:
        yield messages.log_file
    finally:
        messages.hides_losses = False
