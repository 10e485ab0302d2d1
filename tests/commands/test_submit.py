"""The options that a cluster adds to a command line, and what it refuses."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distvae.cli.submit import STORAGE, Command, complete_words
from distvae.files.refusal import Refusal
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
OPTIONS = {
    "--address": "10.0.0.1:6379",
    "--wait": "5",
    "--resume": None,
    "--out": "/x/runs",
    "--storage": "s3://b/runs",
}


def values(words: list[str], option: str) -> list[str]:
    return [words[place + 1] for place, word in enumerate(words) if word == option]


@given(st.sets(st.sampled_from(sorted(OPTIONS.keys() - {"--storage"}))))
def test_what_was_said_stays_and_what_was_not_is_added_once(said: set[str]) -> None:
    given = ["speech", *(word for name in sorted(said) for word in (name, OPTIONS[name]) if word)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STORAGE, "/mnt/distvae/")
        words = complete_words("tune", given)
    assert words[: 1 + len(given)] == ["tune", *given]
    assert values(words, "--address") == [OPTIONS["--address"] if "--address" in said else "auto"]
    assert values(words, "--out") == ["/x/runs" if "--out" in said else "/mnt/distvae/runs/speech"]
    assert words.count("--resume") == 1
    assert words.count("--wait") == 1


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--trials", "200", "speech"], "speech"),
        (["--data", "/mnt/recordings", "tune_spaces/mine.yaml", "speech.yaml"], "mine"),
        (["speech", "--trials", "200"], "speech"),
        (["--trials", "200"], "sweep"),
        ([f"model.hidden=[{'128,' * 99}128]", "speech"], "speech"),
    ],
)
def test_a_sweep_is_kept_under_the_name_of_its_space(
    words: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STORAGE, "/mnt/distvae")
    assert values(complete_words("tune", words), "--out") == [f"/mnt/distvae/runs/{name}"]


@pytest.mark.parametrize("said", [["--out", "/x"], ["--out=/x"], ["-o", "/x"], ["-o/x"]])
def test_a_place_is_named_in_any_way_that_the_command_line_knows(said: list[str]) -> None:
    words = complete_words("tune", ["speech", *said])
    assert words[2 : 2 + len(said)] == said
    assert values(words, "--out") == (["/x"] if said[0] == "--out" else [])


def test_a_sweep_that_is_to_begin_anew_is_not_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORAGE, "/mnt/distvae")
    assert "--resume" not in complete_words("tune", ["tune_spaces/speech.yaml", "--force"])


@pytest.mark.parametrize("recipe", ["bars", "own/bars.yaml"])
def test_a_training_on_a_shared_disk_is_trained_there(
    recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its evaluation and its record are on that disk too."""
    monkeypatch.setenv(STORAGE, "/mnt/distvae")
    words = complete_words("train", ["--workers", "2", recipe])
    assert values(words, "--out") == ["/mnt/distvae/runs/bars"]
    assert values(words, "--storage") == []


def test_a_training_is_kept_on_any_storage_and_a_sweep_in_a_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(STORAGE, "s3://bucket/distvae")
    assert values(complete_words("train", ["bars", "--workers", "2"]), "--storage") == [
        "s3://bucket/distvae/runs"
    ]
    with pytest.raises(
        Refusal, match="s3://bucket/distvae; a sweep needs a folder on a disk that all machines see"
    ):
        complete_words("tune", ["speech"])


@pytest.mark.parametrize("command", ["tune", "train"])
def test_without_a_storage_the_option_that_names_one_is_asked_for(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(STORAGE, raising=False)
    with pytest.raises(
        Refusal, match=r"DISTVAE_STORAGE: not set on the head; --(out|storage) expected"
    ):
        complete_words(command, ["bars"])


@pytest.mark.slow
@pytest.mark.parametrize("script", ["sweep.py", "train.py"])
def test_the_scripts_say_what_they_take_and_what_is_missing(script: str, tmp_path: Path) -> None:
    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        environment = os.environ | {
            "HOME": str(tmp_path),
            STORAGE: str(tmp_path),
            "PYTHONPATH": str(ROOT),
        }
        start = [sys.executable, str(ROOT / "cluster" / script)]
        return subprocess.run(
            [*start, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )

    help_run = run("--help")
    assert help_run.returncode == 0
    assert "--workers" in help_run.stdout
    assert "Traceback" not in help_run.stderr
    absent = run("tune_spaces/mine.yaml")
    assert absent.returncode == 2
    assert "tune_spaces/mine.yaml: not on the head" in absent.stderr
    copy = " ".join(absent.stderr.split()).partition(" with: ")[2].partition(" If an argument")[0]
    typed = subprocess.run(
        ["bash", "-c", f"printf '%s\n' {copy}"], capture_output=True, text=True, check=True
    )
    assert typed.stdout.split()[-2:] == [
        "tune_spaces/mine.yaml",
        "~/distvae-checkout/tune_spaces/mine.yaml",
    ]
    assert "Traceback" not in absent.stderr


@pytest.mark.slow
def test_away_from_a_cluster_a_sentence_says_what_is_missing(tmp_path: Path) -> None:
    """There is no checkout where `ray up` puts it, and no Ray where one is expected."""
    port = free_port()  # not that of a Ray which another test runs

    def run(folder: Path) -> "subprocess.CompletedProcess[str]":
        environment = os.environ | {
            "HOME": str(tmp_path),
            STORAGE: str(tmp_path),
            "PYTHONPATH": str(ROOT),
        }
        words = [sys.executable, str(ROOT / "cluster" / "sweep.py"), "demo"]
        environment |= {"RAY_ADDRESS": f"127.0.0.1:{port}", "RAY_TMPDIR": str(tmp_path)}
        return subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    reasons = {
        tmp_path: "distvae-checkout: no such folder",
        ROOT: "--address: auto: Token authentication is enabled but no authentication token",
    }
    for folder, reason in reasons.items():
        done = run(folder)
        assert done.returncode == 2
        assert re.search(reason, done.stderr)
        assert "Traceback" not in done.stderr
