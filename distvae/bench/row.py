"""A benchmark's figures as a row of the results."""

from pathlib import Path

from distvae import results
from distvae.provenance import commit


def keep_row(folder: Path, name: str, figures: dict[str, float], how: dict[str, int]) -> None:
    """Write a row of results."""
    row = {"table": "bench", "row": name, "commit": commit(), "seconds": None, "epochs": None}
    results.write(folder, row | {"config": how, "figures": figures}, force=True)
