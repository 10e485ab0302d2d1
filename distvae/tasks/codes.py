"""Codes of data to Parquet, and pictures of what the prior draws."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distvae.config import DataConfig
from distvae.data import labels_of, open_dataset
from distvae.data.dataset import Array, Dataset
from distvae.data.family import recordings_of
from distvae.files.output import atomic_file, check_new_file
from distvae.files.refusal import Refusal
from distvae.tasks import pictures
from distvae.tasks.images import as_images
from distvae.tasks.titles import run_title
from distvae.train.run import Run

if TYPE_CHECKING:
    import pyarrow as pa

    from distvae.data.dataset import Labels

GROUP = 65536  # rows of a Parquet row group, the most held in memory


def encode(
    run: Run, data: DataConfig, target: Path, split: str = "all", force: bool = False
) -> int:
    """Write the codes of a split, or of all, with where each came from; return how many."""
    import pyarrow.parquet as pq

    check_new_file(target, (".parquet",), force)
    dataset, labels = open_dataset(data), labels_of(data)
    if dataset.dims != run.dims:
        raise Refusal(
            f"{dataset.name}: data points of {dataset.dims} values; {run.dims} expected by"
            f" {run.path}"
        )
    names, schema = dataset.named(split), _schema(run, dataset, labels is not None)
    rows = 0
    with atomic_file(target) as path, pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for name in names:
            label = None if labels is None else labels[name]
            blocks = (
                _frames(run, dataset, name)
                if dataset.recordings
                else _images(run, dataset, name, label)
            )
            for table in _grouped(blocks, schema):
                writer.write_table(table)
                rows += len(table)
    return rows


def sample(run: Run, target: Path, count: int = 64, seed: int = 0, force: bool = False) -> None:
    """Draw from the prior: a picture of what is decoded, and the values beside it as .npy."""
    values = target.with_suffix(".npy")
    check_new_file(target, (".png", ".pdf", ".svg"), force)
    check_new_file(values, (".npy",), force)
    decoded = run.decode(run.sample(count, seed))
    title = f"{run_title(run)}: {count} draws from the prior"
    recordings = recordings_of(run.config.data)
    if recordings is not None:
        figure = pictures.sampled_frames(decoded, recordings.rate, title)
    else:
        figure = pictures.grid(as_images(decoded, run), title)
    pictures.save(figure, target)
    with atomic_file(values) as path:
        np.save(path, decoded)


Block = tuple[dict[str, Any], Array]
"""Columns that are one value or a value per row, and the codes."""


def _frames(run: Run, dataset: Dataset, split: str) -> Iterator[Block]:
    """A block per recording."""
    for recording, rows in dataset.rows(split):
        codes = run.encode(dataset.splits[split][rows], f"{dataset.name}: {recording.file}")
        where = {"file": recording.file, "speaker": recording.speaker, "split": split}
        yield where | {"frame": np.arange(len(codes), dtype=np.int32)}, codes


def _images(run: Run, dataset: Dataset, split: str, label: "Labels | None") -> Iterator[Block]:
    """A block per so many images, with their labels where there are any."""
    images = dataset.splits[split]
    for start in range(0, len(images), GROUP):
        codes = run.encode(images[start : start + GROUP], dataset.name)
        row = np.arange(start, start + len(codes), dtype=np.int32)
        yield {"split": split, "row": row} | ({} if label is None else {"label": label[row]}), codes


def _schema(run: Run, dataset: Dataset, labelled: bool) -> "pa.Schema":
    import pyarrow as pa

    text = pa.dictionary(pa.int32(), pa.string())
    origin = {"split": text, "row": pa.int32()}
    if dataset.recordings:
        origin = {"file": text, "speaker": text, "split": text, "frame": pa.int32()}
    if labelled:
        origin["label"] = pa.int64()
    code = pa.list_(pa.float32(), run.model.code_size)
    known = {
        "recipe": run.recipe,
        "run": run.info["config_sha256"],
        "trained_on": run.info["data_digest"],
    }
    return pa.schema(
        origin | {"code": code}, metadata={f"distvae.{key}": value for key, value in known.items()}
    )


def _grouped(blocks: Iterator[Block], schema: "pa.Schema") -> Iterator["pa.Table"]:
    """Blocks joined to tables of about a row group."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    for columns, codes in blocks:
        waiting.append(_table(columns, codes, schema))
        if sum(map(len, waiting)) >= GROUP:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _table(columns: dict[str, Any], codes: Array, schema: "pa.Schema") -> "pa.Table":
    import pyarrow as pa

    code = pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), codes.shape[1])
    full = {
        name: [value] * len(codes) if isinstance(value, str) else value
        for name, value in columns.items()
    }
    arrays = [pa.array(full[name]).cast(schema.field(name).type) for name in full]
    return pa.table([*arrays, code], schema=schema)
