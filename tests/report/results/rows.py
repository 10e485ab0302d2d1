"""Finished rows for the tests of results."""

import re
from pathlib import Path

from distvae.report.results.rows import write_row


def finished_row(name: str, seed: int, **figures: float | None) -> dict[str, object]:
    """Return a finished row of the table `speech`."""
    return {
        "table": "speech",
        "row": name,
        "commit": "0123456789ab",
        "seconds": 10.0,
        "epochs": 30,
        "config": {"train.seed": seed},
        "figures": figures,
    }


def write_finished(folder: Path, name: str, seed: int, **figures: float | None) -> None:
    """Write a finished row of the table `speech`."""
    write_row(folder, finished_row(name, seed, **figures), force=False)


def cells(page: Path) -> list[list[str]]:
    """Return the cells of all tables of a page."""
    lines = [line for line in page.read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in lines]
