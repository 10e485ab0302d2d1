"""A sweep goes on only with the space and the data that it began with, whatever they are called."""

import copy
import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

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
from distvae.tune.validation import load_space
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


@pytest.fixture(scope="module", autouse=True)
def nowhere() -> Any:
    """An MLflow server that refuses connections."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        yield


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


def spoil(folder: Path) -> None:
    """Change one pixel."""
    file = folder / "train-images-idx3-ubyte"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("data", ["images", "other"])
def test_other_data_is_refused_wherever_it_lies(root: Path, space: Space, data: str) -> None:
    before = open_dataset(space.pinned({"data.path": str(root / "images")}).base.data)
    if data == "other":
        shutil.copytree(root / "images", root / "other")
    spoil(root / data)
    now = open_dataset(space.pinned({"data.path": str(root / data)}).base.data)
    with pytest.raises(Refusal, match=r"trial 1 trained on .*another -o for another sweep") as told:
        resume(root, space, data)
    for dataset in (before, now):
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


@pytest.mark.parametrize("end", ["finished", "halted"])
def test_a_sweep_is_done_when_no_trial_is_left_to_begin_or_to_continue(
    end: Literal["finished", "halted"], space: Space, tmp_path: Path
) -> None:
    study = OptunaStudy(space, tmp_path)
    done = [study.is_done]
    for _ in range(2):
        trial = study.next_trial()
        assert trial is not None
        done.append(study.is_done)
        scores = {"squared_error": 0.5, "hoyer": 0.5} if end == "finished" else {}
        study.record_result(Result(trial.number, trial.values, end, figures=scores))
    assert [*done, study.is_done] == [False, False, False, True]
    assert study.next_trial() is None
    assert OptunaStudy(space, tmp_path).is_done
    assert not OptunaStudy(replace(space, trials=3), tmp_path).is_done


@pytest.mark.slow
def test_a_renamed_space_goes_on_under_its_first_name(root: Path, space: Space) -> None:
    renamed = replace(space, name="renamed", about="Why?")
    assert resume(root, renamed, "images", trials=3, quiet=True) == 0
    facts = json.loads((root / "sweep" / SWEEP_FILE).read_text())
    assert (facts["name"], facts["about"]) == ("space", "Why?")
    assert set(figures(root / "sweep")) == {1, 2, 3}


def test_names_and_questions_do_not_count(space: Space, tmp_path: Path) -> None:
    facts = json.loads(json.dumps(describe_sweep(space)))
    del facts["about"]  # as in sweeps from before it was recorded
    (tmp_path / SWEEP_FILE).write_text(json.dumps(facts))
    refuse_other_sweep(replace(space, name="another", about="Why?"), tmp_path)


def change(axis: int, **fields: Any) -> Callable[[Tree], None]:
    return lambda tree: tree["axes"][axis].update(fields)


def drop(axis: int) -> Callable[[Tree], None]:
    return lambda tree: tree["axes"].pop(axis)


CHANGES: dict[str, tuple[Callable[[Tree], None], str]] = {
    "more values": (
        change(0, choice=[2, 4, 8]),
        r"axis model\.latent \{.*: \[2, 4\]\}, not \{.*: \[2, 4, 8\]\}; the axes of before",
    ),
    "another scale": (
        change(1, log=False),
        r"axis train\.rate \{.*, log: true\}, not \{.*0\.01\]\};",
    ),
    "another condition": (
        change(3, when={"model.kind": ["vsc", "gumbel"]}),
        r"axis model\.alpha \{.*when: \{model\.kind: \[vsc\]\}\}, not .*gumbel\]\}\};",
    ),
    "an axis less": (drop(1), r"axis train\.rate \{.*\}, not none;"),
    "an axis more": (
        lambda tree: tree["axes"].append({"key": "train.warmup", "choice": [0, 5]}),
        r"axis train\.warmup none, not \{key: train\.warmup, choice: \[0, 5\]\};",
    ),
    "another order": (
        lambda tree: tree["axes"].insert(0, tree["axes"].pop(1)),
        r"order of axes \[model\.latent, train\.rate, .*\], not \[train\.rate, model\.latent",
    ),
    "another metric": (
        lambda tree: tree.update(metrics={"hoyer": "max"}),
        r"a sweep with metrics \{squared_error: min, hoyer: max\}, not \{hoyer: max\};",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_differs_is_told_in_the_words_of_the_space(
    name: str, space: Space, tmp_path: Path
) -> None:
    spoil_tree, message = CHANGES[name]
    (tmp_path / SWEEP_FILE).write_text(json.dumps(describe_sweep(space)))
    spoil_tree(tree := copy.deepcopy(TREE))
    with pytest.raises(Refusal, match=message) as told:
        refuse_other_sweep(read_space("renamed", tree), tmp_path)
    for internal in ("place", "repeated", "span"):
        assert internal not in str(told.value).removeprefix(str(tmp_path))


SPEECH: dict[str, Any] = {
    "base": "speech-vae",
    "fixed": {"train.epochs": 2, "train.device": "cpu", "eval.metrics": ["estoi", "stoi", "isd"]},
    "metrics": {"stoi": "max", "hoyer": "max"},
    "trials": 2,
    "concurrent": 2,
    "search": "grid",
    "axes": [{"key": "model.kind", "choice": ["vae", "vsc"]}],
}


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SPEECH, sort_keys=False))
    return path


@pytest.mark.slow
def test_a_sweep_that_began_on_another_processor_says_so_before_it_goes_on(
    speech: Path, tmp_path: Path
) -> None:
    space, out = replace(load_space(str(speech)), concurrent=1), tmp_path / "out"
    out.mkdir()
    settled = prepare_space(space, {})

    prepare_sweep_folder(settled, out, False, DEFAULT_RESOURCES)
    facts = json.loads((out / SWEEP_FILE).read_text())
    facts["arithmetic"]["processor"] = "another"
    (out / SWEEP_FILE).write_text(json.dumps(facts))
    with pytest.raises(
        Refusal, match=r"than the run so far, in .*out: .*instead of another; .*train\.bits=any"
    ):
        run_sweep(space, out, SweepOptions(resume=True, quiet=True, root=tmp_path))


def test_a_sweep_from_before_a_setting_goes_on_as_it_was_done_then(
    speech: Path, tmp_path: Path
) -> None:
    """Settings that are younger than the sweep have the values that were meant before there was a
    choice.
    """

    crops = {
        "base": "natural-linear",
        "fixed": {},
        "axes": [{"key": "model.latent", "choice": [16, 32]}],
    }
    speech.write_text(yaml.safe_dump(SPEECH | crops | {"metrics": {"val_bound": "max"}}))
    space = load_space(str(speech))
    facts = json.loads(json.dumps(describe_sweep(space.pinned({"data.contrast": "common"}))))
    for younger in ("data.contrast", "train.products", "train.bits"):
        del facts["config"][younger]
    (tmp_path / SWEEP_FILE).write_text(json.dumps(facts))
    refuse_other_sweep(space.pinned({"data.contrast": "common"}), tmp_path)
    with pytest.raises(Refusal, match=r"config\.data\.contrast 'common', not 'own'"):
        refuse_other_sweep(space, tmp_path)
