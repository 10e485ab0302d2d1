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
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

import distvae
from distvae.config import Evolution
from distvae.data.dataset import Stacked
from distvae.estimators import SDMVAE, TVAE, VAE, VSC, BinarySparseCoding, GumbelVAE
from distvae.estimators.base import Estimator
from distvae.files.refusal import Refusal
from distvae.models.vae import VAE as Module

CPU: dict[str, Any] = {"device": "cpu"}
MODELS = (VAE, SDMVAE, VSC, GumbelVAE, TVAE, BinarySparseCoding)
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


class TestInputs:
    def test_arrays_of_every_sort_give_the_same_codes(self, fitted: VAE, tmp_path: Path) -> None:
        x = rows().astype(np.float32)
        np.save(tmp_path / "x.npy", x)
        inputs = {
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

    @pytest.mark.parametrize("sort", ["frame", "dataset"])
    def test_fits_of_the_same_rows_are_the_same(self, fitted: VAE, sort: str) -> None:
        x = rows()
        same: Any = {
            "frame": pandas.DataFrame(x, columns=list("abcde")),
            "dataset": Stacked([x.astype(np.float32)]),
        }[sort]
        codes = small().fit(same).transform(same)
        np.testing.assert_array_equal(codes, fitted.transform(x))

    def test_a_row_may_have_missing_values(self) -> None:
        x = rows()
        x[::3, 1] = np.nan
        assert np.isfinite(small().fit(x).transform(x)).all()

    def test_names_of_columns_come_out_of_a_pipeline(self) -> None:
        pipeline = make_pipeline(StandardScaler(), small()).set_output(transform="pandas")
        codes = pipeline.fit_transform(pandas.DataFrame(rows(), columns=list("abcde")))
        assert list(codes.columns) == ["vae0", "vae1", "vae2"]


class TestFewBits:
    @pytest.mark.slow
    @pytest.mark.parametrize("latent", [1, 6])
    def test_a_row_keeps_at_most_all_states(self, latent: int) -> None:
        model = TVAE(latent=latent, hidden=(4,), epochs=1, sweeps=1, device="cpu").fit(rows())
        assert model.get_params()["states"] == 64
        estep = model.trained_.run.config.estep
        assert isinstance(estep, Evolution)
        assert estep.states == min(64, 2**latent)
        assert model.transform(rows()).shape[1] == latent


class TestDraws:
    @pytest.mark.parametrize("model", [GumbelVAE, TVAE])
    def test_codes_and_bounds_do_not_depend_on_where_a_row_stands(
        self, model: type[Estimator]
    ) -> None:
        x = rows(40)
        estimator = tiny(model).fit(x)
        order = np.random.default_rng(1).permutation(len(x))
        for method in (estimator.transform, estimator.score_samples):
            np.testing.assert_allclose(method(x[order]), method(x)[order], rtol=1e-4, atol=1e-5)

    def test_random_states_of_scikit_learn_are_seeds(self, fitted: VAE) -> None:
        x = rows()
        one, other = (small(random_state=np.random.RandomState(4)).fit(x) for _ in range(2))
        np.testing.assert_array_equal(one.transform(x), other.transform(x))
        assert not np.array_equal(one.transform(x), fitted.transform(x))

    def test_a_fit_leaves_the_program_around_it_as_it_was(self) -> None:
        before = torch.get_num_threads(), torch.get_float32_matmul_precision()
        states = torch.get_rng_state(), random.getstate()
        torch.set_num_threads(2)
        try:
            small().fit(rows()).score(rows())
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before[0])
        assert torch.get_float32_matmul_precision() == before[1]
        assert torch.equal(torch.get_rng_state(), states[0])
        assert random.getstate() == states[1]


