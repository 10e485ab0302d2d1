"""The commands of the first pages run as they are written, on small files of the names in them.

Trainings are cut to one epoch and sweeps to one trial.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
FILES = {"FOLDER": "recordings", "PATH": "pictures", "TABLE": "table.csv"}
"""The files that stand for the words in capitals."""
SMALL = {"train": ["train.epochs=1", "--force"], "tune": ["--trials", "1", "train.epochs=1"]}
ENDLESS = {"ui"}
ELSEWHERE = ("--address", "hf://", "mnist-vae", "house-50", "push", "theirs", "@demo")
"""Parts of commands that need a cluster, another machine, a corpus or another page's run."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder with the files that the pages name."""
    rng = np.random.default_rng(0)
    for name in ("pictures", "photos"):
        (tmp_path / name).mkdir()
        for number in range(8):
            pixels = rng.integers(0, 256, (24, 24), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    for name in ("noisy.png", "scratched.png", "scan.tif", "photons.tif", "scan.jpg"):
        Image.fromarray(pixels).save(tmp_path / name)
    Image.fromarray((rng.random((24, 24)) < 0.1).astype(np.uint8) * 255).save(
        tmp_path / "scratches.png"
    )
    pages = [Image.fromarray(pixels) for _ in range(4)]
    pages[0].save(tmp_path / "cells.ome.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "recordings").mkdir()
    time = np.arange(16_000) / 16_000
    for path in (*(f"recordings/{number}.wav" for number in range(8)), "in.wav", "hiss.wav"):
        tone = np.sin(2 * np.pi * rng.integers(200, 600) * time) + 0.1 * rng.normal(size=16_000)
        wavfile.write(tmp_path / path, 16_000, (8_000 * tone).astype(np.int16))
    np.savetxt(tmp_path / "table.csv", rng.normal(size=(64, 5)), delimiter=",", header="a,b,c,d,e")
    return tmp_path


def commands(page: str) -> Iterator[list[str]]:
    """Yield the words of the commands in the table and in the shell blocks of a page."""
    text = (ROOT / page).read_text()
    lines = re.findall(r"`(distvae \w+ [^`]+)`", text) if page == "README.md" else []
    for block in re.findall(r"```(?:sh|console|bash)\n(.*?)```", text, re.DOTALL):
        lines += [line for line in block.splitlines() if line.startswith("distvae ")]
    for line in lines:
        _, command, *words = shlex.split(line, comments=True)
        if command not in ENDLESS and not any(part in line for part in ELSEWHERE):
            yield [command, *words]


@pytest.mark.parametrize("page", ["README.md", "docs/restore.md", "docs/sweeps.md"])
def test_the_commands_of_a_page_and_those_they_advise_run(page: str, home: Path) -> None:
    for command, *words in commands(page):
        words = [FILES.get(word, word).replace("~", str(home)) for word in words]
        output = run(home, command, *words, *SMALL.get(command, []))
        for advised in re.findall(r"^next: +distvae (.+)", output, re.MULTILINE):
            run(home, *shlex.split(advised), *SMALL.get(advised.split()[0], []))


def run(home: Path, *words: str) -> str:
    """Run a command in its home folder, and return its output."""
    environment = {name: value for name, value in os.environ.items() if name != "DISTVAE_DATA"}
    environment |= {"HOME": str(home), "DISTVAE_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "distvae", *words],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout
