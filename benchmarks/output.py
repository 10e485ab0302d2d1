"""The output of benchmarks: printed, and saved as rows of results."""

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

from distvae.files.program import commit
from distvae.files.untrusted import Plain, finite
from distvae.numerics.arithmetic import processor_name
from distvae.reproduce.rows import write_row

Figures = Mapping[str, float]


def parser_of(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return the parser of a benchmark, with the options that all benchmarks share."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.add_argument("--keep", type=Path, help="keep the figures as rows of results, here")
    return parser


def show(parsed: argparse.Namespace, record: Mapping[str, Plain], text: str) -> None:
    """Print a record as JSON, or as text."""
    print(json.dumps(finite(record)) if parsed.json else text, flush=True)


def keep(
    parsed: argparse.Namespace, name: str, figures: Figures, settings: Mapping[str, Plain]
) -> None:
    """Write metrics as a row of the table `bench`, if its folder is given."""
    if parsed.keep is None:
        return
    machine = f"{processor_name()}, {os.cpu_count()} cores"
    row = {"table": "bench", "row": name, "commit": commit(), "machine": machine}
    content = {**row, "seconds": None, "epochs": None, "config": settings, "figures": figures}
    write_row(parsed.keep, content, force=True)


def spread(values: Mapping[str, Sequence[float]]) -> Iterator[tuple[str, float]]:
    """Yield the median of each list under its name, and its minimum and maximum."""
    for name, numbers in values.items():
        yield name, median(numbers)
        yield f"{name}_min", min(numbers)
        yield f"{name}_max", max(numbers)
