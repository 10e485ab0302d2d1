"""Codes of data written to Parquet, and samples from the prior."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distvae.config import DataConfig
from distvae.config.recipes import recipe_name
from distvae.data import labels_of, open_dataset
from distvae.data.dataset import Array, Dataset
from distvae.data.family import recordings_of
from distvae.data.folders import sorted_names
from distvae.files.paths import atomic_file, check_new_file
from distvae.files.refusal import Refusal
from distvae.files.storage import rows_column
from distvae.tasks import pictures
from distvae.tasks.images import as_images
from distvae.tasks.titles import run_title
from distvae.train.run import Run

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from distvae.data.dataset import Labels

GROUP = 65536
"""Rows of a Parquet row group, the most that memory holds at a time."""


def encode(
    run: Run, data: DataConfig, target: Path, split: str = "all", force: bool = False
) -> int:
    """Write the codes of one split or of all data, with the origin of each row. Return the number
    of rows.
    """
    import pyarrow.parquet as pq

    check_new_file(target, (".parquet",), force)
    dataset, labels = open_dataset(data), labels_of(data)
    if dataset.dims != run.dims:
        raise Refusal(
            f"{dataset.name}: data points of {dataset.dims} values; {run.dims} expected by"
            f" {run.path}"
        )
    names, schema = dataset.split_names(split), _schema(run, _origin(dataset, labels is not None))
    rows = 0
    with atomic_file(target) as path, pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for name in names:
            label = None if labels is None else labels[name]
            if dataset.recordings:
                blocks = _recording_blocks(run, dataset, name)
            else:
                blocks = _row_blocks(run, dataset, name, label)
            for table in _grouped(blocks, schema):
                writer.write_table(table)
                rows += len(table)
    return rows


def encode_file(run: Run, file: Path, target: Path, force: bool = False) -> int:
    """Write the codes of one recording or picture, and return their number."""
    import pyarrow.parquet as pq

    check_new_file(target, (".parquet",), force)
    sorted_names([file.name])
    codes = run.encode(file)
    columns: Columns = {"file": file.name}
    if recordings_of(run.config.data):
        columns = {**columns, "frame": np.arange(len(codes), dtype=np.int32)}
    schema = _schema(run, columns)
    with atomic_file(target) as path:
        pq.write_table(_codes_table(columns, codes, schema), path, compression="zstd")
    return len(codes)


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


Columns = Mapping[str, "str | Sequence[str] | NDArray[np.integer]"]
"""Columns of a table: one text for all rows, or a value for each."""
Block = tuple[Columns, Array]
"""Columns and codes of some rows."""


def _recording_blocks(run: Run, dataset: Dataset, split: str) -> Iterator[Block]:
    """Yield the frames of each recording."""
    for recording, rows in dataset.rows(split):
        codes = run.encode(dataset.splits[split][rows], f"{dataset.name}: {recording.file}")
        frame = np.arange(len(codes), dtype=np.int32)
        origin = {"file": recording.file, "speaker": recording.speaker, "split": split}
        yield {**origin, "frame": frame}, codes


def _row_blocks(run: Run, dataset: Dataset, split: str, labels: "Labels | None") -> Iterator[Block]:
    """Yield blocks of rows, with their files and their labels if there are any."""
    rows = dataset.splits[split]
    for start in range(0, len(rows), GROUP):
        codes = run.encode(rows[start : start + GROUP], dataset.name)
        row = np.arange(start, start + len(codes), dtype=np.int32)
        label = {} if labels is None else {"label": labels[row]}
        files = dataset.pictures.get(split, ())[start : start + len(codes)]
        picture = {"file": files} if files else {}
        yield {**picture, "split": split, "row": row, **label}, codes


def _origin(dataset: Dataset, labelled: bool) -> list[str]:
    """Return the columns that say where each code comes from."""
    if dataset.recordings:
        return ["file", "speaker", "split", "frame"]
    picture, label = ["file"] if dataset.pictures else [], ["label"] if labelled else []
    return [*picture, "split", "row", *label]


def _schema(run: Run, origin: Iterable[str]) -> "pa.Schema":
    import pyarrow as pa

    text = pa.dictionary(pa.int32(), pa.string())
    kinds = {"file": text, "speaker": text, "split": text, "label": pa.int64()}
    code = pa.list_(pa.float32(), run.model.code_size)
    metadata = {
        "distvae.recipe": recipe_name(run.recipe),
        "distvae.run": run.info["config_sha256"],
        "distvae.trained_on": run.info["data_digest"],
    }
    columns = {name: kinds.get(name, pa.int32()) for name in origin}
    return pa.schema(columns | {"code": code}, metadata=metadata)


def _grouped(blocks: Iterator[Block], schema: "pa.Schema") -> Iterator["pa.Table"]:
    """Join blocks to tables of about a row group each."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    for columns, codes in blocks:
        waiting.append(_codes_table(columns, codes, schema))
        if sum(map(len, waiting)) >= GROUP:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _codes_table(columns: Columns, codes: Array, schema: "pa.Schema") -> "pa.Table":
    import pyarrow as pa

    arrays = []
    for name in schema.names[:-1]:
        values = columns[name]
        column = [values] * len(codes) if isinstance(values, str) else values
        arrays.append(pa.array(column).cast(schema.field(name).type))
    return pa.table([*arrays, rows_column(codes, codes.shape[1])], schema=schema)
