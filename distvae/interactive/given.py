"""Convert a caller's data, a path or an array, to settings. An array is stored in the cache."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from distvae.config import Config
from distvae.data import folders
from distvae.data.check import survey_of_another_kind
from distvae.data.remote import is_remote
from distvae.data.tables.ingest import Division, ingest
from distvae.files.plain import Plain
from distvae.files.refusal import Refusal
from distvae.numerics.array_types import plain_array

Data = str | Path | ArrayLike | Tensor
DIVISION = Division(val=0.1, test=0.1)
"""The shares of an array's rows for validation and test."""
LEAST_ROWS = 3
"""The fewest rows of an array: one row for each split."""


def data_settings(config: Config, data: Data | None) -> dict[str, Plain]:
    """Return the changes of a configuration for the caller's data, by dotted key."""
    if data is None:
        return {}
    if not isinstance(data, str | Path):
        return {"data.kind": "rows", "data.path": str(kept_rows(data))}
    changes: dict[str, Plain] = {"data.path": str(data)}
    if is_remote(str(data)):
        return changes
    found = survey_of_another_kind(str(data), config.data)
    return changes | {"data.kind": found.kind} if found else changes


def kept_rows(data: ArrayLike | Tensor) -> Path:
    """Store rows in the cache, under a digest of their content, and return the folder."""
    try:
        array = np.asarray(plain_array(data))
    except ValueError as error:
        raise Refusal("data: rows of different lengths; (rows, values) expected") from error
    if array.ndim != 2 or not array.size or array.dtype.kind not in "fiub":
        raise Refusal(
            f"data: {array.dtype} of shape {array.shape}; (rows, values) of real numbers expected"
        )
    if len(array) < LEAST_ROWS:
        raise Refusal(
            f"data: {len(array)} rows; {LEAST_ROWS} or more expected, to train, validate and test"
        )
    with np.errstate(over="ignore"):  # infinite results are refused
        rows = np.ascontiguousarray(array, np.float32)
    if np.isinf(rows).any():
        raise Refusal("data: holds an infinite value, or one beyond float32; finite ones expected")
    digest = hashlib.sha256(repr((DIVISION, rows.shape)).encode() + rows.tobytes()).hexdigest()
    folder = folders.cache_folder() / "arrays" / digest
    folders.build_once(folder, lambda part: _write_rows(part, rows))
    return folder / "array"


def _write_rows(part: Path, rows: NDArray[np.float32]) -> None:
    source = part / "array.npy"
    np.save(source, rows)
    ingest([source], part / "array", DIVISION, quiet=True)
    source.unlink()
