"""The wheel has the right files, and works in an empty environment without the checkout."""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
SOURCES = ("distvae", "tune_spaces", "setup.py", "pyproject.toml", "README.md", "LICENSE")

pytestmark = pytest.mark.slow


def run_outside(*command: str | Path, cwd: Path) -> str:
    """Run a command without access to the checkout, and return what it printed."""
    unrelated = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "DISTVAE", "MLFLOW"))
    }
    environment = unrelated | {"DISTVAE_CACHE": str(cwd / "cache")}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of its sources, as `pip install` does."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, folder / "sources" / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, folder / "sources" / name)
    run_outside(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        ".",
        "./sources",
        cwd=folder,
    )
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def empty(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the commands of an environment with only the wheel and its locked requirements."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder / "environment", with_pip=True)
    commands = folder / "environment" / "bin"
    # Only a few of the modules are used.
    quick = (
        "--quiet",
        "--disable-pip-version-check",
        "--no-compile",
    )
    install = (commands / "pip", "install", *quick, "-c", ROOT / "requirements.lock")
    # Installed first, so that pip finds the pinned torch.
    run_outside(*install, "torch", "numpy", cwd=folder)
    run_outside(*install, wheel, cwd=folder)
    yield commands
    shutil.rmtree(folder)  # two gigabytes


def test_the_wheel_has_every_file_of_the_package_and_every_space(wheel: Path) -> None:
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "distvae").rglob("*")
        if path.is_file()
    }
    wanted = {name for name in package if "__pycache__" not in name}
    wanted |= {f"distvae/spaces/{path.name}" for path in (ROOT / "tune_spaces").iterdir()}
    assert {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name} == wanted


def test_what_is_installed_sweeps_and_restores(empty: Path, tmp_path: Path) -> None:
    imported = run_outside(
        empty / "python", "-c", "import distvae; print(distvae.__file__)", cwd=tmp_path
    )
    assert Path(imported).is_relative_to(empty.parent)
    named = {
        line.split()[0]
        for line in run_outside(empty / "distvae", "spaces", cwd=tmp_path).splitlines()
    }
    assert named == {path.stem for path in (ROOT / "tune_spaces").glob("*.yaml")}
    run_outside(empty / "distvae", "tune", "demo", "--trials", "2", "train.epochs=1", cwd=tmp_path)
    assert "best" in (tmp_path / "runs" / "demo" / "report.html").read_text()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noisy.png")
    run_outside(
        empty / "distvae", "denoise", "noisy.png", "clean.png", "train.epochs=1", cwd=tmp_path
    )
    with Image.open(tmp_path / "clean.png") as restored:
        assert restored.size == (24, 24)
