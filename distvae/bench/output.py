"""The output of benchmarks: printed, and kept as rows of the results."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distvae.files.provenance import commit
from distvae.report.results.rows import write_row

Settings = Mapping[str, int | str]
Figures = Mapping[str, float]


@dataclass(frozen=True)
class Output:
    """The way a benchmark prints its figures, and the folder that keeps them."""

    json: bool = False
    """Print one JSON object per line instead of text."""
    folder: Path | None = None
    """Keeps the figures as rows of the results."""

    def show(self, record: Mapping[str, int | float | str], text: str) -> None:
        """Print a record as JSON, or as text for a person."""
        print(json.dumps(record) if self.json else text, flush=True)

    def keep(self, name: str, figures: Figures, settings: Settings) -> None:
        """Write the figures as a row of the results, if there is a folder for them."""
        if self.folder is None:
            return
        row = {"table": "bench", "row": name, "commit": commit(), "seconds": None, "epochs": None}
        content = {**row, "config": dict(settings), "figures": dict(figures)}
        write_row(self.folder, content, force=True)
