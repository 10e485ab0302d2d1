"""Tables of float32 rows as Arrow files, mapped into memory rather than read."""

from pathlib import Path

import numpy as np

from distvae.data.dataset import Array


def wrap(raw: Path, path: Path, width: int) -> None:
    """Turn a file of raw rows into an Arrow file of one record batch, through a memory map; the raw file goes."""
    import pyarrow as pa

    values = np.memmap(raw, np.float32, "r") if raw.stat().st_size else np.empty(0, np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values), width)
    batch = pa.record_batch([column], names=["power"])
    options = pa.ipc.IpcWriteOptions(allow_64bit=True)  # more than 2^31 values
    with path.open("wb") as stream, pa.ipc.new_file(stream, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    raw.unlink()


def read(path: Path) -> Array:
    """(rows, width) read-only, nothing of it in memory until it is touched."""
    import pyarrow as pa

    column = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0).column(0)
    values = column.values.to_numpy(zero_copy_only=True)
    return np.asarray(values.reshape(-1, column.type.list_size))
