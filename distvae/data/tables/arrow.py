"""Tables of float32 rows in Arrow files, which are memory-mapped."""

from pathlib import Path
from typing import BinaryIO

import numpy as np

from distvae.data.dataset import Array
from distvae.files.arrow import rows_column
from distvae.files.atomic import replaced_file
from distvae.files.storage import Sink
from distvae.files.untrusted import decoding


def wrap(raw: Path, path: Path, width: int) -> None:
    """Turn a file of raw rows into an Arrow file of one record batch, through a memory map; delete
    the raw file.
    """
    values = np.memmap(raw, np.float32, "r") if raw.stat().st_size else np.empty(0, np.float32)
    with path.open("wb") as stream:
        _write_record_batch(stream, values, width, "power")
    raw.unlink()


def save(path: Path, rows: Array) -> tuple[int, str]:
    """Write rows to an Arrow file that outlasts a power cut; how many bytes it has, and their
    SHA-256.
    """
    with replaced_file(path) as partial, partial.open("wb") as stream:
        sink = Sink(stream)
        _write_record_batch(sink, rows.ravel(), rows.shape[1], "row")
    return sink.count, sink.digest.hexdigest()


def _write_record_batch(stream: BinaryIO | Sink, values: Array, width: int, name: str) -> None:
    import pyarrow as pa

    batch = pa.record_batch([rows_column(values, width)], names=[name])
    options = pa.ipc.IpcWriteOptions(allow_64bit=True)  # more than 2^31 values
    with pa.ipc.new_file(stream, batch.schema, options=options) as writer:
        writer.write_batch(batch)


def read_arrow(path: Path) -> Array:
    """Return (rows, width), read-only. Rows are loaded when they are touched."""
    import pyarrow as pa

    with decoding(path, "the file that was written there"):
        batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        batch.validate()
        column = batch.column(0)
        values = column.values.to_numpy(zero_copy_only=True)
        return np.asarray(values.reshape(-1, column.type.list_size))
