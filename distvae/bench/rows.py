"""Measure how ingest, training, a kill and a resume scale with the number of rows.

Each stage is a command of its own, of which seconds, memory and bytes are measured.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from distvae.bench.output import Output
from distvae.bench.recovery import Trained, measure_recovery
from distvae.bench.usage import Usage, measure_command
from distvae.system.processors import available_cores

PYTHON = (sys.executable, "-m")
TOGETHER = 2**16
"""Rows that are made together."""
CAUSES = 16
"""Directions in which rows vary, beside noise."""


class RowsCase(NamedTuple):
    """The table that is made, and what is done with it."""

    rows: int
    values: int = 144
    processes: int | None = None
    """Of the ingest; None for its default."""
    blocks: int = 8
    """Blocks of rows to train on, after one that is not timed; 0 for no training."""


def bench_rows(case: RowsCase, folder: Path | None, output: Output) -> None:
    """Make a table in a folder that is deleted afterwards, ingest it, and train on it."""
    with TemporaryDirectory(prefix="distvae-bench-", dir=folder) as name:
        figures = measure_rows(case, Path(name))
    processes = case.processes or available_cores()
    settings = {**case._asdict(), "processes": processes}
    output.show({**settings, **figures}, describe_row_costs(case, figures))
    output.keep(f"rows-{case.rows}", figures, settings, {"section": "A billion rows"})


def measure_rows(case: RowsCase, folder: Path) -> dict[str, float]:
    """Return the figures of each stage."""
    source, rows = folder / "source.npy", folder / "rows"
    make_table(case, source)
    size = source.stat().st_size
    words = [*PYTHON, "distvae", "ingest", str(source), str(rows), "--quiet"]
    if case.processes is not None:
        words += ["--processes", str(case.processes)]
    figures = {"source_gb": size / 1e9}
    figures |= figures_of("ingest", measure_command(words), case.rows)
    source.unlink()
    if case.blocks:
        figures |= measure_recovery(Trained(rows, folder, case.blocks))
    return figures


def figures_of(stage: str, usage: Usage, rows: int) -> dict[str, float]:
    """Return what a stage took: seconds and memory, and bytes for each row of the table."""
    return {
        f"{stage}_s": usage.seconds,
        f"{stage}_processor_s": usage.processor_seconds,
        f"{stage}_row_us": 1e6 * usage.processor_seconds / rows,
        f"{stage}_processes": float(len(usage.peaks())),
        f"{stage}_peak_gb": max(usage.peaks(), default=0) / 1e9,
        f"{stage}_held_gb": max(usage.held(), default=0) / 1e9,
        f"{stage}_row_read": usage.read / rows,
        f"{stage}_row_disk_read": usage.disk_read / rows,
        f"{stage}_row_written": usage.written / rows,
    }


def make_table(case: RowsCase, path: Path) -> None:
    """Write rows that vary in a few directions beside noise."""
    directions = np.random.default_rng(0).normal(size=(CAUSES, case.values)).astype(np.float32)
    table = np.lib.format.open_memmap(path, "w+", np.float32, (case.rows, case.values))
    for first in range(0, case.rows, TOGETHER):
        chance = np.random.default_rng([1, first])
        part = table[first : first + TOGETHER]
        active = (chance.random((len(part), CAUSES)) < 0.2).astype(np.float32)
        part[:] = active @ directions + 0.1 * chance.random(part.shape, np.float32)
    table.flush()


def describe_row_costs(case: RowsCase, f: Mapping[str, float]) -> str:
    """Return the figures in words."""
    lines = [f"{case.rows:,} rows of {case.values} values, {f['source_gb']:.2f} GB"]
    lines += _stage("ingest", f)
    if case.blocks:
        lines += _trained("one", "one worker", f) + _trained("torchrun", "two by torchrun", f)
        lines += _trained("ray", "two under Ray", f)
        lines += [
            f"    a keeper of at most {f['ray_keeper_gb']:.2f} GB; {f['ray_recovery_s']:.1f} s from"
            " the kill of a worker until training went on",
        ]
    return "\n".join(lines)


def _trained(way: str, name: str, f: Mapping[str, float]) -> list[str]:
    return [
        f"  {name}: began after {f[f'{way}_start_s']:.1f} s; a worker of at most"
        f" {f[f'{way}_worker_gb']:.2f} GB",
        f"    a row {f[f'{way}_block_row_ms']:.3f} ms, {f[f'{way}_block_row_processor_ms']:.3f} ms"
        " of processors",
        f"    resumed after {f[f'{way}_resume_s']:.1f} s; {f[f'{way}_loopback_mb']:.1f} MB through"
        " the loopback interface",
    ]


def _stage(name: str, f: Mapping[str, float]) -> list[str]:
    row = [f"{f[f'{name}_row_{what}']:.0f}" for what in ("read", "disk_read", "written")]
    return [
        f"  {name}: {f[f'{name}_s']:.1f} s, {f[f'{name}_processor_s']:.1f} s of processors,"
        f" {f[f'{name}_row_us']:.2f} us a row",
        f"    {f[f'{name}_processes']:.0f} processes of at most {f[f'{name}_peak_gb']:.2f} GB,"
        f" {f[f'{name}_held_gb']:.2f} GB without mapped files",
        f"    bytes a row: {row[0]} read, {row[1]} of them from the disk; {row[2]} written",
    ]
