"""The laws that families of data keep.

A law takes the settings of some data and raises an AssertionError where the family breaks it.
"""

from collections.abc import Callable
from dataclasses import fields, is_dataclass

import numpy as np

from distvae.config import DataConfig
from distvae.config.schema import FAMILIES, read_section
from distvae.data import factors_of, labels_of, open_dataset
from distvae.data.dataset import Array, Dataset
from distvae.data.family import DataFamily, family_of, kinds_with, survey
from distvae.data.speech import recordings_of

SPLITS = {"train", "val", "test"}
SAMPLE = 1000
"""Rows of a split that are looked at."""


def settings_are_registered(config: DataConfig) -> None:
    """The settings are a frozen dataclass with a path, registered under their kind."""
    assert is_dataclass(config)
    assert FAMILIES["data"][config.kind] is type(config)
    assert isinstance(config.path, str)
    assert isinstance(family_of(config), DataFamily)
    values = {each.name: getattr(config, each.name) for each in fields(config)}
    plain = {
        name: list(value) if isinstance(value, tuple) else value for name, value in values.items()
    }
    assert read_section("data", {"kind": config.kind} | plain) == config


def splits_have_rows_of_one_width(config: DataConfig) -> None:
    """There are train, val and test splits of float32 rows, all of the same width."""
    dataset = open_dataset(config, quiet=True)
    assert set(dataset.splits) == SPLITS
    assert dataset.name
    assert dataset.unit
    for rows in dataset.splits.values():
        assert rows.ndim == 2
        assert rows.dtype == np.float32
        assert rows.shape == (len(rows), dataset.dims)
    assert len(dataset.splits["train"]) > 0


def rows_can_be_indexed(config: DataConfig) -> None:
    """A slice of rows equals the same rows by number."""
    for rows in open_dataset(config, quiet=True).splits.values():
        count = min(len(rows), SAMPLE)
        numbers = np.arange(count)
        np.testing.assert_array_equal(rows[:count], rows[numbers])
        np.testing.assert_array_equal(rows[numbers[::-1]], rows[:count][::-1])


def opening_twice_gives_the_same_rows(config: DataConfig) -> None:
    """Rows and digest depend on the settings and the content alone."""
    first, second = (open_dataset(config, quiet=True) for _ in range(2))
    assert first.digest == second.digest
    for split, rows in first.splits.items():
        np.testing.assert_array_equal(rows[:SAMPLE], second.splits[split][:SAMPLE])


def values_are_as_promised(config: DataConfig) -> None:
    """Values are finite and in the range that the family names, or missing where it allows that."""
    values = family_of(config).values
    for rows in _samples(open_dataset(config, quiet=True)):
        assert not np.isinf(rows).any()
        assert values.may_be_missing or not np.isnan(rows).any()
        observed = rows[~np.isnan(rows)]
        assert ((values.low <= observed) & (observed <= values.high)).all()


def a_shape_has_as_many_values_as_a_row(config: DataConfig) -> None:
    """A dataset whose rows have a shape has rows of that many values."""
    dataset = open_dataset(config, quiet=True)
    if dataset.shape:
        assert int(np.prod(dataset.shape)) == dataset.dims


def every_row_has_a_label(config: DataConfig) -> None:
    """Labels, if the family has any, are whole numbers, one for each row of each split."""
    if config.kind not in kinds_with("labels"):
        assert labels_of(config) is None
        return
    labels = labels_of(config)
    if labels is not None:
        dataset = open_dataset(config, quiet=True)
        for split, rows in dataset.splits.items():
            assert labels[split].shape == (len(rows),)
            assert labels[split].dtype == np.int64


def every_row_has_its_factors(config: DataConfig) -> None:
    """Factors, if the family knows them, have a level for each row."""
    if config.kind not in kinds_with("factors"):
        assert factors_of(config) is None
        return
    factors = factors_of(config)
    assert factors is not None
    assert len(factors.names) == len(factors.ordered)
    for split, rows in open_dataset(config, quiet=True).splits.items():
        assert factors.levels[split].shape == (len(rows), len(factors.names))


def recordings_account_for_every_row(config: DataConfig) -> None:
    """Rows of recordings follow the recordings' order, and every row belongs to one."""
    family = recordings_of(config)
    dataset = open_dataset(config, quiet=True)
    if family is None:
        assert not dataset.recordings
        return
    for split, rows in dataset.splits.items():
        ends = [place.stop for _, place in dataset.rows(split)]
        assert (ends[-1] if ends else 0) == len(rows)
    assert family.recordings()[1] == list(dataset.recordings)


def a_survey_recognises_the_data(config: DataConfig) -> None:
    """`distvae data check` recognises the path, if the family has a survey."""
    family = type(family_of(config))
    has_survey = family.survey.__qualname__ != DataFamily.survey.__qualname__
    if not has_survey or not config.path:
        return
    found = survey(config.path)
    assert found.kind == config.kind
    assert survey(found.path) == found
    assert family.next_command(found)


def _samples(dataset: Dataset) -> list[Array]:
    return [rows[:SAMPLE] for rows in dataset.splits.values()]


LAWS: tuple[Callable[[DataConfig], None], ...] = (
    settings_are_registered,
    splits_have_rows_of_one_width,
    rows_can_be_indexed,
    opening_twice_gives_the_same_rows,
    values_are_as_promised,
    a_shape_has_as_many_values_as_a_row,
    every_row_has_a_label,
    every_row_has_its_factors,
    recordings_account_for_every_row,
    a_survey_recognises_the_data,
)
