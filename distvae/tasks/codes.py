"""Codes of data written to Parquet, and samples from the prior.

A code is a list in the column `code`. If most values of codes are zero, the columns `code_indices`
and `code_values` have its other values instead, and the metadata of the schema its size.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distvae.config import DataConfig, RowsData
from distvae.config.recipes import recipe_name
from distvae.data import labels_of, open_dataset
from distvae.data.dataset import Array, Dataset
from distvae.data.folders import sorted_names
from distvae.data.speech import recordings_of
from distvae.files.paths import atomic_file, check_new_file
from distvae.files.refusal import Refusal
from distvae.files.storage import rows_column
from distvae.tasks import pictures
from distvae.tasks.run_pictures import as_images, run_title
from distvae.train.run import Run

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from distvae.data.dataset import Labels

GROUP = 65536
"""Rows of a Parquet row group, the most that memory holds at a time."""
Columns = Mapping[str, "str | Sequence[str] | NDArray[np.integer]"]
"""Columns of a table: one text for all rows, or a value for each."""
Block = tuple[Columns, Array]
"""Columns and codes of some rows."""


def encode(
    run: Run,
    data: DataConfig,
    target: Path,
    split: str = "all",
    active: bool = False,
    force: bool = False,
) -> int:
    """Write the codes of one split or of all data, with the origin of each row. Return the number
    of rows. With `active`, values of codes that are not active are zero.
    """
    check_new_file(target, (".parquet",), force)
    dataset, labels = open_dataset(data), labels_of(data)
    if dataset.dims != run.dims:
        raise Refusal(
            f"{dataset.name}: data points of {dataset.dims} values; {run.dims} expected by"
            f" {run.path}"
        )

    def blocks() -> Iterator[Block]:
        for name in dataset.split_names(split):
            if dataset.recordings:
                yield from _recording_blocks(run, dataset, name, active)
            else:
                of_split = None if labels is None else labels[name]
                yield from _row_blocks(run, dataset, name, of_split, active)

    return _write(run, blocks(), target)


def encode_file(
    run: Run, file: Path, target: Path, active: bool = False, force: bool = False
) -> int:
    """Write the codes of one recording, picture or table, and return their number."""
    check_new_file(target, (".parquet",), force)
    sorted_names([file.name])
    codes = run.encode(file, active=active)
    number = np.arange(len(codes), dtype=np.int32)
    columns: dict[str, str | NDArray[np.integer]] = {"file": file.name}
    if recordings_of(run.config.data):
        columns["frame"] = number
    elif run.config.data.kind == RowsData.kind:
        columns["row"] = number
    return _write(run, iter([(columns, codes)]), target)


def sample(run: Run, target: Path, count: int = 64, seed: int = 0, force: bool = False) -> None:
    """Decode draws from the prior; write a picture of them, and their values as .npy beside it."""
    values = target.with_suffix(".npy")
    check_new_file(target, (".png", ".pdf", ".svg"), force)
    check_new_file(values, (".npy",), force)
    decoded = run.sample(count, seed)
    title = f"{run_title(run)}: {count} draws from the prior"
    recordings = recordings_of(run.config.data)
    if recordings is not None:
        figure = pictures.sampled_frames(decoded, recordings.rate, title)
    else:
        figure = pictures.grid(as_images(decoded, run), title)
    pictures.save(figure, target)
    with atomic_file(values) as path:
        np.save(path, decoded)


def _recording_blocks(run: Run, dataset: Dataset, split: str, active: bool) -> Iterator[Block]:
    """Yield the frames of each recording."""
    for recording, rows in dataset.rows(split):
        name = f"{dataset.name}: {recording.file}"
        codes = run.encode(dataset.splits[split][rows], name, active=active)
        frame = np.arange(len(codes), dtype=np.int32)
        origin = {"file": recording.file, "speaker": recording.speaker, "split": split}
        yield {**origin, "frame": frame}, codes


def _row_blocks(
    run: Run, dataset: Dataset, split: str, labels: "Labels | None", active: bool
) -> Iterator[Block]:
    """Yield blocks of rows, with their files and their labels if there are any."""
    rows = dataset.splits[split]
    for start in range(0, len(rows), GROUP):
        codes = run.encode(rows[start : start + GROUP], dataset.name, active=active)
        row = np.arange(start, start + len(codes), dtype=np.int32)
        label = {} if labels is None else {"label": labels[row]}
        files = dataset.pictures.get(split, ())[start : start + len(codes)]
        picture = {"file": files} if files else {}
        yield {**picture, "split": split, "row": row, **label}, codes


def _write(run: Run, blocks: Iterator[Block], target: Path) -> int:
    """Write blocks into a Parquet file, and return the number of rows."""
    from pyarrow.parquet import ParquetWriter

    tables, rows = _tables(run, blocks), 0
    first = next(tables)
    with (
        atomic_file(target) as path,
        ParquetWriter(path, first.schema, compression="zstd") as writer,
    ):
        for table in chain([first], tables):
            writer.write_table(table)
            rows += len(table)
    return rows


def _tables(run: Run, blocks: Iterator[Block]) -> Iterator["pa.Table"]:
    """Join blocks to tables of about a row group each. The schema names the run."""
    import pyarrow as pa

    text = pa.dictionary(pa.int32(), pa.string())
    kinds = {"file": text, "speaker": text, "split": text, "label": pa.int64()}
    metadata = {
        "distvae.recipe": recipe_name(run.recipe),
        "distvae.run": run.info["config_sha256"],
        "distvae.trained_on": run.info["data_digest"],
        "distvae.code_size": str(run.model.code_size),
    }
    is_sparse = getattr(run.config.model, "sparse", False)
    waiting: list[pa.Table] = []
    for columns, codes in blocks:
        schema = {name: kinds.get(name, pa.int32()) for name in columns}
        arrays = []
        for name, values in columns.items():
            column = [values] * len(codes) if isinstance(values, str) else values
            arrays.append(pa.array(column).cast(schema[name]))
        code = sparse_columns(codes) if is_sparse else {"code": rows_column(codes, codes.shape[1])}
        schema |= {name: column.type for name, column in code.items()}
        arrays += code.values()
        waiting.append(pa.table(arrays, schema=pa.schema(schema, metadata=metadata)))
        if sum(map(len, waiting)) >= GROUP:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def sparse_columns(codes: Array) -> dict[str, "pa.ListArray"]:
    """Return the values of codes that are not zero, and their indices, as lists for each code."""
    import pyarrow as pa

    row, index = np.nonzero(codes)
    ends = np.searchsorted(row, np.arange(len(codes) + 1)).astype(np.int32)
    return {
        "code_indices": pa.ListArray.from_arrays(ends, index.astype(np.int32)),
        "code_values": pa.ListArray.from_arrays(ends, codes[row, index]),
    }
