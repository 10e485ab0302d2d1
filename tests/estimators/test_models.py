"""Estimators of rows: inputs, parameters, persistence, selection, partial fits, and bounds."""

import _thread
import math
import pickle
import pickletools
import random
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

import distvae
from distvae.config import Evolution
from distvae.data.dataset import Stacked
from distvae.estimators import (
    SDMVAE,
    TVAE,
    VAE,
    VSC,
    BinarySparseCoding,
    GumbelVAE,
    SpikeSlab,
    models,
)
from distvae.estimators.models import Estimator
from distvae.files.refusal import Refusal
from distvae.models.vae import VAE as Module

CPU: dict[str, Any] = {"device": "cpu"}
MODELS = (VAE, SDMVAE, VSC, GumbelVAE, TVAE, BinarySparseCoding, SpikeSlab)
WARNING = "float32, in which models compute, has steps of about"


def rows(count: int = 60, values: int = 5, seed: int = 0) -> NDArray[np.float64]:
    chance = np.random.default_rng(seed)
    return chance.normal(size=(count, 2)) @ chance.normal(size=(2, values)) + chance.normal(
        size=(count, values), scale=0.1
    )


def small(**parameters: Any) -> VAE:
    chosen: dict[str, Any] = {"latent": 3, "hidden": (8,), "epochs": 2, "batch": 16, **CPU}
    return VAE(**chosen | parameters)


def tiny(model: type[Estimator]) -> Estimator:
    searches: dict[str, Any] = {"states": 8, "sweeps": 3} if issubclass(model, TVAE) else {}
    return model(latent=4, epochs=1, batch=16, **CPU, **searches)


@pytest.fixture(scope="module")
def fitted() -> VAE:
    return small().fit(rows())


def test_rows_of_every_sort_give_the_same_codes(fitted: VAE, tmp_path: Path) -> None:
    x = rows().astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    inputs: dict[str, Any] = {
        "float64": x.astype(np.float64),
        "a list": x.tolist(),
        "a tensor": torch.from_numpy(x),
        "a tensor with a gradient": torch.from_numpy(x).requires_grad_(),
        "a memory map": np.load(tmp_path / "x.npy", mmap_mode="r"),
        "columns first": np.asfortranarray(x),
        "a dataset's rows": Stacked([x[:20], x[20:]]),
    }
    expected = fitted.transform(x)
    for name, same in inputs.items():
        np.testing.assert_array_equal(fitted.transform(same), expected, err_msg=name)
    frame: Any = pandas.DataFrame(rows(), columns=list("abcde"))
    for again in (frame, Stacked([x])):
        np.testing.assert_array_equal(small().fit(again).transform(again), expected)
    pipeline = make_pipeline(StandardScaler(), small()).set_output(transform="pandas")
    assert list(pipeline.fit_transform(frame).columns) == ["vae0", "vae1", "vae2"]
    frame.iloc[::3, 1] = np.nan
    assert np.isfinite(small().fit(frame).transform(frame)).all()


@pytest.mark.parametrize("latent", [1, 6])
def test_a_row_keeps_at_most_all_states(latent: int) -> None:
    model = TVAE(latent=latent, hidden=(4,), epochs=1, sweeps=1, **CPU).fit(rows(20))
    assert model.get_params()["states"] == 64
    estep = model.trained_.run.config.estep
    assert isinstance(estep, Evolution)
    assert estep.states == min(64, 2**latent)
    assert model.transform(rows(20)).shape[1] == latent


def test_codes_of_positive_rows_have_zeros_and_decode_to_their_logarithms() -> None:
    x = np.exp(rows(60, 5))
    model = SpikeSlab(likelihood="log_normal", floor=0.1, latent=6, limit=2, epochs=5, **CPU)
    codes = model.fit_transform(x)
    assert (codes == 0).mean() > 0.5
    tensors = {k: v.numpy() for k, v in model.trained_.run.model.state_dict().items()}
    expected = np.exp(codes @ tensors["dictionary"] + tensors["bias"]) - 0.1
    np.testing.assert_allclose(model.inverse_transform(codes), expected.clip(0), rtol=1e-4)
    with pytest.raises(Refusal, match="at least 0"):
        model.transform(-x)


