"""Rows that are visited as if they were many, and validation by a sample."""

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distvae.estep.store import HeldPopulations, KeepsPopulations
from distvae.numerics import rows as bands
from distvae.train import checkpoint
from distvae.train.loop import Interrupted, Sample
from distvae.train.progress import describe_epoch
from distvae.train.run import Run
from distvae.train.run_folder import read_info
from distvae.train.session import build_trainer, fit
from tests import tiny
from tests.train.test_session import KINDS, after, reproducible_metrics

VAE, TVAE = KINDS[0], KINDS[-1]


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let more than ten rows be many."""
    monkeypatch.setattr(bands, "LISTED", 10)


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("sections", [VAE, TVAE])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path, sections: dict[str, Any]
) -> None:
    config = tiny.config(**sections)
    config, data = config.with_("train", val_rows=20), tiny.dataset()
    whole = list(fit(config, data, tmp_path / "whole"))
    with pytest.raises(Interrupted):
        list(fit(config, data, tmp_path / "parts", stop=after(6)))
    rest = list(fit(config, data, tmp_path / "parts", resume=True))
    assert [reproducible_metrics(record) for record in rest] == [
        reproducible_metrics(record) for record in whole[-len(rest) :]
    ]
    one, other = (checkpoint.load(tmp_path / name, "last")[0] for name in ("whole", "parts"))
    assert all(torch.equal(one[key], other[key]) for key in one | other)


def populations(folder: Path) -> HeldPopulations:
    """Return the states that a run has kept."""
    estep = Run.left(folder).estep
    assert isinstance(estep, KeepsPopulations)
    return estep.populations()


def test_states_that_were_kept_in_lanes_are_read_into_bands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, data = tiny.config(**TVAE), tiny.dataset()
    list(fit(config, data, tmp_path / "run"))
    rows = torch.arange(50)
    lanes = populations(tmp_path / "run").get(rows)
    monkeypatch.setattr(bands, "LISTED", 10)
    assert torch.equal(populations(tmp_path / "run").get(rows), lanes)


def rows_of(sample: Sample) -> list[int]:
    return [int(row) for part in sample.parts() for row in part]


@pytest.fixture(params=[10, 10**6])
def listed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the rows be many, or few."""
    monkeypatch.setattr(bands, "LISTED", request.param)


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("val_rows", [1, 99, None])
def test_the_sample_is_fixed_by_the_seed_and_shared_by_any_number_of_workers(
    keeps: bool, val_rows: int | None
) -> None:
    train = tiny.config(train={"val_rows": val_rows}).train
    one = rows_of(Sample(train, 3000, 0, 1, keeps))
    assert len(set(one)) == len(one) == (val_rows or 3000)
    assert one == sorted(one)
    assert one == rows_of(Sample(train, 3000, 0, 1, keeps))
    for size in (2, 3, 7):
        parts = [rows_of(Sample(train, 3000, rank, size, keeps)) for rank in range(size)]
        assert sorted(chain(*parts)) == one
    other = rows_of(Sample(replace(train, seed=1), 3000, 0, 1, keeps))
    assert (other != one) == (len(one) < 3000)


@pytest.mark.usefixtures("listed")
def test_the_sample_is_spread_over_the_rows_and_over_their_holders() -> None:
    train = tiny.config(train={"val_rows": 320}).train
    counts = [len(rows_of(Sample(train, 3000, rank, 4, True))) for rank in range(4)]
    assert counts == [80] * 4
    tenths = np.bincount(np.array(rows_of(Sample(train, 3000, 0, 1, True))) // 300, minlength=10)
    assert tenths.min() > 10


@pytest.mark.parametrize("sections", [VAE, TVAE])
def test_the_size_of_a_sample_is_told(tmp_path: Path, sections: dict[str, Any]) -> None:
    config, data = tiny.config(**sections), tiny.dataset()
    (epoch, *_) = fit(config.with_("train", val_rows=20), data, tmp_path / "some")
    assert epoch.metrics()["val_rows"] == 20
    assert "(20 rows)" in describe_epoch(epoch, "row", 0.0)
    assert read_info(tmp_path / "some")["val_rows"] == 20
    (epoch, *_) = fit(config, data, tmp_path / "all")
    assert "val_rows" not in epoch.metrics()
    assert " rows)" not in describe_epoch(epoch, "row", 0.0)
    rows = "train" if sections is TVAE else "val"
    assert read_info(tmp_path / "all")["val_rows"] == len(data.splits[rows])


def test_rows_that_are_watched_are_all_looked_at() -> None:
    trainer = build_trainer(tiny.config(**TVAE, train={"val_rows": 20}), tiny.dataset())
    seen: list[int] = []
    trainer.watch = lambda rows, q: seen.extend(rows.tolist())
    trainer.validate()
    assert seen == list(range(len(trainer.train)))
    assert trainer.val_rows == len(seen)
