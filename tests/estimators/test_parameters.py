"""Parameters, settings and arguments of estimators: refused values, and NumPy numbers."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch

from distvae.estimators import TVAE, VAE, BinarySparseCoding
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
        ({"batch": 0}, "train.batch: 0 is out of range"),
        ({"settings": {"train.batches": 3}}, "train.batches: no such field"),
        ({"settings": ["train.clip"]}, "settings: .* is no mapping of dotted keys"),
        ({"settings": {3: 1}}, "settings: {3: 1} is no mapping of dotted keys"),
        ({"shape": "1x5"}, "shape: '1x5' is not a list"),
        ({"shape": (1, -1, -5)}, r"shape\[1\]: -1 is out of range"),
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


def test_parameters_may_be_numpys_numbers(fitted: VAE) -> None:
    clip: Any = {"train.clip": np.float32(1e9), "train.val_rows": np.int64(65536)}
    found = small(hidden=(np.int64(8),), shape=np.array([1, 1, 5]), settings=clip)
    np.testing.assert_allclose(found.fit(rows()).transform(rows()), fitted.transform(rows()))


def test_a_warmup_that_is_named_is_kept() -> None:
    for settings in ({"train.warmup": 500}, {"train": {"warmup": 500}}):
        model = small(settings=settings).fit(rows())
        assert model.trained_.run.config.train.warmup == 500
    assert small().fit(rows()).trained_.run.config.train.warmup == 1


@pytest.mark.parametrize("folder", ["~/run", "file:///tmp/run", "s3://bucket/run"])
def test_a_folder_that_takes_no_run_is_refused_before_training(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Refusal, match=r"a URI; a place|begins with '~'"):
        small(folder=folder, verbose=True).fit(rows())
    assert "epoch" not in capsys.readouterr().out
    assert not Path("~").exists()


def test_a_number_of_samples_that_is_none_is_refused(fitted: VAE) -> None:
    wrong: Any
    for wrong in (0, -1, 2.5, "3"):
        with pytest.raises(Refusal, match="n_samples: "):
            fitted.sample(wrong)


@pytest.mark.parametrize("fraction", [-0.5, 1.0, 1.5, math.nan, "a", None])
def test_a_share_of_validation_that_leaves_nothing_to_train_on_is_refused(fraction: Any) -> None:
    with pytest.raises(Refusal, match="validation_fraction: "):
        small(validation_fraction=fraction).fit(rows())


def test_times_are_refused(fitted: VAE) -> None:
    times: Any = np.arange(50).astype("datetime64[s]").reshape(10, 5)
    for x in (times, times - times[0], pandas.DataFrame(times)):
        with pytest.raises(Refusal, match=r"X: holds (datetime|timedelta)64\[s\]; real numbers"):
            small().fit(x)
        with pytest.raises(Refusal, match="X: holds"):
            fitted.transform(x)


def test_complex_values_are_refused_in_a_line(fitted: VAE) -> None:
    wrong: Any = rows() + 1j
    for x in (wrong, torch.from_numpy(wrong), pandas.DataFrame(wrong), wrong.tolist()):
        for use in (small().fit, fitted.transform):
            with pytest.raises(Refusal, match="X: complex values; real numbers expected") as said:
                use(x)
            assert len(str(said.value)) < 100


def test_a_tensor_without_values_is_refused(fitted: VAE) -> None:
    for use in (small().fit, fitted.transform):
        with pytest.raises(Refusal, match="X: a meta tensor, which has no values"):
            use(torch.empty(50, 5, device="meta"))


def test_a_frame_without_rows_yet_is_to_be_collected() -> None:
    class LazyFrame:
        """A query, as of Polars: `collect` runs it."""

        def collect(self) -> pandas.DataFrame:
            return pandas.DataFrame(rows())

    lazy: Any = LazyFrame()
    with pytest.raises(Refusal, match=r"X: LazyFrame, .*; X\.collect\(\) expected"):
        small().fit(lazy)
    assert small().fit(lazy.collect()).n_iter_ == 2


@pytest.mark.parametrize("model", [TVAE, BinarySparseCoding])
def test_data_of_a_variance_that_float32_cannot_hold_are_refused(model: type[TVAE]) -> None:
    searches: Any = {"latent": 4, "states": 8, "sweeps": 2, "epochs": 2, "device": "cpu"}
    for scale in (1e-16, 1e-20, 1e-35):
        with pytest.raises(Refusal, match=r"the variance of the data is .*: scale the columns"):
            model(**searches).fit(rows() * scale)
    x = rows() * 1e-14
    assert np.isfinite(model(**searches).fit(x).score(x))
