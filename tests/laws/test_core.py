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


def run(packages: Path, *words: str, place: Path) -> "subprocess.CompletedProcess[str]":
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


def distvae(packages: Path, *words: str, place: Path) -> "subprocess.CompletedProcess[str]":
    return run(packages, "-m", "distvae", *words, place=place)


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
    quick = ("data.rows=60", "train.epochs=1")
    gaussian = ("data.kind=rows", "model.likelihood=gaussian", "estep.input=standard")
    for words in (
        ("denoise", "noisy.png"),
        ("train", "bars", "--out", "binary", *quick),
        ("ingest", "rows.npy", "rows"),
        ("train", "mnist-vae", *gaussian, "--data", "rows", "--out", "run", "train.epochs=1"),
        ("encode", "run", "rows", "-o", "codes.parquet"),
        ("show", "run"),
    ):
        done = distvae(core, *words, place=tmp_path)
        assert done.returncode == 0, (words, done.stderr)
    assert (
        "the package mlflow is not installed"
        in distvae(core, "train", "bars", "--out", "again", *quick, place=tmp_path).stderr
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "package", "extra"),
    [
        (("tune", str(ROOT / "tune_spaces" / "demo.yaml")), "ray", "tune"),
        (("train", "bars", "--workers", "2"), "ray", "tune"),
        (("ui",), "mlflow", "tune"),
        (("runs",), "mlflow", "tune"),
        (("doctor",), "ray", "tune"),
        (("train", "speech-sdm"), "librosa", "speech"),
        (("train", "mnist-vae", "eval.metrics=[probe_linear]"), "sklearn", "sklearn"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",
)
def test_a_missing_extra_is_named_before_anything_else_is_done(
    core: Path, words: tuple[str, ...], package: str, extra: str, tmp_path: Path
) -> None:
    done = distvae(core, *words, place=tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.endswith(f"needs the package {package}; pip install 'distvae[{extra}]' expected")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_estimators_need_scikit_learn_alone(core: Path, tmp_path: Path) -> None:
    program = (
        "import numpy as np, distvae\n"
        "rows = np.random.default_rng(0).normal(size=(60, 5))\n"
        "model = distvae.VAE(latent=2, epochs=1, random_state=0).fit(rows)\n"
        "assert model.transform(rows).shape == (60, 2)\n"
    )
    done = run(core, "-c", program, place=tmp_path)
    assert (
        "ImportError: an estimator needs the package sklearn; pip install 'distvae[sklearn]'"
        in (done.stderr)
    )
    packages = environment(tmp_path / "packages", "sklearn")
    done = run(packages, "-c", program, place=tmp_path)
    assert done.returncode == 0, done.stderr
