"""Values that a likelihood does not allow are refused, and missing ones are not."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distvae.data.dataset import Dataset
from distvae.estep import assemble
from distvae.files.refusal import Refusal
from distvae.interface import prepare
from distvae.models.likelihoods import Gaussian
from distvae.models.tvae import TVAE
from distvae.models.vae import VAE
from distvae.numerics.arrays import Facts, Values
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


@pytest.mark.parametrize(
    ("model", "value", "refused"),
    [
        (
            "itakura_saito",
            -0.5,
            (
                r"model\.likelihood: 'itakura_saito' with a value of -0\.5 in split 'val' of tiny;"
                r" finite"
            ),
        ),
        (
            "itakura_saito",
            math.inf,
            r"a value of inf in split 'val' of tiny; finite values that 32 bits can hold",
        ),
        (
            "bernoulli",
            1.5,
            (
                r"model\.likelihood: 'bernoulli' with a value of 1\.5 .* finite values from 0 to 1"
                r" expected"
            ),
        ),
        ("gaussian", -math.inf, r"model\.likelihood: 'gaussian' with a value of -inf"),
        ("gaussian", -2, r"estep\.input: 'log_standard' with a value of -2 .* standard or raw,"),
    ],
)
def test_values_that_a_likelihood_is_no_density_of_are_refused_before_training(
    model: str, value: float, refused: str
) -> None:
    data = unit_data(value)
    with pytest.raises(Refusal, match=refused):
        build_trainer(tiny.config(model={"likelihood": model}), data)


def unit_data(value: float) -> Dataset:
    """Return a dataset of values from 0 to 1, except for one."""
    x = tiny.dataset().splits["train"][:] % 1
    odd = x.copy()
    odd[3, 2] = value
    return Dataset(
        "tiny",
        "row",
        f"tiny {value}",
        {"train": x, "val": odd, "test": odd},
        Path(),
        shape=tiny.SHAPE,
    )


def test_a_split_without_an_observed_value_is_refused() -> None:
    data = tiny.dataset()
    data.splits["val"][:][:] = math.nan
    with pytest.raises(
        Refusal, match="tiny: every value of split 'val' is missing; some observed ones expected"
    ):
        build_trainer(tiny.config(), data)


@pytest.mark.parametrize(
    ("likelihood", "value"), [("itakura_saito", 0), ("bernoulli", 1), ("gaussian", math.nan)]
)
def test_missing_values_and_the_ends_of_the_support_are_fit_to_train_on(
    likelihood: str, value: float
) -> None:
    build_trainer(tiny.config(model={"likelihood": likelihood}), unit_data(value))


MODELS: list[dict[str, Any]] = [
    {"model": {"kind": "vae"}},
    {"model": {"kind": "tvae"}, "estep": {"kind": "exact"}},
]


@pytest.mark.parametrize("sections", MODELS)
@pytest.mark.parametrize("given", [None, 0.25])
def test_the_first_variance_is_the_given_one_or_that_of_the_data(
    sections: dict[str, Any], given: float | None
) -> None:
    model = {**sections["model"], "likelihood": "gaussian", "variance": given}
    data = tiny.dataset()
    trained = build_trainer(tiny.config(**sections | {"model": model}), data).model
    assert isinstance(trained, VAE | TVAE)
    assert isinstance(trained.likelihood, Gaussian)
    expected = data.splits["train"][:].var(0, dtype=np.float64).mean() if given is None else given
    assert float(trained.likelihood.variance) == pytest.approx(expected, rel=1e-5)


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


def first_variance(sections: dict[str, Any], x: Values, facts: Facts | None) -> float:
    """The variance that a model begins with, shown the rows or told the facts about them."""
    section = {**sections["model"], "likelihood": "gaussian", "variance": None}
    model, _ = assemble(tiny.config(**sections | {"model": section}), tiny.DIMS)
    prepare(model, [torch.from_numpy(x)], Lanes(len(x), 1).held(), 0, facts)
    assert isinstance(model, VAE | TVAE)
    assert isinstance(model.likelihood, Gaussian)
    return float(model.likelihood.variance)


@pytest.mark.parametrize("sections", MODELS)
def test_recorded_facts_give_the_first_variance_that_the_rows_give(
    sections: dict[str, Any],
) -> None:
    x = tiny.dataset().splits["train"][:].copy()
    x[:, 2] = math.nan
    told = first_variance(sections, x, Facts.of(x))
    assert told == pytest.approx(first_variance(sections, x, None), rel=1e-6)
    x[:] = x[0]
    if sections["model"]["kind"] != "tvae":
        assert first_variance(sections, x, Facts.of(x)) == 1
