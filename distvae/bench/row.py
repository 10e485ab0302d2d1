"""A benchmark's figures as a row of the results."""

from collections.abc import Mapping
from pathlib import Path

from distvae.files.provenance import commit
from distvae.report.results.rows import write_row


def keep_row(
    folder: Path, name: str, figures: dict[str, float], how: Mapping[str, int | str]
) -> None:
    """Write a row of results."""
    row = {"table": "bench", "row": name, "commit": commit(), "seconds": None, "epochs": None}
    content = {**row, "config": dict(how), "figures": figures}
    write_row(folder, content, force=True)
