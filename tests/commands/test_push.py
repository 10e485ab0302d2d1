"""`distvae push` and `load`, as they are typed."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.called import Called

GOLDEN = Path(__file__).parents[1] / "golden" / "runs-0.1.0" / "bars"


@pytest.fixture
def call(call: Called, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Called:
    """Runs commands in a folder with a run."""
    shutil.copytree(GOLDEN, tmp_path / "bars")
    monkeypatch.setenv("DISTVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return call


def test_a_model_is_pushed_loaded_and_shown(call: Called) -> None:
    assert call("push", "bars", "pushed") == (0, "pushed\n", "")
    assert call("load", "pushed", "theirs") == (0, "theirs\n", "")
    code, cached, _ = call("load", "pushed")
    assert code == 0
    shown = [
        call("show", place)[1].splitlines()[1:] for place in ("bars", "theirs", cached.strip())
    ]
    assert shown[0] == shown[1] == shown[2]


def test_what_exists_is_refused_in_one_line(call: Called) -> None:
    call("push", "bars", "pushed")
    for words in (("push", "bars", "pushed"), ("load", "pushed", "bars", "--force")):
        code, said, error = call(*words)
        assert (code, said, error.count("\n")) == (2, "", 1)
    assert call("push", "bars", "pushed", "--force")[0] == 0


def test_a_folder_that_was_not_pushed_is_told_what_such_a_folder_has(call: Called) -> None:
    code, _, error = call("load", "bars", "theirs")
    assert code == 2
    assert "bars: has no SHA256SUMS; a folder that 'distvae push' wrote expected" in error
    assert "model.safetensors" in error
    assert not Path("theirs").exists()


@pytest.mark.parametrize(("fact", "value"), [("dims", "16"), ("versions", {}), ("versions", 3)])
def test_facts_that_no_training_wrote_are_refused_in_one_line(
    call: Called, fact: str, value: object
) -> None:
    file = Path("bars", "run.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {fact: value}))
    code, _, error = call("push", "bars", "pushed")
    assert code == 2
    assert error.startswith(f"distvae: bars/run.json: {fact}: ")
    assert error.count("\n") == 1


def test_the_hub_needs_its_package(call: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    code, _, error = call("push", "bars", "hf://someone/bars")
    assert code == 2
    assert "the package huggingface_hub is missing" in error
