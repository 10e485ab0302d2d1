"""TensorBoard: the figures of a run as event files."""

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

from distvae.files.markdown import markdown_table
from distvae.track.file_sink import FileSink

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter


class TensorBoard(FileSink):
    """Event files in the folder `tensorboard` of a run. Each process writes a file of its own."""

    name = "tensorboard"
    package = "tensorboardX"
    _writer: "SummaryWriter | None" = None

    @property
    def writer(self) -> "SummaryWriter":
        """The open file. A new one begins with the settings of the run."""
        from tensorboardX import SummaryWriter

        if self._writer is None:
            is_new = not list(self.folder.glob("events.*"))
            # the package names files by the second in which they are begun
            suffix = f".{secrets.token_hex(4)}"
            self._writer = SummaryWriter(str(self.folder), filename_suffix=suffix)
            if is_new:
                self._writer.add_text("settings", self._settings(), 0)
        return self._writer

    def write(self, figures: Mapping[str, float], epoch: int, when: float) -> None:
        """Write the figures of an epoch as scalars."""
        for name, value in figures.items():
            self.writer.add_scalar(name, value, epoch, when)

    def flush(self) -> None:
        """Write to the disk."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def _settings(self) -> str:
        """Return the settings of the run as a table of Markdown."""
        params = self.journal.head().get("params", {})
        rows = [(name, str(value)) for name, value in sorted(params.items())]
        return "\n".join(markdown_table(["setting", "value"], rows))