class TestPersistence:
    @pytest.mark.parametrize("model", MODELS)
    def test_a_pickle_gives_the_same_codes_and_holds_plain_bytes(
        self, model: type[Estimator]
    ) -> None:
        x = rows(30)
        estimator = tiny(model).fit(x)
        content = pickle.dumps(estimator, protocol=2)
        np.testing.assert_array_equal(pickle.loads(content).transform(x), estimator.transform(x))
        modules = {
            str(argument).partition(" ")[0]
            for opcode, argument, _ in pickletools.genops(content)
            if opcode.name == "GLOBAL"
        }
        ours = {"distvae.estimators.models", "distvae.estimators.trained"}
        assert modules <= ours | {"copyreg", "copy_reg", "__builtin__", "_codecs"}

    def test_a_saved_estimator_opens_as_a_run(self, fitted: VAE, tmp_path: Path) -> None:
        fitted.save(tmp_path / "run")
        codes = distvae.load(tmp_path / "run").encode(rows())
        np.testing.assert_allclose(codes, fitted.transform(rows()), rtol=1e-5, atol=1e-6)
        with pytest.raises(Refusal, match="exists and is not empty"):
            fitted.save(tmp_path / "run")


class TestTrainingThatGoesOn:
    def test_epochs_of_partial_fit_are_those_of_one_fit(self) -> None:
        constant = {"train.schedule": "constant", "train.warmup": 0}
        x = rows()
        whole = small(epochs=3, validation_fraction=0.0, settings=constant).fit(x)
        objectives = [record["val_objective"] for record in whole.trained_.epochs]
        assert objectives[-1] == max(objectives), "fit keeps the weights of another epoch"
        parts = small()
        for _ in range(3):
            parts.partial_fit(x)
        np.testing.assert_array_equal(parts.transform(x), whole.transform(x))

    def test_a_warm_up_counts_the_steps_on_parts_of_any_size(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[float] = []
        at = Module.at

        def tell(model: Module, step: float) -> None:
            told.append(step)
            at(model, step)

        monkeypatch.setattr(Module, "at", tell)
        model = small(settings={"model.beta_warmup": 40})
        sizes = (160, 160, 16, 40, 160)
        for size in sizes:
            model.partial_fit(rows(size))
        batches = sum(math.ceil(size / 16) for size in sizes)
        assert [step for step in told if math.isfinite(step)] == list(range(batches))

    def test_rows_of_an_earlier_part_stay_known(self) -> None:
        x = rows()
        model = small().partial_fit(x * 1000).partial_fit(x)
        assert np.isfinite(model.transform(x * 1000)).all()
        wide = (x * 1000).astype(np.float32)
        assert [*model.trained_.run.info["range"]] == [float(wide.min()), float(wide.max())]

    @pytest.mark.parametrize(("key", "value"), [("schedule", "cosine")])
    def test_a_course_of_its_own_is_refused_for_a_part(self, key: str, value: Any) -> None:
        with pytest.raises(Refusal, match=f"settings: train.{key} with partial_fit"):
            small(settings={f"train.{key}": value}).partial_fit(rows())
        with pytest.raises(Refusal, match=f"settings: train.{key} with partial_fit"):
            small(settings={"train": {key: value}}).partial_fit(rows())
        same: Any = {"train.schedule": "constant", "train.warmup": 0}
        assert small(settings=same).partial_fit(rows()).partial_fit(rows()).trained_.epochs

    def test_a_warm_start_begins_with_the_weights_before_it(self, fitted: VAE) -> None:
        still = clone(fitted).set_params(warm_start=True, epochs=1)
        still.fit(rows()).set_params(rate=1e-30, settings={"model.likelihood": "bernoulli"})
        x = rows()
        before = still.transform(x)
        still.set_params(settings=None).fit(x)
        np.testing.assert_allclose(still.transform(x), before, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            (
                {"latent": 3},
                r"decoder\.0\.weight: \(\d+, 3\) .* and \(\d+, 2\) in the fitted model",
            ),
            ({"hidden": ()}, r"a new fit, or parameters that change no size, expected"),
        ],
    )
    def test_weights_of_another_size_are_refused(
        self, parameters: dict[str, object], message: str
    ) -> None:
        x, model = rows(), small(latent=2, warm_start=True).fit(rows())
        model.set_params(**parameters)
        with pytest.raises(Refusal, match=message):
            model.fit(x)
        with pytest.raises(Refusal, match=message):
            model.partial_fit(x)


