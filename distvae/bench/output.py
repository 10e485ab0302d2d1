"""The output of benchmarks: printed, and kept as rows of the results."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from distvae.files.plain import Plain, finite
from distvae.files.provenance import commit
from distvae.numerics.arithmetic import processor_name
from distvae.report.results.rows import write_row

Settings = Mapping[str, Plain]
Figures = Mapping[str, float | list[float]]
Facts = Mapping[str, str | float]
NONE: Facts = MappingProxyType({})


@dataclass(frozen=True)
class Output:
    """The way a benchmark prints its figures, and the folder that keeps them."""

    json: bool = False
    """Print one JSON object per line instead of text."""
    folder: Path | None = None
    """Keeps the figures as rows of the results."""

    def show(self, record: Mapping[str, Plain], text: str) -> None:
        """Print a record as JSON, or as text for a person."""
        print(json.dumps(finite(record)) if self.json else text, flush=True)

    def keep(self, name: str, figures: Figures, settings: Settings, facts: Facts = NONE) -> None:
        """Write the figures as a row of the results, if there is a folder for them.

        Further facts of the row stand beside its commit; a `table` is its table instead of `bench`.
        """
        if self.folder is None:
            return
        row = {"table": "bench", "row": name, "commit": commit(), "seconds": None, "epochs": None}
        machine = f"{processor_name()}, {os.cpu_count()} cores"
        content = {
            **row,
            **facts,
            "machine": machine,
            "config": dict(settings),
            "figures": dict(figures),
        }
        write_row(self.folder, content, force=True)
