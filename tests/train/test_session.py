"""Training in a folder: a resumed run equals one that was never stopped."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distvae.config.recipes import load
from distvae.estep import truncated
from distvae.files.refusal import Refusal
from distvae.interface import Batch
from distvae.models.population import pack
from distvae.numerics import rows as bands
from distvae.numerics.noise import Noise, order
from distvae.train import checkpoint
from distvae.train.checkpoint import load_weights
from distvae.train.loop import Diverged, Epoch, Interrupted
from distvae.train.run import Run
from distvae.train.run_folder import read_epochs
from distvae.train.session import RunOptions, build_trainer, fit, train_in_folder
from tests import dense, tiny
from tests.slowly import long, slow

KINDS: list[dict[str, Any]] = [
    {"model": {"kind": "vae", "likelihood": "gaussian", "beta": 0.5, "beta_warmup": 9}},
    {"model": {"kind": "sdm", "dictionary": "learned", "atoms": 6, "coherence": 0.1}},
    {"model": {"kind": "vsc", "prior": "pseudo", "slab_warmup": [3, 8]}},
    {
        "model": {"net": "conv", "channels": [3, 5], "kernel": 3},
        "estep": {"net": "conv", "channels": [4]},
    },
    {
        "model": {"kind": "tvae"},
        "estep": {"kind": "evolution", "states": 6, "parents": 2, "children": 2, "block": 16},
    },
]
VAE, TVAE = KINDS[0], KINDS[-1]
SSC: dict[str, Any] = {
    "model": {"kind": "ssc", "likelihood": "log_normal", "cycles": 1, "active": 1},
    "estep": {"kind": "selection"},
}


def after(batches: int) -> Callable[[], bool]:
    """Return a function that asks to stop after some batches."""
    calls = iter(range(10**9))
    return lambda: next(calls) >= batches


def reproducible_metrics(record: Epoch) -> dict[str, float]:
    """Return the figures of a record except for times."""
    return {k: v for k, v in record.metrics().items() if "second" not in k}


@pytest.mark.parametrize("many", [False, True], ids=["few rows", "many rows"])
@pytest.mark.parametrize("sections", [VAE, *slow(*KINDS[1:-1]), TVAE, SSC])
@pytest.mark.parametrize("batches", [*long(1, 8, 11), 6])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path,
    sections: dict[str, Any],
    batches: int,
    many: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, data = tiny.config(**sections), tiny.dataset()
    if many:
        monkeypatch.setattr(bands, "LISTED", 10)
        config = config.with_("train", val_rows=20)
    whole = [reproducible_metrics(record) for record in fit(config, data, tmp_path / "whole")]
    first: list[dict[str, float]] = []
    begun = fit(config, data, tmp_path / "parts", stop=after(batches))
    with pytest.raises(Interrupted):
        first.extend(map(reproducible_metrics, begun))
    again = fit(config, data, tmp_path / "parts", resume=True)
    rest = [reproducible_metrics(record) for record in again]
    assert whole == (first + rest if first else rest)[-len(whole) :]
    for name in ("last", "best"):
        one, other = (checkpoint.load(tmp_path / folder, name)[0] for folder in ("whole", "parts"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    histories = [Run.open(tmp_path / folder).epochs() for folder in ("whole", "parts")]
    assert [h["val_bound"] for h in histories[0]] == [h["val_bound"] for h in histories[1]]


def of_epochs(epochs: int, schedule: str = "constant", sections: dict[str, Any] = VAE) -> Any:
    train = {"epochs": epochs, "schedule": schedule, "cycle": 3}
    return tiny.config(**sections, train=train)


@pytest.mark.parametrize(("sections", "schedule"), [(VAE, "cyclical"), (TVAE, "constant")])
def test_a_finished_run_goes_on_for_more_epochs_as_if_it_had_not_ended(
    tmp_path: Path, sections: dict[str, Any], schedule: str
) -> None:
    short, long = (of_epochs(epochs, schedule, sections) for epochs in (2, 4))
    data, parts = tiny.dataset(), tmp_path / "parts"
    whole = [reproducible_metrics(record) for record in fit(long, data, tmp_path / "whole")]
    found = [reproducible_metrics(record) for record in fit(short, data, parts)]
    before = (parts / "config.yaml").read_bytes()
    found += [reproducible_metrics(record) for record in fit(long, data, parts, resume=True)]
    assert whole == found
    one, other = (checkpoint.load(tmp_path / folder, "last")[0] for folder in ("whole", "parts"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert Run.open(parts).config == long
    (parts / "config.yaml").write_bytes(before)  # as a crash leaves it
    assert Run.open(parts).config == short


def test_numbers_of_epochs_that_a_run_cannot_take_are_refused(tmp_path: Path) -> None:
    data = tiny.dataset()
    list(fit(of_epochs(2, "cosine"), data, tmp_path / "cosine"))
    with pytest.raises(Refusal, match=r"train\.epochs: 3, but the run in .* has 2"):
        list(fit(of_epochs(3, "cosine"), data, tmp_path / "cosine", resume=True))
    next(fit(of_epochs(3), data, tmp_path / "run"))
    assert len(list(fit(of_epochs(2), data, tmp_path / "run", resume=True))) == 1
    with pytest.raises(Refusal, match=r"train\.epochs: 1, but .* has 2 already; 2 or more"):
        list(fit(of_epochs(1), data, tmp_path / "run", resume=True))
    assert Run.open(tmp_path / "run").config == of_epochs(2)


def test_the_best_checkpoint_is_the_best_and_training_stops_when_patience_is_at_its_end(
    tmp_path: Path,
) -> None:
    settings = {"epochs": 500, "rate": 0.3, "schedule": "constant", "patience": 3}
    config, data = tiny.config(train=settings), tiny.dataset()
    records = list(fit(config, data, tmp_path / "run"))
    best = max(records, key=lambda record: record.val_objective)
    assert len(records) == best.epoch + 3 < 500
    trainer = build_trainer(config, data)
    tensors, facts = checkpoint.load(tmp_path / "run", "best")
    load_weights(trainer.model, trainer.estep, tensors)
    assert facts["epoch"] == best.epoch
    assert trainer.validate()["objective"] == best.val_objective


def test_populations_are_validated_on_the_rows_that_they_belong_to(tmp_path: Path) -> None:
    config, data = tiny.config(**TVAE), tiny.dataset()
    assert len(data.splits["val"]) != len(data.splits["train"])
    last = list(fit(config, data, tmp_path / "run"))[-1]
    run, x = Run.left(tmp_path / "run"), torch.from_numpy(data.splits["train"][:])
    batch = Batch(x, torch.arange(len(x)))
    bound = run.model.bound(batch, run.estep(run.model, batch), Noise(0, 0, batch.row))
    assert last.val_bound == pytest.approx(float(bound.detach().mean()), rel=1e-5)


@pytest.mark.parametrize("split", ["train", "val"])
def test_what_is_not_finite_ends_a_run_with_the_place_named_and_the_last_good_checkpoint_kept(
    tmp_path: Path, split: str
) -> None:
    data, folder = tiny.dataset(200), tmp_path / "run"
    config = tiny.config(train={"epochs": 3, "batch": 10})
    with pytest.raises(Interrupted):
        list(fit(config, data, folder, stop=after(12)))
    before = checkpoint.load(folder, "last")
    trainer = build_trainer(config, data)
    # In the fourth batch of the second epoch.
    row = order(config.train.seed, 1, 100)[35] if split == "train" else 3
    data.splits[split][:][row] = math.inf
    where = "at batch 4 of 10 in epoch 2" if split == "train" else "after epoch 2"
    with pytest.raises(Diverged, match=f"is no longer finite {where}"):
        list(train_in_folder(trainer, config, data, folder, RunOptions(resume=True)))
    assert checkpoint.load(folder, "last")[1] == before[1]
    assert [record["epoch"] for record in read_epochs(folder)] == [1]
    opened = Run.open(folder, "last")
    assert all(value.isfinite().all() for value in opened.model.state_dict().values())


def test_a_search_that_diverges_says_so() -> None:
    config = tiny.config(**TVAE, train={"epochs": 3, "warmup": 0, "rate": 1e30})
    with pytest.raises(Diverged, match="in epoch 1"):
        list(build_trainer(config, tiny.dataset()).run())


def test_the_stored_configuration_starts_the_same_run_again(tmp_path: Path) -> None:
    config, data = tiny.config(), tiny.dataset()
    first = [reproducible_metrics(record) for record in fit(config, data, tmp_path / "one")]
    again = load(str(tmp_path / "one" / "config.yaml"))
    assert again == config
    assert first == [reproducible_metrics(record) for record in fit(again, data, tmp_path / "two")]


def test_a_resumed_run_draws_no_first_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, data = tiny.config(**TVAE), tiny.dataset()
    with pytest.raises(Interrupted):
        list(fit(config, data, tmp_path / "run", stop=after(2)))

    def refuse(*_: object) -> torch.Tensor:
        raise AssertionError("states are drawn")

    monkeypatch.setattr(truncated, "common_states", refuse)
    assert list(fit(config, data, tmp_path / "run", resume=True))
    with pytest.raises(AssertionError, match="states are drawn"):
        build_trainer(config, data)


@settings(max_examples=15)
@given(st.integers(0, 2**31))
def test_active_latents_are_counted_as_numpy_counts_them(seed: int) -> None:
    model = dense.model(seed)
    batch, z = dense.rows(40, model, seed=seed), dense.some_states(40, 9, model.code_size)
    q = model.posterior(batch, pack(z))
    statistics = model.statistics(batch, q, dense.noise(batch))
    total = {name: value.double() for name, value in statistics.items()}
    active = q.code.sum(1).round().detach().numpy()
    counts = np.bincount(active.astype(int), minlength=model.code_size + 1)
    np.testing.assert_array_equal(total["counts"], counts)
    shares = model.telemetry(total, 40)
    for share in (10, 50, 90):
        assert shares[f"active_p{share}"] == np.percentile(active, share, method="inverted_cdf")