@pytest.mark.slow
@pytest.mark.parametrize("model", [VAE, SDMVAE, VSC])
def test_by_default_16_values_explain_more_than_16_components(model: type[Estimator]) -> None:
    train, test = train_test_split(load_digits().data / 16, random_state=0)

    def explained(codes: Any) -> float:
        error = test - codes.inverse_transform(codes.fit(train).transform(test))
        return 1 - float(np.square(error).sum() / np.square(test - train.mean(0)).sum())

    assert explained(model(latent=16, **CPU)) > explained(PCA(16))


def test_the_epochs_of_few_rows_are_more_and_given_epochs_stay() -> None:
    cases: list[tuple[dict[str, Any], int]] = [
        ({}, 300),
        ({"epochs": 2}, 2),
        ({"settings": {"train.epochs": 1}}, 1),
    ]
    for given, expected in cases:
        model = VAE(latent=2, hidden=(4,), validation_fraction=0.0, **CPU, **given)
        assert model.fit(rows(20)).n_iter_ == expected


def test_sparse_codes_hold_the_dense_codes_without_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "SPARSE_ROWS", 7)
    x = rows(30, 5)
    model = SpikeSlab(latent=6, limit=2, epochs=5, **CPU).fit(x)
    dense = model.transform(x)
    sparse = model.set_params(sparse_output=True).transform(x)
    assert isinstance(sparse, csr_array)
    np.testing.assert_allclose(sparse.toarray(), dense, rtol=1e-5)
    assert sparse.nnz == (dense != 0).sum()
    back = model.inverse_transform(dense)
    np.testing.assert_allclose(model.inverse_transform(sparse), back, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("model", [GumbelVAE, TVAE])
def test_codes_and_bounds_do_not_depend_on_where_a_row_stands(model: type[Estimator]) -> None:
    x = rows(40)
    estimator = tiny(model).fit(x)
    order = np.random.default_rng(1).permutation(len(x))
    for method in (estimator.transform, estimator.score_samples):
        np.testing.assert_allclose(method(x[order]), method(x)[order], rtol=1e-4, atol=1e-5)


def test_random_states_of_scikit_learn_are_seeds_and_a_fit_leaves_the_program_as_it_was(
    fitted: VAE,
) -> None:
    x = rows()
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    states = torch.get_rng_state(), random.getstate()
    torch.set_num_threads(2)
    try:
        one, other = (small(random_state=np.random.RandomState(4)).fit(x) for _ in range(2))
        np.testing.assert_array_equal(one.transform(x), other.transform(x))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before[0])
    assert not np.array_equal(one.transform(x), fitted.transform(x))
    assert torch.get_float32_matmul_precision() == before[1]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


@pytest.mark.parametrize("model", MODELS)
def test_a_pickle_has_the_same_codes_and_epochs_and_holds_plain_bytes(
    model: type[Estimator],
) -> None:
    x = rows(30)
    estimator = tiny(model).fit(x)
    content = pickle.dumps(estimator, protocol=2)
    again = pickle.loads(content)
    np.testing.assert_array_equal(again.transform(x), estimator.transform(x))
    assert again.history_ == estimator.history_
    assert [record["epoch"] for record in again.history_] == [1]
    assert math.isfinite(again.history_[0]["val_bound"])
    modules = {
        str(argument).partition(" ")[0]
        for opcode, argument, _ in pickletools.genops(content)
        if opcode.name == "GLOBAL"
    }
    ours = {"distvae.estimators.models", "distvae.estimators.trained"}
    assert modules <= ours | {"copyreg", "copy_reg", "__builtin__", "_codecs"}


