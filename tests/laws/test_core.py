"""`pip install distvae` alone: its packages, the features that work with it, and messages that name
the missing extra.

The environment holds the installed packages that the core requires, and no other package.
"""

import subprocess
import sys
import tomllib
from importlib.metadata import Distribution
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.environments import link, needed_by

ROOT = Path(__file__).parents[2]
MEGABYTES, PACKAGES = 550, 35
"""The packages that the core may install besides torch and torch's requirements."""


def requirements(*extras: str) -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    return [*project["dependencies"], *(text for extra in extras for text in optional[extra])]


def size(of: Distribution) -> int:
    """The bytes of a distribution's files, without compiled ones, which pip makes."""
    files = [Path(str(file.locate())) for file in of.files or ()]
    return sum(file.stat().st_size for file in files if file.suffix != ".pyc" and file.exists())


def environment(folder: Path, *extras: str) -> Path:
    """Return a folder with the packages of the core, of some extras, and with this package."""
    folder.mkdir()
    (folder / "distvae").symlink_to(ROOT / "distvae")
    link(needed_by(requirements(*extras)), folder)
    return folder


def run(packages: Path, place: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in a folder with these packages alone."""
    return subprocess.run(
        [sys.executable, "-S", *words],
        cwd=place,
        env={"PYTHONPATH": str(packages), "HOME": str(place), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


PROGRAM = """
import sys
from distvae.cli import main
code, *commands = sys.argv[1:]
for words in commands:
    sys.argv = ["distvae", *words.split()]
    try:
        main()
    except SystemExit as end:
        assert end.code == int(code), words
"""
"""Runs several commands in one process, as torch is slow to import."""


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("core") / "packages")


def test_the_core_is_small() -> None:
    found = needed_by(requirements())
    besides = {name: found[name] for name in found.keys() - needed_by(["torch"]).keys()}
    assert len(besides) <= PACKAGES, sorted(besides)
    assert sum(map(size, besides.values())) < MEGABYTES * 1e6
    heavy = {"ray", "mlflow", "optuna", "librosa", "pandas", "scikit-learn", "scipy"}
    assert not heavy & besides.keys()


@pytest.mark.slow
def test_the_core_denoises_trains_and_encodes(core: Path, tmp_path: Path) -> None:
    shades = np.random.default_rng(0).integers(90, 160, (24, 24), np.uint8)
    Image.fromarray(shades).save(tmp_path / "noisy.png")
    np.save(tmp_path / "rows.npy", np.random.default_rng(1).normal(size=(300, 6)))
    commands = (
        "denoise noisy.png",
        "train bars --out binary data.rows=60 train.epochs=1",
        "ingest rows.npy rows",
        "train mnist-vae data.kind=rows model.likelihood=gaussian estep.input=standard"
        " --data rows --out run train.epochs=1",
        "encode run rows -o codes.parquet",
        "show run",
    )
    done = run(core, tmp_path, "-c", PROGRAM, "0", *commands)
    assert done.returncode == 0, done.stderr
    assert "the package mlflow is not installed" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} >= {"binary", "run", "codes.parquet"}


@pytest.mark.slow
def test_a_missing_extra_is_named_before_anything_else_is_done(core: Path, tmp_path: Path) -> None:
    table = {
        f"tune {ROOT / 'tune_spaces' / 'demo.yaml'}": ("ray", "tune"),
        "train bars --workers 2": ("ray", "tune"),
        "ui": ("mlflow", "tune"),
        "runs": ("mlflow", "tune"),
        "doctor": ("ray", "tune"),
        "train speech-sdm": ("librosa", "speech"),
        "train mnist-vae eval.metrics=[probe_linear]": ("sklearn", "sklearn"),
    }
    done = run(core, tmp_path, "-c", PROGRAM, "2", *table)
    assert done.returncode == 0, done.stderr
    for line, (package, extra) in zip(done.stderr.splitlines(), table.values(), strict=True):
        advice = f"pip install 'distvae[{extra}]' expected"
        assert line.endswith(f"needs the package {package}; {advice}")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_estimators_need_scikit_learn_alone(core: Path, tmp_path: Path) -> None:
    program = (
        "import numpy as np, distvae\n"
        "rows = np.random.default_rng(0).normal(size=(60, 5))\n"
        "model = distvae.VAE(latent=2, epochs=1, random_state=0).fit(rows)\n"
        "assert model.transform(rows).shape == (60, 2)\n"
    )
    wanted = "ImportError: an estimator needs the package sklearn; pip install 'distvae[sklearn]'"
    assert wanted in run(core, tmp_path, "-c", program).stderr
    done = run(environment(tmp_path / "packages", "sklearn"), tmp_path, "-c", program)
    assert done.returncode == 0, done.stderr
