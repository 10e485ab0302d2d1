"""The reports of an estimator on its epochs, including interrupted epochs."""

import _thread
import math
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

import distvae
from distvae.estimators import TVAE, VAE
from distvae.estimators.base import Estimator
from distvae.files.refusal import Refusal
from tests.estimators.test_models import rows, small, tiny


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