def test_epochs_of_partial_fit_are_those_of_one_fit_and_open_as_a_run(tmp_path: Path) -> None:
    constant = {"train.schedule": "constant", "train.warmup": 0}
    x = rows()
    whole = small(epochs=3, validation_fraction=0.0, settings=constant).fit(x)
    objectives = [record["val_objective"] for record in whole.trained_.epochs]
    assert objectives[-1] == max(objectives), "fit keeps the weights of another epoch"
    parts = small()
    for number in range(1, 4):
        parts.partial_fit(x)
        assert [record["epoch"] for record in parts.history_] == [*range(1, number + 1)]
    np.testing.assert_array_equal(parts.transform(x), whole.transform(x))
    parts = pickle.loads(pickle.dumps(parts))
    assert parts.n_iter_ == 3
    parts.save(tmp_path / "run")
    run = distvae.load(tmp_path / "run")
    assert run.epochs() == parts.history_
    np.testing.assert_allclose(run.encode(x), parts.transform(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(Refusal, match="exists and is not empty"):
        parts.save(tmp_path / "run")
    assert parts.fit(x).n_iter_ == 2


def test_a_warm_up_counts_the_steps_on_parts_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    at = Module.at

    def tell(model: Module, step: float) -> None:
        told.append(step)
        at(model, step)

    monkeypatch.setattr(Module, "at", tell)
    model = small(settings={"model.beta_warmup": 40})
    sizes = (160, 160, 16, 40)
    for size in sizes:
        model.partial_fit(rows(size))
    batches = sum(math.ceil(size / 16) for size in sizes)
    assert [step for step in told if math.isfinite(step)] == list(range(batches))


def test_rows_of_an_earlier_part_stay_known() -> None:
    x = rows()
    model = small().partial_fit(x * 1000).partial_fit(x)
    assert np.isfinite(model.transform(x * 1000)).all()
    wide = (x * 1000).astype(np.float32)
    assert [*model.trained_.run.info["range"]] == [float(wide.min()), float(wide.max())]


def test_a_course_of_its_own_is_refused_for_a_part() -> None:
    for settings in ({"train.schedule": "cosine"}, {"train": {"schedule": "cosine"}}):
        with pytest.raises(Refusal, match=r"settings: train\.schedule with partial_fit"):
            small(settings=settings).partial_fit(rows())
    same: Any = {"train.schedule": "constant", "train.warmup": 0}
    assert small(settings=same).partial_fit(rows()).partial_fit(rows()).trained_.epochs


def test_a_warm_start_begins_with_the_weights_before_it(fitted: VAE) -> None:
    still = clone(fitted).set_params(warm_start=True, epochs=1)
    still.fit(rows()).set_params(rate=1e-30, settings={"model.likelihood": "bernoulli"})
    x = rows()
    before = still.transform(x)
    still.set_params(settings=None).fit(x)
    np.testing.assert_allclose(still.transform(x), before, rtol=1e-5, atol=1e-6)
    for parameters, message in (
        ({"latent": 4}, r"decoder\.0\.weight: \(\d+, 4\) .* and \(\d+, 3\) in the fitted model"),
        ({"hidden": ()}, r"a new fit, or parameters that change no size, expected"),
    ):
        other = clone(still).set_params(latent=3, hidden=(8,)).fit(x).set_params(**parameters)
        for use in (other.fit, other.partial_fit):
            with pytest.raises(Refusal, match=message):
                use(x)


def enumerated(model: BinarySparseCoding, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """log p(x) of binary sparse coding, summed over all states."""
    tensors = {k: v.double().numpy() for k, v in model.trained_.run.model.state_dict().items()}
    bits = model.latent
    states = (np.arange(2**bits)[:, None] >> np.arange(bits)) & 1
    pi = tensors["pi"].clip(1e-5, 1 - 1e-5)
    prior = (states * np.log(pi) + (1 - states) * np.log1p(-pi)).sum(1)
    mean = states @ tensors["decoder.0.weight"] + tensors["decoder.0.bias"]
    spread = np.sqrt(tensors["likelihood.variance"])
    densities = prior + norm(mean, spread).logpdf(x[:, None]).sum(-1)
    return np.asarray(logsumexp(densities, axis=1))


def test_the_score_with_all_states_kept_is_the_likelihood() -> None:
    x = rows(30, 4)
    model = BinarySparseCoding(latent=4, states=16, sweeps=1, epochs=2, batch=16, **CPU).fit(x)
    np.testing.assert_allclose(model.score_samples(x), enumerated(model, x), rtol=1e-4)


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
        ({"validation_fraction": 1.0}, "validation_fraction: "),
        ({"validation_fraction": math.nan}, "validation_fraction: "),
        ({"likelihood": "bernoulli"}, "model.likelihood: 'bernoulli' with a value of"),
    ],
)
def test_bad_parameters_are_refused_by_their_key(
    parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(Refusal, match=message):
        small(**parameters).fit(rows())


def test_a_warmup_that_is_named_is_kept(fitted: VAE) -> None:
    model = small(settings={"train": {"warmup": 500}}).fit(rows())
    assert model.trained_.run.config.train.warmup == 500
    assert fitted.trained_.run.config.train.warmup == 1


@pytest.mark.parametrize("folder", ["~/run", "s3://bucket/run"])
def test_a_folder_that_takes_no_run_is_refused_before_training(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Refusal, match=r"a URI; a place|begins with '~'"):
        small(folder=folder, verbose=True).fit(rows())
    assert "epoch" not in capsys.readouterr().out
    assert not Path("~").exists()


def test_complex_values_are_refused_in_a_line(fitted: VAE) -> None:
    wrong: Any = rows() + 1j
    for x in (wrong, torch.from_numpy(wrong), pandas.DataFrame(wrong), wrong.tolist()):
        for use in (small().fit, fitted.transform):
            with pytest.raises(Refusal, match="X: complex values; real numbers expected") as said:
                use(x)
            assert len(str(said.value)) < 100


def test_data_of_a_variance_that_float32_cannot_hold_are_refused() -> None:
    for scale in (1e-16, 1e-35):
        with pytest.raises(Refusal, match=r"the variance of the data is .*: scale the columns"):
            tiny(TVAE).fit(rows() * scale)
    x = rows() * 1e-14
    assert np.isfinite(tiny(TVAE).fit(x).score(x))


def test_a_fit_that_failed_leaves_a_model_that_is_not_fitted() -> None:
    model = small(likelihood="bernoulli")
    with pytest.raises(Refusal, match="finite values from 0 to 1 expected"):
        model.fit(rows())
    with pytest.raises(NotFittedError):
        model.transform(rows())
    with pytest.raises(NotFittedError):
        check_is_fitted(model)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also in a process of tests that ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# Ctrl-C may come when a file was opened and its block has not begun.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupted_fit_says_how_to_open_what_it_kept(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def interrupt() -> None:
        while not (folder / "best.json").exists():
            time.sleep(0.01)
        _thread.interrupt_main()

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt) as caught:
        small(folder=folder, epochs=5000).fit(rows())
    assert caught.value.__notes__ == [f"distvae.load({str(folder)!r}) opens the run so far"]
    assert distvae.load(str(folder)).encode(rows()).shape == (60, 3)


def warnings_of(x: Any) -> list[str]:
    """Fit a model, and return its warnings."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        small(epochs=1).fit(x).transform(x)
    assert all(each.filename == __file__ for each in found)
    return [str(each.message) for each in found]


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_a_column_that_is_lost_in_float32_is_named_once(dtype: type) -> None:
    x: NDArray[Any] = (1000 * rows()).astype(dtype)
    x[:, 3] = (1e4 * rows()[:, 3] - 1e12).astype(dtype)
    assert len(np.unique(x[:, 3].astype(np.float32))) < len(x) // 2, "float32 has few of the values"
    (found,) = warnings_of(x)
    assert found.startswith("X: column 3 has values of up to 1e+12")
    assert WARNING in found
    assert found.endswith("subtract its mean")
    x[:, 3] -= x[:, 3].mean().astype(dtype)
    assert not warnings_of(x)


def test_the_worst_of_several_columns_is_named_and_missing_values_are_not_looked_at() -> None:
    x = pandas.DataFrame(rows(), columns=list("abcde"))
    x["b"], x["d"] = x["b"] + 1e9, x["d"] + 1e12
    (found,) = warnings_of(x)
    assert found.startswith("X: column 'd', the worst of 2, has values of up to 1e+12")
    missing = rows() + 1e9
    missing[::3, :4] = missing[:, 0] = np.nan
    (found,) = warnings_of(missing)
    assert "the worst of 4" in found


def test_columns_that_float32_holds_or_that_do_not_vary_are_let_pass() -> None:
    whole = rows(300)
    constant = whole.copy()
    constant[:, 2] = 0.1
    constant[:, 3] = np.where(whole[:, 3] > 0, 0.1 + 0.2, 0.3)  # which differ by rounding
    for x in (whole, 1e-3 * whole + 10, constant, (whole + 1e9).astype(np.float32)):
        assert not warnings_of(x)
