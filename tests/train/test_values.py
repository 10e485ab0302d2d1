"""Values that a likelihood does not allow are refused, and missing ones are not."""

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distvae.config import Config
from distvae.data.dataset import Dataset
from distvae.estep import assemble
from distvae.files.refusal import Refusal
from distvae.interface import prepare
from distvae.models.likelihoods import Gaussian
from distvae.models.tvae import TVAE
from distvae.models.vae import VAE
from distvae.numerics.arrays import Facts
from distvae.numerics.rows import Lanes
from distvae.train.batches import split_rows
from distvae.train.run import Run
from distvae.train.session import build_trainer, fit
from tests import tiny


def test_more_workers_than_rows_are_refused() -> None:
    config = tiny.config(train={"batch": 64})
    assert split_rows(config, 4, 4).count
    with pytest.raises(Refusal, match="3 rows to train on, and 4 workers"):
        split_rows(config, 3, 4)


IS, BERNOULLI = "itakura_saito", "bernoulli"
NONE = 5.0
"""Stands for a split without any value."""


@pytest.mark.parametrize(
    ("likelihood", "value", "refused"),
    [
        (
            IS,
            -0.5,
            rf"model\.likelihood: '{IS}' with a value of -0\.5 in split 'val' of tiny; finite",
        ),
        (
            IS,
            math.inf,
            "a value of inf in split 'val' of tiny; finite values that 32 bits can hold",
        ),
        (BERNOULLI, 1.5, r"'bernoulli' with a value of 1\.5 .* finite values from 0 to 1 expected"),
        ("gaussian", -math.inf, r"model\.likelihood: 'gaussian' with a value of -inf"),
        ("gaussian", -2, r"estep\.input: 'log_standard' with a value of -2 .* standard or raw,"),
        (IS, NONE, "tiny: every value of split 'val' is missing; some observed ones expected"),
        (IS, 0, ""),
        (BERNOULLI, 1, ""),
        ("gaussian", math.nan, ""),
    ],
)
def test_values_that_a_likelihood_is_no_density_of_are_refused_before_training(
    likelihood: str, value: float, refused: str
) -> None:
    x = tiny.dataset().splits["train"][:] % 1
    odd = x.copy()
    odd[3, 2] = value
    if value == NONE:
        odd[:] = math.nan
    splits = {"train": x, "val": odd, "test": odd}
    data = Dataset("tiny", "row", f"tiny {value}", splits, Path(), shape=tiny.SHAPE)
    with pytest.raises(Refusal, match=refused) if refused else nullcontext():
        build_trainer(tiny.config(model={"likelihood": likelihood}), data)


MODELS: list[dict[str, Any]] = [
    {"model": {"kind": "vae"}},
    {"model": {"kind": "tvae"}, "estep": {"kind": "exact"}},
]


def variance_of(part: object) -> float:
    assert isinstance(part, VAE | TVAE)
    assert isinstance(part.likelihood, Gaussian)
    return float(part.likelihood.variance)


@pytest.mark.parametrize("sections", MODELS)
def test_the_first_variance_is_the_given_one_or_that_of_the_data_seen_or_told(
    sections: dict[str, Any],
) -> None:
    def config(given: float | None) -> Config:
        model = {**sections["model"], "likelihood": "gaussian", "variance": given}
        return tiny.config(**sections | {"model": model})

    data = tiny.dataset()
    assert variance_of(build_trainer(config(0.25), data).model) == 0.25
    x = data.splits["train"][:]
    expected = float(x.var(0, dtype=np.float64).mean())
    assert variance_of(build_trainer(config(None), data).model) == pytest.approx(expected, rel=1e-5)
    x[:, 2] = math.nan
    found = []
    for facts in (None, Facts.of(x)):
        model, _ = assemble(config(None), tiny.DIMS)
        prepare(model, [torch.from_numpy(x)], Lanes(len(x), 1).held(), 0, facts)
        found.append(variance_of(model))
    assert found[0] == pytest.approx(found[1], rel=1e-6)


@pytest.mark.parametrize(
    "sections",
    [
        {"model": {"likelihood": "gaussian"}},
        {"model": {"kind": "tvae", "variance": None}, "estep": {"kind": "exact"}},
    ],
)
def test_a_value_that_was_never_seen_in_training_makes_nothing_infinite(
    tmp_path: Path, sections: dict[str, Any]
) -> None:
    data = tiny.dataset()
    data.splits["train"][:][:, 2] = math.nan
    *_, last = fit(tiny.config(**sections), data, tmp_path / "run")
    assert math.isfinite(last.val_bound)
    assert math.isfinite(last.train_objective)
    assert math.isfinite(Run.open(tmp_path / "run").encode(data.splits["test"][:]).sum())
