"""The shell completes names and settings that exist, and loads nothing heavy for it."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distvae.cli import app
from distvae.cli.options import complete_setting, join_words
from distvae.config import flatten
from distvae.config.recipes import load, recipe_names

ROOT = Path(__file__).parents[2]
LOADED = """
import atexit, sys
from tests.laws.test_imports import HEAVY
sys.argv = ["distvae"]
atexit.register(lambda: print(sorted(set(sys.modules) & set(HEAVY))))
from distvae.cli import main
main()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run and a sweep."""
    for kind, name in ("run", "one"), ("sweep", "demo"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / f"{kind}.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def variables(words: tuple[str, ...]) -> dict[str, str]:
    """The environment in which bash asks for completions of the last word."""
    return {
        "_DISTVAE_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(["distvae", *words]),
        "COMP_CWORD": str(len(words)),
    }


def completed(*words: str) -> list[str]:
    """Return typer's completions of the last word, in this process."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr(os, "environ", os.environ | variables(words))
        join_words()
        with pytest.raises(SystemExit):
            app(prog_name="distvae")
    return sorted(out.getvalue().split())


def stems(folder: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / folder).glob("*.yaml"))


def test_names_of_files_and_runs_are_completed(here: Path) -> None:
    assert completed("train", "") == sorted([*recipe_names(), "runs/one"])
    assert completed("train", "sprites-v") == ["sprites-vae", "sprites-vsc"]
    assert completed("tune", "") == stems("tune_spaces")
    assert completed("reproduce", "") == stems("distvae/reproduce/tables")
    assert completed("show", "runs/") == ["runs/demo", "runs/one"]
    assert completed("settings", "model.dict") == ["model.dictionary"]


def test_settings_and_their_values_are_completed(here: Path) -> None:
    """With a value at hand, the shell leaves no space after the sign."""
    offered = set(completed("train", "bars", ""))
    wanted = {f"{key}=" for name in ("speech-sdm", "house-50") for key in flatten(load(name))}
    assert wanted - {"train.kind=", "eval.kind="} <= offered  # of these there is one kind each
    name, *values = completed("denoise", "in.png", "out.png", "model.dictionar")
    assert name == "model.dictionary="
    assert values == [f"{name}{value}" for value in ("dct", "identity", "learned")]
    graphs = [f"train.graphs={value}" for value in ("", "false", "true")]
    assert completed("train", "bars", "train.graphs") == graphs
    for name in complete_setting(""):
        assert len(complete_setting(name.removesuffix("="))) > 1, name


def test_bash_takes_a_setting_and_its_value_for_three_words(here: Path) -> None:
    assert completed("train", "bars", "model.dictionary", "=", "d") == ["dct"]
    assert completed("train", "bars", "model.dictionary", "=") == ["dct", "identity", "learned"]
    assert "train.epochs=" in completed("train", "bars", "model.dictionary", "=", "")
    assert completed("evaluate", "runs/one", "--split", "=", "t") == ["test", "train"]
    assert completed("evaluate", "runs/one", "train.ep")[0] == "train.epochs="


def test_nothing_heavy_is_loaded_for_it(here: Path) -> None:
    """Neither is a run looked for in MLflow that was named before."""
    words = ("evaluate", "best:hoyer@demo", "train.")
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables(words)
    start = [sys.executable, "-c", LOADED]
    done = subprocess.run(start, env=environment, capture_output=True, text=True, check=False)
    offered = done.stdout.split()
    assert offered[-1] == "[]"
    assert "train.epochs=" in offered
