"""Parameters, settings and arguments of estimators: refused values, and NumPy numbers."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch

from distvae.estimators import TVAE, VAE
from distvae.files.refusal import Refusal
from tests.estimators.test_models import rows, small


@pytest.fixture(scope="module")
def fitted() -> VAE:
    return small().fit(rows())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"likelihood": "gausian"}, "model.likelihood: no choice 'gausian'"),
        ({"latent": 0}, "model.latent: 0 is out of range"),
        ({"settings": {"train.batches": 3}}, "train.batches: no such field"),
        ({"settings": ["train.clip"]}, "settings: .* is no mapping of dotted keys"),
        ({"shape": (1, 5)}, "shape: 2 values; 3 expected"),
        ({"shape": (1, 2, 3)}, r"shape: \(1, 2, 3\) of 6 values; 5 expected, as in X"),
        ({"random_state": -1}, "random_state: -1 is out of range"),
        ({"likelihood": "bernoulli"}, "model.likelihood: 'bernoulli' with a value of"),
    ],
)
def test_bad_parameters_are_refused_by_their_key(
    parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(Refusal, match=message):
        small(**parameters).fit(rows())


def test_a_warmup_that_is_named_is_kept() -> None:
    for settings in ({"train.warmup": 500}, {"train": {"warmup": 500}}):
        model = small(settings=settings).fit(rows())
        assert model.trained_.run.config.train.warmup == 500
    assert small().fit(rows()).trained_.run.config.train.warmup == 1


@pytest.mark.parametrize("folder", ["~/run", "s3://bucket/run"])
def test_a_folder_that_takes_no_run_is_refused_before_training(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Refusal, match=r"a URI; a place|begins with '~'"):
        small(folder=folder, verbose=True).fit(rows())
    assert "epoch" not in capsys.readouterr().out
    assert not Path("~").exists()


@pytest.mark.parametrize("fraction", [1.0, math.nan])
def test_a_share_of_validation_that_leaves_nothing_to_train_on_is_refused(fraction: Any) -> None:
    with pytest.raises(Refusal, match="validation_fraction: "):
        small(validation_fraction=fraction).fit(rows())


def test_complex_values_are_refused_in_a_line(fitted: VAE) -> None:
    wrong: Any = rows() + 1j
    for x in (wrong, torch.from_numpy(wrong), pandas.DataFrame(wrong), wrong.tolist()):
        for use in (small().fit, fitted.transform):
            with pytest.raises(Refusal, match="X: complex values; real numbers expected") as said:
                use(x)
            assert len(str(said.value)) < 100


@pytest.mark.parametrize("model", [TVAE])
def test_data_of_a_variance_that_float32_cannot_hold_are_refused(model: type[TVAE]) -> None:
    searches: Any = {"latent": 4, "states": 8, "sweeps": 2, "epochs": 2, "device": "cpu"}
    for scale in (1e-16, 1e-35):
        with pytest.raises(Refusal, match=r"the variance of the data is .*: scale the columns"):
            model(**searches).fit(rows() * scale)
    x = rows() * 1e-14
    assert np.isfinite(model(**searches).fit(x).score(x))
