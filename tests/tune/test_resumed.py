"""A sweep goes on only with the space and the data that it began with, whatever they are called."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distvae.data import open_dataset
from distvae.files.refusal import Refusal
from distvae.tune.folder import (
    SWEEP_FILE,
    describe_sweep,
    prepare_sweep_folder,
    refuse_other_sweep,
)
from distvae.tune.results import Result, rank
from distvae.tune.space import Space, read_space
from distvae.tune.study import OptunaStudy
from distvae.tune.sweep import DEFAULT_RESOURCES, SweepOptions, prepare_space, run_sweep
from distvae.tune.trial import LAST_PICTURE, TrialRun, Trials, run_trial
from tests.tune.sweeps import TREE as SWEPT
from tests.tune.sweeps import figures

Tree = dict[str, Any]
TREE: Tree = SWEPT | {
    "trials": 2,
    "concurrent": 1,
    "seeds": 1,
    "axes": [
        {"key": "model.latent", "choice": [2, 4]},
        {"key": "train.rate", "float": [1e-4, 1e-2], "log": True},
        {"key": "model.kind", "choice": ["vae", "vsc"]},
        {"key": "model.alpha", "choice": [0.2, 0.3], "when": {"model.kind": "vsc"}},
    ],
}


@pytest.fixture
def space() -> Space:
    return read_space("space", TREE)


@pytest.fixture(scope="module")
def template(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, and with a sweep on them whose trials have ended."""
    root = tmp_path_factory.mktemp("ended")
    shutil.copytree(images, root / "images")
    settled = prepare_space(read_space("space", TREE), {"data.path": str(root / "images")})
    train(settled, root / "sweep")
    return root


def train(space: Space, out: Path) -> None:
    """Train all trials of a space into a folder, without Ray. Their pictures pass for drawn."""
    out.mkdir()
    prepare_sweep_folder(space, out, False, DEFAULT_RESOURCES)
    study, trials = OptunaStudy(space, out), Trials(space, out.absolute() / "trials")
    while trial := study.next_trial():
        *_, last = run_trial(trials, trial.number, trial.values)
        ended = Result(trial.number, trial.values, "finished", figures=last["figures"])
        study.record_result(ended)
    for run in trials.undrawn(rank(study.results, space.metrics)):
        (run.evaluation / LAST_PICTURE).touch()


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(template, tmp_path / "root")


def resume(root: Path, space: Space, data: str, **options: Any) -> int:
    """The exit code of a sweep that is resumed."""
    chosen = SweepOptions(data=str(root / data), resume=True, root=root, **options)
    return run_sweep(space, root / "sweep", chosen).exit_code


def test_other_data_is_refused_wherever_it_lies(root: Path, space: Space) -> None:
    """One pixel differs."""
    shutil.copytree(root / "images", root / "other")
    file = root / "other" / "train-images-idx3-ubyte"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(Refusal, match=r"trial 1 trained on .*another -o for another sweep") as told:
        resume(root, space, "other")
    for data in ("images", "other"):
        dataset = open_dataset(space.pinned({"data.path": str(root / data)}).base.data)
        assert f"{dataset.name} (digest {dataset.digest[:12]})" in str(told.value)


def test_a_sweep_whose_trials_have_ended_has_nothing_left_wherever_its_data_lies(
    root: Path, space: Space, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "images").rename(root / "moved")
    facts = (root / "sweep" / SWEEP_FILE).read_bytes()
    assert resume(root, space, "moved", trials=1) == 0
    said = capsys.readouterr().err
    assert "2 trials ended earlier; nothing is left to train" in said
    assert "Ray" not in said
    assert "side by side" not in said
    assert set(figures(root / "sweep")) == {1, 2}
    assert (root / "sweep" / SWEEP_FILE).read_bytes() == facts


