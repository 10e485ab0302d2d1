"""TensorBoard: the metrics of a run as event files in its folder."""

from collections.abc import Sequence
from pathlib import Path

from distvae.files.program import refuse_missing
from distvae.files.untrusted import markdown_table
from distvae.track.naming import metric_name
from distvae.track.record import Figures, Record

FOLDER = "tensorboard"
"""The sink, its extra, and the subfolder of a run with its files."""


class TensorBoard:
    """The event files of a run. Each process writes all epochs again."""

    def __init__(self, run: Path) -> None:
        from tensorboardX import SummaryWriter

        self.run = run
        self._epochs = self._figures = 0  # already written
        for old in (run / FOLDER).glob("events.*"):
            old.unlink()
        self._writer = SummaryWriter(str(run / FOLDER))

    def update(self, record: Record) -> None:
        """Write the new epochs and metrics."""
        from distvae.train.run_folder import read_epochs

        if not self._epochs:
            rows = sorted(record["params"].items())
            text = "\n".join(markdown_table(["setting", "value"], rows))
            self._writer.add_text("settings", text, 0)
        epochs = read_epochs(self.run, first=self._epochs + 1)
        for epoch in epochs:
            when = record["began"] + int(1000 * epoch["seconds"])
            self._write(record, {"step": int(epoch["epoch"]), "when": when, "values": epoch})
        new = record["figures"][self._figures :]
        for figures in new:
            self._write(record, figures)
        self._epochs, self._figures = self._epochs + len(epochs), self._figures + len(new)
        self._writer.flush()

    def _write(self, record: Record, figures: Figures) -> None:
        for name, value in figures["values"].items():
            metric = metric_name(name, record["groups"])
            self._writer.add_scalar(metric, value, figures["step"], figures["when"] / 1000)

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def refuse_missing_packages(sinks: Sequence[str]) -> None:
    """Refuse a sink whose package is not installed."""
    if FOLDER in sinks:
        refuse_missing(f"train.sinks: '{FOLDER}'", "tensorboardX")
