"""What `distvae data check` says to do next works as it is printed, in a shell."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

from tests.data.test_idx import encode

pytestmark = pytest.mark.slow
CHANCE = np.random.default_rng(0)
BRIEF = "train.epochs=1 train.device=cpu"


def recordings(folder: Path) -> None:
    for speaker in range(12):
        noise = 0.1 * CHANCE.standard_normal(16000)
        soundfile.write(folder / f"spk{speaker}_a b.wav", noise, 16000)


def pictures(folder: Path, *sides: int) -> None:
    for k, side in enumerate(sides):
        pixels = CHANCE.integers(0, 256, (side, side + 2, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")


def archive(folder: Path) -> None:
    images = CHANCE.integers(0, 256, (40, 6, 6), np.uint8)
    np.savez(folder / "a.npz", x_train=images, x_test=images[:8])


def idx(folder: Path) -> None:
    for name, count in (("train", 40), ("t10k", 8)):
        images = CHANCE.integers(0, 256, (count, 6, 6), np.uint8)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(encode(images))


def table(folder: Path) -> pd.DataFrame:
    return pd.DataFrame(100 * CHANCE.normal(size=(200, 3)), columns=["a", "b", "c"])


DATA: dict[str, Callable[[Path], object]] = {
    "": recordings,
    r"'data.speakers=pattern:(spk\d+)_'": recordings,
    "of one size": lambda folder: pictures(folder, *[8] * 30),
    "of several sizes": lambda folder: pictures(folder, *[8] * 20, *range(9, 19)),
    "large": lambda folder: pictures(folder, *[200] * 12),
    "a.npz": archive,
    "idx": idx,
    "a.npy": lambda folder: np.save(folder / "a.npy", table(folder)),
    "a.parquet": lambda folder: table(folder).to_parquet(folder / "a.parquet", index=False),
    "a.feather": lambda folder: table(folder).to_feather(folder / "a.feather"),
    "0.png": lambda folder: pictures(folder, 24),
    "spk0_a b.wav": recordings,
}


LONG = ("", "of one size", "of several sizes", "large", "idx", "a.npy", "a.feather", "0.png")
"""Cases whose commands are like those of another one."""


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.long if case in LONG else []) for case in DATA]
)
def test_every_next_command_works_as_printed(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("DISTVAE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "my data"
    folder.mkdir()
    DATA[case](folder)
    path, settings = (folder, case) if case.startswith("'") else (folder / case, "")
    if not path.exists():
        path = folder
    done: list[str] = []
    todo = f"data check '{path}' {settings}"
    while not done or done[-1].split()[0] in ("data", "ingest"):
        ran = subprocess.run(
            ["bash", "-c", f"distvae {todo}"], capture_output=True, text=True, check=False
        )
        done.append(todo)
        expected = (0, 1) if path == folder and not settings else (0,)
        assert ran.returncode in expected, f"distvae {todo}: {ran.stderr}"
        if todo.startswith("data"):
            todo = ran.stdout.splitlines()[-1].split("distvae ", 1)[1]
            todo += f" {BRIEF}" if not todo.startswith("ingest") else ""
        elif todo.startswith("ingest"):
            todo = "data check rows"
    assert done[-1].split()[0] in ("train", "denoise")