@pytest.mark.slow
def test_a_signal_while_pictures_are_drawn_leaves_only_pictures(
    root: Path, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    for picture in root.glob(f"sweep/trials/*/evaluation/val/{LAST_PICTURE}"):
        picture.unlink()
    options = SweepOptions(data=str(root / "images"), resume=True, quiet=True, root=root)
    with monkeypatch.context() as patch:
        patch.setattr(TrialRun, "draw", lambda run: signal.raise_signal(signal.SIGINT))
        stopped = run_sweep(space, root / "sweep", options)
    assert (stopped.exit_code, stopped.left) == (130, "pictures")
    resumed = run_sweep(space, root / "sweep", options)
    assert (resumed.exit_code, resumed.left) == (0, "nothing")
    drawn = list(root.glob(f"sweep/trials/*/evaluation/val/{LAST_PICTURE}"))
    assert len(drawn) == 2
    assert all(picture.stat().st_size for picture in drawn)


@pytest.mark.slow
def test_a_renamed_space_goes_on_under_its_first_name(root: Path, space: Space) -> None:
    renamed = replace(space, name="renamed", about="Why?")
    assert resume(root, renamed, "images", trials=3, quiet=True) == 0
    facts = json.loads((root / "sweep" / SWEEP_FILE).read_text())
    assert (facts["name"], facts["about"]) == ("space", "Why?")
    assert set(figures(root / "sweep")) == {1, 2, 3}


def changed(axis: int, **fields: Any) -> list[Tree]:
    """The axes of the space, one of them with other fields."""
    axes = [dict(each) for each in TREE["axes"]]
    axes[axis] |= fields
    return axes


WARMUP = {"key": "train.warmup", "choice": [0, 5]}
CHANGES: list[tuple[Tree, str]] = [
    (
        {"axes": changed(0, choice=[2, 4, 8])},
        r"axis model\.latent \{.*: \[2, 4\]\}, not \{.*: \[2, 4, 8\]\}; --resume needs",
    ),
    (
        {"axes": changed(1, log=False)},
        r"axis train\.rate \{.*, log: true\}, not \{.*0\.01\]\};",
    ),
    (
        {"axes": changed(3, when={"model.kind": ["vsc", "gumbel"]})},
        r"axis model\.alpha \{.*when: \{model\.kind: \[vsc\]\}\}, not .*gumbel\]\}\};",
    ),
    ({"axes": TREE["axes"][:1] + TREE["axes"][2:]}, r"axis train\.rate \{.*\}, not none;"),
    (
        {"axes": [*TREE["axes"], WARMUP]},
        r"axis train\.warmup none, not \{key: train\.warmup, choice: \[0, 5\]\};",
    ),
    (
        {"axes": [TREE["axes"][n] for n in (1, 0, 2, 3)]},
        r"order of axes \[model\.latent, train\.rate, .*\], not \[train\.rate, model\.latent",
    ),
    (
        {"metrics": {"hoyer": "max"}},
        r"a sweep with metrics \{squared_error: min, hoyer: max\}, not \{hoyer: max\};",
    ),
]


@pytest.mark.parametrize(("changes", "message"), CHANGES)
def test_what_differs_is_told_in_the_words_of_the_space(
    changes: Tree, message: str, space: Space, tmp_path: Path
) -> None:
    (tmp_path / SWEEP_FILE).write_text(json.dumps(describe_sweep(space)))
    with pytest.raises(Refusal, match=message) as told:
        refuse_other_sweep(read_space("renamed", TREE | changes), tmp_path)
    for internal in ("place", "repeated", "span"):
        assert internal not in str(told.value).removeprefix(str(tmp_path))


def test_a_sweep_goes_on_under_another_name_and_with_the_values_from_before_a_setting(
    space: Space, tmp_path: Path
) -> None:
    """Settings that are younger than the sweep have the values that were meant before there was a
    choice.
    """
    crops = TREE | {"base": "natural-linear", "fixed": {}, "metrics": {"val_bound": "max"}}
    crops["axes"] = [{"key": "model.latent", "choice": [16, 32]}]
    explored = read_space("crops", crops).pinned({"data.contrast": "common"})
    facts = json.loads(json.dumps(describe_sweep(explored)))
    del facts["about"]
    for younger in ("data.contrast", "train.products", "train.bits"):
        del facts["config"][younger]
    (tmp_path / SWEEP_FILE).write_text(json.dumps(facts))
    refuse_other_sweep(replace(explored, name="another", about="Why?"), tmp_path)
    with pytest.raises(Refusal, match=r"config\.data\.contrast 'common', not 'own'"):
        refuse_other_sweep(read_space("crops", crops), tmp_path)


def test_a_sweep_that_began_on_another_processor_says_so_before_it_goes_on(
    root: Path, space: Space
) -> None:
    file = root / "sweep" / SWEEP_FILE
    facts = json.loads(file.read_text())
    facts["arithmetic"]["processor"] = "another"
    file.write_text(json.dumps(facts))
    message = r"than the run so far, in .*sweep: .*instead of another; .*train\.bits=any"
    with pytest.raises(Refusal, match=message):
        resume(root, space, "images", trials=3)
