"""Tables of numbers for tests, and the files of an ingest, read by pyarrow."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distvae.config import RowsData
from distvae.data import open_dataset
from distvae.data.dataset import Dataset

Floats = NDArray[np.floating]


def columns(x: Floats) -> pa.Table:
    return pa.table({f"c{i}": x[:, i] for i in range(x.shape[1])})


def lists(x: Floats, length: int = -1) -> pa.Table:
    return pa.table({"x": pa.array(list(x), pa.list_(pa.from_numpy_dtype(x.dtype), length))})


WAYS: dict[str, Callable[[Path, Floats], None]] = {
    "plain.npy": np.save,
    "turned.npy": lambda path, x: np.save(path, np.asfortranarray(x)),
    "columns.parquet": lambda path, x: pq.write_table(columns(x), path, row_group_size=7),
    "lists.parquet": lambda path, x: pq.write_table(lists(x), path),
    "packed.feather": lambda path, x: feather.write_feather(lists(x), path, chunksize=5),
    "mapped.arrow": lambda path, x: feather.write_feather(
        lists(x, x.shape[1]), path, compression="uncompressed"
    ),
}
"""How a table of numbers may be kept, by a name that shows it."""


def stored(folder: Path, x: Floats, way: str = "plain.npy", name: str = "") -> Path:
    path = folder / f"{name}{way}"
    WAYS[way](path, x)
    return path


def files(folder: Path, split: str = "") -> list[NDArray[np.float32]]:
    """The rows of every file, read by pyarrow."""
    found = [
        feather.read_table(path)["row"].combine_chunks()
        for path in sorted(folder.glob(f"{split}*.arrow"))
    ]
    return [column.flatten().to_numpy().reshape(len(column), -1) for column in found]


def in_places(folder: Path) -> NDArray[np.float32]:
    """All rows in the order of their places."""
    return np.concatenate(
        [rows for split in ("train", "val", "test") for rows in files(folder, split)]
    )


def numbered(rows: int, values: int = 3) -> NDArray[np.float32]:
    """Rows that begin with their number."""
    x = np.random.default_rng(rows).normal(size=(rows, values)).astype(np.float32)
    x[:, 0] = np.arange(rows)
    return x


def opened(folder: Path) -> Dataset:
    return open_dataset(RowsData(path=str(folder)))
