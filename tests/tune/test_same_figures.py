"""Trials of one configuration have the same figures, whenever and beside whatever they run; sweeps
go on alike.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from distvae.files.refusal import Refusal
from distvae.tune.preparation import prepare_space
from distvae.tune.space_files import load_space
from distvae.tune.sweep import SweepOptions, run_sweep
from distvae.tune.sweep_file import SWEEP_FILE
from tests.train.test_bits import busy

TREE: dict[str, Any] = {
    "base": "speech-vae",
    "fixed": {"train.epochs": 2, "train.device": "cpu", "eval.metrics": ["estoi", "stoi", "isd"]},
    "metrics": {"stoi": "max", "hoyer": "max"},
    "trials": 2,
    "concurrent": 2,
    "search": "grid",
    "axes": [{"key": "model.kind", "choice": ["vae", "vsc"]}],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(TREE, sort_keys=False))
    return path


def swept(file: Path, out: Path) -> dict[str, Any]:
    """The figures of all trials, by what they trained."""
    words = [sys.executable, "-m", "distvae", "tune", str(file), "--out", str(out), "--quiet"]
    subprocess.run(words, check=True, capture_output=True, timeout=600)
    trials = json.loads((out / "results.json").read_text())["trials"]
    return {trial["values"]["model.kind"]: trial["figures"] for trial in trials}


@pytest.mark.long
def test_a_sweep_on_a_busy_machine_has_every_figure_of_one_before(
    file: Path, tmp_path: Path
) -> None:
    first = swept(file, tmp_path / "first")
    assert set(first) == {"vae", "vsc"}
    assert all(figures["stoi"] > 0 for figures in first.values())
    with busy(2):
        assert swept(file, tmp_path / "second") == first


def test_all_trials_are_told_one_library_and_number_of_threads(file: Path) -> None:
    settled = prepare_space(load_space(str(file)), {})
    assert settled.base.train.products in ("blas", "onednn")
    assert isinstance(settled.base.train.threads, int)


@pytest.mark.slow
def test_a_sweep_that_began_on_another_processor_says_so_before_it_goes_on(
    file: Path, tmp_path: Path
) -> None:
    space, out = replace(load_space(str(file)), concurrent=1), tmp_path / "out"
    out.mkdir()
    settled = prepare_space(space, {})
    from distvae.tune.folder import prepare_sweep_folder
    from distvae.tune.preparation import DEFAULT_RESOURCES

    prepare_sweep_folder(settled, out, False, DEFAULT_RESOURCES)
    facts = json.loads((out / SWEEP_FILE).read_text())
    facts["arithmetic"]["processor"] = "another"
    (out / SWEEP_FILE).write_text(json.dumps(facts))
    with pytest.raises(
        Refusal, match=r"than the run so far, in .*out: .*instead of another; .*train\.bits=any"
    ):
        run_sweep(space, out, SweepOptions(resume=True, quiet=True, root=tmp_path))


def test_a_sweep_from_before_a_setting_goes_on_as_it_was_done_then(
    file: Path, tmp_path: Path
) -> None:
    """Settings that are younger than the sweep have the values that were meant before there was a
    choice.
    """
    from distvae.tune.sweep_file import describe_sweep, refuse_other_sweep

    crops = {
        "base": "natural-linear",
        "fixed": {},
        "axes": [{"key": "model.latent", "choice": [16, 32]}],
    }
    file.write_text(yaml.safe_dump(TREE | crops | {"metrics": {"val_bound": "max"}}))
    space = load_space(str(file))
    facts = json.loads(json.dumps(describe_sweep(space.pinned({"data.contrast": "common"}))))
    for younger in ("data.contrast", "train.products", "train.bits"):
        del facts["config"][younger]
    (tmp_path / SWEEP_FILE).write_text(json.dumps(facts))
    refuse_other_sweep(space.pinned({"data.contrast": "common"}), tmp_path)
    with pytest.raises(Refusal, match=r"config\.data\.contrast 'common', not 'own'"):
        refuse_other_sweep(space, tmp_path)
