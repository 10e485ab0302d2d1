"""Tasks with a model trained on a device give the CPU's results: restorations, metrics, codes,
trials.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from distvae.config import from_dict
from distvae.config.recipes import load
from distvae.data import open_dataset, signals
from distvae.data.signals import Signal
from distvae.tasks.restoration import Restoration, RunDestination, WindowDecoder, restore_array
from distvae.train.run import Run
from distvae.train.session import fit
from distvae.tune.trial import Trials, run_trial
from distvae.tune.validation import load_space
from tests.device.pretended import Machine
from tests.slowly import slow

CLOSE: Any = {"rtol": 1e-6, "atol": 1e-6}
"""Of values about one, in single precision."""
SMALL: dict[str, Any] = {
    **{"model.latent": 8, "model.hidden": [8], "data.window": [4, 4]},
    **{"estep.states": 8, "estep.parents": 3, "estep.children": 2, "estep.generations": 1},
    **{"train.epochs": 2, "train.batch": 32, "train.threads": 1},
}
MODELS: dict[str, dict[str, Any]] = {
    "vsc": {"kind": "vsc", "prior": "pseudo"},
    "gumbel": {"kind": "gumbel"},
    "tvae": {"kind": "tvae"},
}


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """An MLflow server that refuses at once."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def picture(missing: float = 0.0) -> NDArray[np.float64]:
    """Stripes under noise."""
    chance, x = np.random.default_rng(0), np.mgrid[:14, :15, :1][1]
    values = np.where((x // 4) % 2, 160.0, 60.0) + 20 * chance.standard_normal(x.shape)
    return np.where(chance.random(x.shape) < missing, np.nan, values)


@pytest.mark.parametrize("recipe", slow("picture-fast"))
def test_a_restoration_is_what_the_cpu_makes_of_the_same_states(
    machine: Machine, tmp_path: Path, recipe: str
) -> None:
    config = load(recipe, SMALL | {"train.device": "auto"})
    restoration = Restoration(
        config, picture(missing=0.3), destination=RunDestination(tmp_path / "run")
    )
    with machine.counted() as counts:
        assert [stage.epoch for stage in restoration.run()] == [1, 2]
        found = restoration.restored()
    assert counts.kernels["_fused_adam_"]
    left = Run.left(tmp_path / "run")
    patches = restoration.patches
    decode = WindowDecoder.of(config, patches.grid)
    np.testing.assert_allclose(
        found, restore_array(patches, left.model, left.estep, decode), **CLOSE
    )


@pytest.mark.parametrize("kind", ["vsc", *slow("tvae", "gumbel")])
def test_codes_and_samples_of_what_was_trained_there_are_those_of_the_cpu(
    machine: Machine, tmp_path: Path, kind: str
) -> None:
    runs = [trained_on_bars(kind, device, tmp_path / device) for device in ("auto", "cpu")]
    rows = open_dataset(runs[0].config.data, quiet=True).splits["val"][:]
    found, expected = (
        {
            "codes": run.encode(rows),
            "decoded": run.decode(run.encode(rows)),
            "sample": run.sample(5),
        }
        for run in runs
    )
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, err_msg=name, **CLOSE)


def trained_on_bars(kind: str, device: str, folder: Path) -> Run:
    tree = {
        "data": {"kind": "bars", "size": 3, "rows": 64},
        "model": {"latent": 6, "hidden": [8], "likelihood": "gaussian", **MODELS[kind]},
        "estep": {"states": 8, "children": 3}
        if kind == "tvae"
        else {"hidden": [8], "input": "raw"},
        "train": {"epochs": 2, "batch": 16, "device": device},
    }
    config = from_dict(tree)
    for _ in fit(config, open_dataset(config.data, quiet=True), folder):
        pass
    return Run.open(folder)


@pytest.mark.slow
def test_a_trial_is_judged_as_on_the_cpu(machine: Machine, tmp_path: Path) -> None:
    signals.write(path := tmp_path / "clean.png", Signal(picture(), bits=16))
    fixed = SMALL | {"data.noise": 30.0, "data.noise_seed": 7, "data.path": str(path)}
    figures = []
    for device in ("auto", "cpu"):
        space = load_space("tvae-picture").pinned(
            fixed | {"train.device": device, "eval.processes": 1}
        )
        with machine.counted() as counts:
            *_, last = run_trial(Trials(space, tmp_path / device), 1, {"train.rate": 1e-3})
        assert bool(counts.kernels) == (device == "auto")
        figures.append(last["figures"])
    assert figures[0] == pytest.approx(figures[1], rel=1e-6)
