"""`distvae push`, as it is typed."""

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
    monkeypatch.chdir(tmp_path)
    return call


def test_a_model_is_pushed_and_shown(call: Called) -> None:
    assert call("push", "bars", "pushed") == (0, "pushed\n", "")
    shown = [call("show", place)[1].splitlines()[1:] for place in ("bars", "pushed")]
    assert shown[0] == shown[1]


@pytest.mark.parametrize("destination", ["bars", "s3://bucket/bars", "hf://bars"])
def test_what_is_no_new_folder_is_refused_in_one_line(call: Called, destination: str) -> None:
    code, said, error = call("push", "bars", destination)
    assert (code, said) == (2, "")
    assert error == f"distvae: {destination}: a new folder or hf://OWNER/NAME expected\n"


@pytest.mark.parametrize(("fact", "value"), [("dims", "16"), ("versions", 3)])
def test_facts_that_no_training_wrote_are_refused_in_one_line(
    call: Called, fact: str, value: object
) -> None:
    file = Path("bars", "run.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {fact: value}))
    code, _, error = call("push", "bars", "pushed")
    assert code == 2
    assert error.startswith("distvae: bars/run.json: ")
    assert fact in error
    assert error.count("\n") == 1


def test_the_hub_needs_its_package(call: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    code, _, error = call("push", "bars", "hf://someone/bars")
    assert code == 2
    assert "needs the package huggingface_hub; pip install 'distvae[hub]' expected" in error
