"""Training in a folder: a resumed run equals one that was never stopped."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distvae.config.recipes import load
from distvae.estep import truncated
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.interface import Batch
from distvae.models.population import pack
from distvae.numerics.noise import Noise, order
from distvae.train import checkpoint
from distvae.train.checkpoint import load_weights
from distvae.train.loop import Diverged, Epoch, Interrupted
from distvae.train.run import Run
from distvae.train.run_folder import read_epochs
from distvae.train.session import RunOptions, Savings, build_trainer, fit, train_in_folder
from tests import dense, tiny
from tests.slowly import long

KINDS: list[dict[str, Any]] = [
    {"model": {"kind": "vae"}},
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


def after(batches: int) -> Callable[[], bool]:
    """Return a function that asks to stop after some batches."""
    calls = iter(range(10**9))
    return lambda: next(calls) >= batches


def reproducible_metrics(record: Epoch) -> dict[str, float]:
    """Return the figures of a record except for times."""
    return {k: v for k, v in record.metrics().items() if "second" not in k}


@pytest.mark.parametrize("sections", KINDS)
@pytest.mark.parametrize("batches", [*long(1, 8, 11), 6])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path, sections: dict[str, Any], batches: int
) -> None:
    config, data = tiny.config(**sections), tiny.dataset()
    whole = [reproducible_metrics(record) for record in fit(config, data, tmp_path / "whole")]
    first: list[dict[str, float]] = []
    with pytest.raises(Interrupted):
        first.extend(
            reproducible_metrics(record)
            for record in fit(config, data, tmp_path / "parts", stop=after(batches))
        )
    rest = [
        reproducible_metrics(record)
        for record in fit(config, data, tmp_path / "parts", resume=True)
    ]
    assert whole == (first + rest if first else rest)[-len(whole) :]
    for name in ("last", "best"):
        one, other = (checkpoint.load(tmp_path / folder, name)[0] for folder in ("whole", "parts"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    histories = [Run.open(tmp_path / folder).epochs() for folder in ("whole", "parts")]
    assert [h["val_bound"] for h in histories[0]] == [h["val_bound"] for h in histories[1]]


@pytest.mark.parametrize("sections", [KINDS[0], KINDS[-1]])
def test_what_is_saved_in_a_hurry_is_saved_at_that_batch_and_changes_nothing(
    tmp_path: Path, sections: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Savings, "share", 1e9)  # after every epoch, however long that takes
    monkeypatch.setattr(Savings, "pause", 0.0)
    config, data = tiny.config(**sections), tiny.dataset()
    whole = [reproducible_metrics(record) for record in fit(config, data, tmp_path / "whole")]
    hurried, taken = iter([False, True]), tmp_path / "taken"
    options = RunOptions(must_save=lambda: next(hurried, False))
    records = train_in_folder(build_trainer(config, data), config, data, tmp_path / "run", options)
    first = reproducible_metrics(next(records))
    shutil.copytree(tmp_path / "run", taken)
    assert checkpoint.read_manifest(taken, "previous.json")["facts"]["position"]["batch"] > 0
    assert [first, *(reproducible_metrics(record) for record in records)] == whole
    checkpoint.restore_previous(Folder(taken))
    assert [
        reproducible_metrics(record) for record in fit(config, data, taken, resume=True)
    ] == whole


@pytest.mark.parametrize(
    ("sections", "schedule"), [(KINDS[0], "cyclical"), (KINDS[-1], "constant")]
)
def test_a_finished_run_goes_on_for_more_epochs_as_if_it_had_not_ended(
    tmp_path: Path, sections: dict[str, Any], schedule: str
) -> None:
    train = sections.get("train", {}) | {"schedule": schedule, "cycle": 3}
    short, long = (
        tiny.config(**(sections | {"train": train | {"epochs": epochs}})) for epochs in (2, 5)
    )
    whole = [
        reproducible_metrics(record) for record in fit(long, tiny.dataset(), tmp_path / "whole")
    ]
    first = [
        reproducible_metrics(record) for record in fit(short, tiny.dataset(), tmp_path / "parts")
    ]
    rest = [
        reproducible_metrics(record)
        for record in fit(long, tiny.dataset(), tmp_path / "parts", resume=True)
    ]
    assert whole == first + rest
    one, other = (checkpoint.load(tmp_path / folder, "last")[0] for folder in ("whole", "parts"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert Run.open(tmp_path / "parts").config == long


def test_a_crash_while_the_number_of_epochs_changes_leaves_a_run_that_can_be_opened(
    tmp_path: Path,
) -> None:
    short, long = (
        tiny.config(train={"epochs": epochs, "schedule": "constant"}) for epochs in (1, 3)
    )
    list(fit(short, tiny.dataset(), tmp_path / "run"))
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    assert len(list(fit(long, tiny.dataset(), tmp_path / "run", resume=True))) == 2
    (tmp_path / "run" / "config.yaml").write_bytes(before)
    assert Run.open(tmp_path / "run").config == short


def test_a_rate_that_falls_to_the_last_epoch_is_not_prolonged(tmp_path: Path) -> None:
    list(
        fit(
            tiny.config(train={"epochs": 2, "schedule": "cosine"}), tiny.dataset(), tmp_path / "run"
        )
    )
    with pytest.raises(Refusal, match=r"train\.epochs: 3, but the run in .* has 2"):
        list(
            fit(
                tiny.config(train={"epochs": 3, "schedule": "cosine"}),
                tiny.dataset(),
                tmp_path / "run",
                resume=True,
            )
        )


def test_a_run_is_not_shortened_to_fewer_epochs_than_it_has(tmp_path: Path) -> None:
    three, two, one = (
        tiny.config(train={"epochs": epochs, "schedule": "constant"}) for epochs in (3, 2, 1)
    )
    next(fit(three, tiny.dataset(), tmp_path / "run"))
    assert len(list(fit(two, tiny.dataset(), tmp_path / "run", resume=True))) == 1
    with pytest.raises(Refusal, match=r"train\.epochs: 1, but .* has 2 already; 2 or more"):
        list(fit(one, tiny.dataset(), tmp_path / "run", resume=True))
    assert Run.open(tmp_path / "run").config == two


def test_the_best_checkpoint_is_the_best(tmp_path: Path) -> None:
    config, data = (
        tiny.config(train={"epochs": 12, "rate": 0.3, "schedule": "constant"}),
        tiny.dataset(),
    )
    records = list(fit(config, data, tmp_path / "run"))
    best = max(records, key=lambda record: record.val_objective)
    assert best.epoch < len(records), "the last epoch is the best: this shows nothing"
    trainer = build_trainer(config, data)
    tensors, facts = checkpoint.load(tmp_path / "run", "best")
    load_weights(trainer.model, trainer.estep, tensors)
    assert facts["epoch"] == best.epoch
    assert trainer.validate()["objective"] == best.val_objective


def test_populations_are_validated_on_the_rows_that_they_belong_to(tmp_path: Path) -> None:
    config, data = tiny.config(**KINDS[-1]), tiny.dataset()
    assert len(data.splits["val"]) != len(data.splits["train"])
    last = list(fit(config, data, tmp_path / "run"))[-1]
    run, x = Run.left(tmp_path / "run"), torch.from_numpy(data.splits["train"][:])
    batch = Batch(x, torch.arange(len(x)))
    bound = run.model.bound(batch, run.estep(run.model, batch), Noise(0, 0, batch.row))
    assert last.val_bound == pytest.approx(float(bound.detach().mean()), rel=1e-5)


def test_training_stops_when_patience_is_at_its_end(tmp_path: Path) -> None:
    config = tiny.config(train={"epochs": 500, "rate": 0.3, "schedule": "constant", "patience": 3})
    records = list(fit(config, tiny.dataset(), tmp_path / "run"))
    best = max(records, key=lambda record: record.val_objective)
    assert len(records) == best.epoch + 3 < 500


def test_a_loss_that_is_not_finite_stops_with_the_batch_named_and_the_last_good_checkpoint_kept(
    tmp_path: Path,
) -> None:
    data = tiny.dataset(200)
    config = tiny.config(train={"epochs": 3, "batch": 10})
    with pytest.raises(Interrupted):
        list(fit(config, data, tmp_path / "run", stop=after(12)))
    before = checkpoint.load(tmp_path / "run", "last")
    trainer = build_trainer(config, data)
    # In the fourth batch of the second epoch.
    data.splits["train"][:][order(config.train.seed, 1, 100)[35]] = math.inf
    with pytest.raises(Diverged, match="batch 4 of 10 in epoch 2"):
        list(train_in_folder(trainer, config, data, tmp_path / "run", RunOptions(resume=True)))
    assert checkpoint.load(tmp_path / "run", "last")[1] == before[1]
    opened = Run.open(tmp_path / "run", "last")
    assert all(value.isfinite().all() for value in opened.model.state_dict().values())


def test_a_run_whose_validation_is_not_finite_ends_there_and_its_epochs_are_read(
    tmp_path: Path,
) -> None:
    data, folder = tiny.dataset(100), tmp_path / "run"
    constant = {"schedule": "constant"}
    list(fit(tiny.config(train={"epochs": 1} | constant), data, folder))
    config = tiny.config(train={"epochs": 2} | constant)
    trainer = build_trainer(config, data)
    data.splits["val"][:][3] = math.inf
    with pytest.raises(Diverged, match="validation rows is no longer finite after epoch 2"):
        list(train_in_folder(trainer, config, data, folder, RunOptions(resume=True)))
    assert [record["epoch"] for record in read_epochs(folder)] == [1]


def test_the_stored_configuration_starts_the_same_run_again(tmp_path: Path) -> None:
    config, data = tiny.config(), tiny.dataset()
    first = [reproducible_metrics(record) for record in fit(config, data, tmp_path / "one")]
    again = load(str(tmp_path / "one" / "config.yaml"))
    assert again == config
    assert first == [reproducible_metrics(record) for record in fit(again, data, tmp_path / "two")]


def test_a_resumed_run_draws_no_first_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, data = tiny.config(**KINDS[-1]), tiny.dataset()
    with pytest.raises(Interrupted):
        list(fit(config, data, tmp_path / "run", stop=after(2)))

    def refuse(*_: object) -> torch.Tensor:
        raise AssertionError("states are drawn")

    monkeypatch.setattr(truncated, "common_states", refuse)
    assert list(fit(config, data, tmp_path / "run", resume=True))
    with pytest.raises(AssertionError, match="states are drawn"):
        build_trainer(config, data)


def epochs(**train: Any) -> list[Epoch]:
    model, estep = (
        {"kind": "tvae", "latent": 6},
        {"kind": "evolution", "states": 8, "parents": 3, "block": 16},
    )
    config = tiny.config(
        model=model, estep=estep, train={"epochs": 3, "warmup": 0, "device": "cpu"} | train
    )
    return list(build_trainer(config, tiny.dataset()).run())


@given(st.integers(0, 2**31))
def test_active_latents_are_counted_as_numpy_counts_them(seed: int) -> None:
    model = dense.model(seed)
    batch, z = dense.rows(40, model, seed=seed), dense.some_states(40, 9, model.code_size)
    q = model.posterior(batch, pack(z))
    total = {
        name: value.double()
        for name, value in model.statistics(batch, q, dense.noise(batch)).items()
    }
    active = q.code.sum(1).round().detach().numpy()
    np.testing.assert_array_equal(
        total["counts"], np.bincount(active.astype(int), minlength=model.code_size + 1)
    )
    shares = model.telemetry(total, 40)
    for share in (10, 50, 90):
        assert shares[f"active_p{share}"] == np.percentile(active, share, method="inverted_cdf")


def test_a_search_that_diverges_says_so() -> None:
    with pytest.raises(Diverged, match="in epoch 1"):
        epochs(rate=1e30)
