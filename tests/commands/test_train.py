"""What `distvae train` says first."""

from pathlib import Path

import numpy as np
import pytest

from distvae.commands.train import describe_rows
from distvae.data.dataset import Dataset


@pytest.mark.parametrize(
    ("tables", "counts"),
    [("abc", "4 train, 3 val, 2 test images"), ("abb", "4 train, 3 val and test images")],
)
def test_splits_that_are_the_same_rows_are_counted_once(tables: str, counts: str) -> None:
    rows = {name: np.zeros((4 - place, 2), np.float32) for place, name in enumerate("abc")}
    splits = {
        split: rows[name] for split, name in zip(("train", "val", "test"), tables, strict=True)
    }
    assert describe_rows(Dataset("some", "image", "", splits, Path())) == f"some, {counts}"
