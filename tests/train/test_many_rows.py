"""Rows that are visited as if they were many, and validation by a sample."""

from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from distvae.estep.store import HeldPopulations, KeepsPopulations
from distvae.numerics import rows as bands
from distvae.train.loop import Sample
from distvae.train.progress import describe_epoch
from distvae.train.run import Run
from distvae.train.run_folder import read_info
from distvae.train.session import build_trainer, fit
from tests import tiny
from tests.train.test_session import TVAE


def populations(folder: Path) -> HeldPopulations:
    """Return the states that a run has kept."""
    estep = Run.left(folder).estep
    assert isinstance(estep, KeepsPopulations)
    return estep.populations()


def test_states_that_were_kept_in_lanes_are_read_into_bands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(fit(tiny.config(**TVAE), tiny.dataset(), tmp_path / "run"))
    rows = torch.arange(50)
    lanes = populations(tmp_path / "run").get(rows)
    monkeypatch.setattr(bands, "LISTED", 10)
    assert torch.equal(populations(tmp_path / "run").get(rows), lanes)


def rows_of(sample: Sample) -> list[int]:
    return [int(row) for part in sample.parts() for row in part]


@pytest.mark.parametrize("listed", [10, 10**6])
@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("val_rows", [1, 320, None])
def test_the_sample_is_fixed_by_the_seed_and_spread_over_rows_and_any_number_of_workers(
    listed: int, keeps: bool, val_rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bands, "LISTED", listed)
    train = tiny.config(train={"val_rows": val_rows}).train
    one = rows_of(Sample(train, 3000, 0, 1, keeps))
    assert len(set(one)) == len(one) == (val_rows or 3000)
    assert one == sorted(one)
    for size in (2, 4, 7):
        parts = [rows_of(Sample(train, 3000, rank, size, keeps)) for rank in range(size)]
        assert sorted(chain(*parts)) == one
        if (keeps, val_rows, size) == (True, 320, 4):
            assert [*map(len, parts)] == [80] * 4
    other = rows_of(Sample(replace(train, seed=1), 3000, 0, 1, keeps))
    assert (other != one) == (len(one) < 3000)
    if val_rows == 320:
        assert np.bincount(np.array(one) // 300, minlength=10).min() > 10


def test_the_size_of_a_sample_is_told_and_rows_that_are_watched_are_all_looked_at(
    tmp_path: Path,
) -> None:
    config, data = tiny.config(**TVAE), tiny.dataset()
    (epoch, *_) = fit(config.with_("train", val_rows=20), data, tmp_path / "some")
    assert epoch.metrics()["val_rows"] == read_info(tmp_path / "some")["val_rows"] == 20
    assert "(20 rows)" in describe_epoch(epoch, "row", 0.0)
    (epoch, *_) = fit(config, data, tmp_path / "all")
    assert "val_rows" not in epoch.metrics()
    assert " rows)" not in describe_epoch(epoch, "row", 0.0)
    trainer = build_trainer(config.with_("train", val_rows=20), data)
    seen: list[int] = []
    trainer.watch = lambda rows, q: seen.extend(rows.tolist())
    trainer.validate()
    assert seen == list(range(len(trainer.train)))
    assert trainer.val_rows == len(seen)
