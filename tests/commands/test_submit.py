"""The folder that a cluster is started from, and the command lines that it completes or refuses."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from distvae.cli.cluster import init
from distvae.cli.submit import STORAGE, Command, complete_words
from distvae.files.refusal import Refusal
from tests.ports import free_port

ROOT = Path(__file__).parents[2]


ADDED = "--address auto --wait 600"
LONG = f"model.hidden=[{'128,' * 99}128]"


@pytest.mark.parametrize(
    ("typed", "added"),
    [
        ("tune --trials 200 speech", "--resume --out /mnt/distvae/runs/speech-sweep"),
        (
            "tune --data /x tune_spaces/mine.yaml b.yaml",
            "--resume --out /mnt/distvae/runs/mine",
        ),
        ("tune --trials 200", "--resume --out /mnt/distvae/runs/sweep"),
        (f"tune {LONG} speech", "--resume --out /mnt/distvae/runs/speech-sweep"),
        ("tune speech --out=/x", "--resume"),
        ("tune speech -o/x", "--resume"),
        ("tune tune_spaces/speech.yaml --force", "--out /mnt/distvae/runs/speech-sweep"),
        ("train --workers 2 own/bars.yaml", "--resume --out /mnt/distvae/runs/bars"),
    ],
)
def test_results_are_kept_on_the_shared_disk_under_the_name_of_the_space_or_recipe(
    typed: str, added: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An output that the user names is kept, and a sweep that begins anew is not resumed."""
    monkeypatch.setenv(STORAGE, "/mnt/distvae")
    command, *words = typed.split()
    assert command in ("tune", "train")
    completed = complete_words("tune" if command == "tune" else "train", words)
    assert " ".join(completed) == f"{typed} {ADDED} {added}"


def test_trainings_and_sweeps_are_kept_in_a_bucket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(STORAGE, "s3://bucket/distvae")
    words = complete_words("train", ["bars", "--workers", "2"])
    assert words[words.index("--storage") + 1] == "s3://bucket/distvae/runs"
    words = complete_words("tune", ["speech"])
    assert words[words.index("--out") + 1] == "s3://bucket/distvae/runs/speech-sweep"
    monkeypatch.delenv(STORAGE)
    missing = r"DISTVAE_STORAGE: not set on the head; --(out|storage) expected"
    for command in get_args(Command):
        with pytest.raises(Refusal, match=missing):
            complete_words(command, ["bars"])


def test_a_folder_of_a_cluster_has_the_files_of_the_checkout_and_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    token = tmp_path / "home" / ".ray" / "distvae" / "auth_token"
    for _ in "ab":  # the same again
        init(tmp_path / "mine", force=False)
        made = token.read_text()
    assert re.fullmatch("[0-9a-f]{64}", made)
    assert (token.stat().st_mode & 0o777, token.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    init(tmp_path / "mine", force=True)
    assert token.read_text() == made
    files = [path for path in (tmp_path / "mine").rglob("*") if path.is_file()]
    written = {path.relative_to(tmp_path / "mine"): path.read_bytes() for path in files}
    assert written == {path: (ROOT / path).read_bytes() for path in written}
    assert {Path("requirements.lock"), Path("distvae/cli/submit.py")} < set(written)
    beside = {path.relative_to(ROOT) for path in (ROOT / "cluster").iterdir() if path.is_file()}
    assert {path for path in written if path.parts[0] == "cluster"} == beside
    own = tmp_path / "mine" / "cluster" / "aws.yaml"
    own.write_text("mine")
    with pytest.raises(Refusal, match=r"cluster/aws\.yaml"):
        init(tmp_path / "mine", force=False)
    assert own.read_text() == "mine"
    init(tmp_path / "mine", force=True)
    assert own.read_bytes() == (ROOT / "cluster" / "aws.yaml").read_bytes()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(Refusal, match=r"notes\.txt"):
        init(tmp_path / "other", force=False)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["notes.txt"]


def submitted(
    home: Path, folder: Path, script: str, *words: str, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run a script of a cluster in a folder, with an empty home that is the storage too."""
    environment = {"HOME": str(home), STORAGE: str(home), "PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(
        [sys.executable, str(ROOT / "cluster" / script), *words],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("script", ["sweep.py", "train.py"])
def test_the_scripts_say_what_they_take_and_what_is_missing(script: str, tmp_path: Path) -> None:
    help_run = submitted(tmp_path, ROOT, script, "--help")
    assert help_run.returncode == 0
    assert "--workers" in help_run.stdout
    assert "Traceback" not in help_run.stderr
    absent = submitted(tmp_path, ROOT, script, "tune_spaces/mine.yaml")
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
    address = f"127.0.0.1:{free_port()}"
    reasons = {
        tmp_path: "distvae-checkout: no such folder",
        ROOT: f"--address: {address}: nothing answers there",
    }
    for folder, reason in reasons.items():
        done = submitted(tmp_path, folder, "sweep.py", "demo", RAY_ADDRESS=address)
        assert done.returncode == 2
        assert re.search(reason, done.stderr)
        assert "Traceback" not in done.stderr