class TestSelection:
    @pytest.mark.slow
    def test_a_grid_search_scores_by_the_bound_of_rows_left_out(self) -> None:
        x, folds = rows(), KFold(2)
        search = GridSearchCV(small(), {"latent": [1, 2]}, cv=folds, refit=False).fit(x)
        for latent, found in zip([1, 2], search.cv_results_["mean_test_score"], strict=True):
            scores = [
                small(latent=latent).fit(x[train]).score(x[test]) for train, test in folds.split(x)
            ]
            assert found == pytest.approx(np.mean(scores), rel=1e-6)


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


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_score_with_all_states_kept_is_the_likelihood(seed: int) -> None:
    x = rows(30, 4, seed)
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
        ({"likelihood": "bernoulli"}, "model.likelihood: 'bernoulli' with a value of"),
    ],
)
def test_bad_parameters_are_refused_by_their_key(
    parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(Refusal, match=message):
        small(**parameters).fit(rows())


def test_a_warmup_that_is_named_is_kept() -> None:
    for named in ({"train.warmup": 500}, {"train": {"warmup": 500}}):
        model = small(settings=named).fit(rows())
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


@pytest.mark.parametrize("model", [VAE, TVAE])
def test_every_epoch_has_its_figures_also_in_a_pickle(model: type[Estimator]) -> None:
    estimator = tiny(model).set_params(epochs=3).fit(rows())
    assert estimator.n_iter_ == 3
    assert [record["epoch"] for record in estimator.history_] == [1, 2, 3]
    assert all(math.isfinite(record["val_bound"]) for record in estimator.history_)
    assert pickle.loads(pickle.dumps(estimator)).history_ == estimator.history_


def test_parts_add_their_epochs(tmp_path: Path) -> None:
    model = small()
    for number in range(1, 4):
        model.partial_fit(rows())
        assert [record["epoch"] for record in model.history_] == [*range(1, number + 1)]
    model = pickle.loads(pickle.dumps(model))
    assert model.n_iter_ == 3
    model.save(tmp_path / "run")
    assert distvae.load(tmp_path / "run").epochs() == model.history_
    assert model.fit(rows()).n_iter_ == 2


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


def distinct(x: NDArray[Any]) -> int:
    """Return the number of values that are left in float32."""
    return len(np.unique(x.astype(np.float32)))


@pytest.mark.parametrize("offset", [-1e12])
@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_a_column_that_is_lost_in_float32_is_named_once(offset: float, dtype: type) -> None:
    x: NDArray[Any] = (1000 * rows()).astype(dtype)
    x[:, 3] = (abs(offset) * 1e-8 * rows()[:, 3] + offset).astype(dtype)
    assert distinct(x[:, 3]) < len(x) // 2, "the oracle: float32 has few of the values"
    (found,) = warnings_of(x)
    assert found.startswith(f"X: column 3 has values of up to {abs(offset):g}")
    assert WARNING in found
    assert found.endswith("subtract its mean")
    x[:, 3] -= x[:, 3].mean().astype(dtype)
    assert distinct(x[:, 3]) > len(x) // 2
    assert not warnings_of(x)


def test_the_worst_of_several_columns_is_named_by_its_name_in_a_frame() -> None:
    x = pandas.DataFrame(rows(), columns=list("abcde"))
    x["b"], x["d"] = x["b"] + 1e9, x["d"] + 1e12
    (found,) = warnings_of(x)
    assert found.startswith("X: column 'd', the worst of 2, has values of up to 1e+12")


def test_missing_values_are_not_looked_at() -> None:
    x = rows() + 1e9
    x[::3, :4] = np.nan
    x[:, 0] = np.nan
    (found,) = warnings_of(x)
    assert "the worst of 4" in found


def test_columns_that_float32_holds_or_that_do_not_vary_are_let_pass() -> None:
    whole = rows(2000)
    constant = whole.copy()
    constant[:, 2] = 0.1
    constant[:, 3] = np.where(whole[:, 3] > 0, 0.1 + 0.2, 0.3)  # which differ by rounding
    for x in (whole, 1e-3 * whole + 10, constant, (whole + 1e9).astype(np.float32)):
        assert not warnings_of(x)
