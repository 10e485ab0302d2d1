"""The wheel and the sdist have the right files, and work without the checkout in an environment
with only the required packages.
"""

import os
import shutil
import subprocess
import tarfile
import tomllib
import venv
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from distvae.files.program import PARTS
from tests.environments import link, needed_by

ROOT = Path(__file__).parents[1]
QUICK = ("--quiet", "--disable-pip-version-check", "--no-compile")
"""Options of pip: only a few of the modules are used."""

pytestmark = pytest.mark.slow


def run_outside(*command: str | Path, cwd: Path) -> str:
    """Run a command without access to the checkout, and return its output."""
    unrelated = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "DISTVAE", "MLFLOW"))
    }
    environment = unrelated | {"DISTVAE_CACHE": str(cwd / "cache"), "HOME": str(cwd)}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def new_environment(folder: Path) -> Path:
    """Make an environment with pip alone, and return the folder of its commands."""
    venv.create(folder, with_pip=True)
    return folder / "bin"


class Archives(NamedTuple):
    """The files of a release."""

    wheel: Path
    sdist: Path


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Archives:
    """Build the wheel and the sdist from a copy of the sources."""
    folder = tmp_path_factory.mktemp("archives")
    commands = new_environment(folder / "environment")
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    run_outside(commands / "pip", "install", *QUICK, *needed, cwd=folder)
    (folder / "sources" / "tests").mkdir(parents=True)
    for name in ("distvae", *PARTS, "MANIFEST.in", "tests/test_wheel.py"):
        if (ROOT / name).is_dir():
            kept = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / "sources" / name, ignore=kept)
        else:
            shutil.copy(ROOT / name, folder / "sources" / name)
    return Archives(*(build(commands, folder / "sources", kind) for kind in ("wheel", "sdist")))


def build(commands: Path, sources: Path, kind: str) -> Path:
    """Build an archive as pip does, and return its file."""
    out = sources.parent / f"{sources.name}-{kind}"
    out.mkdir()
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(out)!r}))"
    run_outside(commands / "python", "-c", code, cwd=sources)
    (archive,) = out.iterdir()
    return archive


@pytest.fixture(scope="module")
def empty(archives: Archives, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the commands of an environment with what `distvae[all]` needs, and nothing else."""
    commands = new_environment(tmp_path_factory.mktemp("empty") / "environment")
    (site,) = commands.parent.glob("lib/python*/site-packages")
    lines = metadata(archives.wheel).get_all("Requires-Dist", [])
    link(needed_by(lines, ("speech", "tune", "sklearn")), site)
    return commands


@pytest.fixture(scope="module")
def installed(empty: Path, archives: Archives, request: pytest.FixtureRequest) -> Path:
    """Return the commands of the environment with the package from the wheel, or from the sdist,
    which installs the same.
    """
    archive = getattr(archives, getattr(request, "param", "wheel"))
    replace = ("install", *QUICK, "--force-reinstall", "--no-deps", archive)
    run_outside(empty / "pip", *replace, cwd=archive.parent)
    return empty


def test_the_wheel_has_every_file_of_the_package_and_what_a_checkout_has_beside_it(
    archives: Archives,
) -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for part in ("distvae", *PARTS)
        for path in (ROOT / part, *(ROOT / part).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    wanted = {name if name.startswith("distvae/") else f"distvae/checkout/{name}" for name in files}
    assert members(archives.wheel) == wanted
    with tarfile.open(archives.sdist) as sdist:
        places = [name.partition("/")[2] for name in sdist.getnames()]
    assert "distvae/__init__.py" in places
    assert not [place for place in places if place.startswith("tests")], "they need a checkout"


def metadata(wheel: Path) -> Message:
    """Return the metadata of a wheel."""
    archive = ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    return message_from_bytes(archive.read(name))


def members(wheel: Path) -> set[str]:
    """The files of a wheel that are installed for the package."""
    return {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}


@pytest.mark.parametrize("installed", Archives._fields, indirect=True)
def test_wheel_and_sdist_install_the_same(installed: Path, archives: Archives) -> None:
    (package,) = installed.parent.glob("lib/python*/site-packages/distvae")
    with ZipFile(archives.wheel) as wheel:
        for name in members(archives.wheel):
            assert (package.parent / name).read_bytes() == wheel.read(name)


def test_the_folder_of_a_cluster_is_a_checkout(
    installed: Path, archives: Archives, tmp_path: Path
) -> None:
    run_outside(installed / "distvae", "cluster", "init", "mine", cwd=tmp_path)
    sources = archives.wheel.parents[1] / "sources"
    for part in PARTS:
        for path in (sources / part, *(sources / part).rglob("*")):
            if path.is_file():
                written = tmp_path / "mine" / path.relative_to(sources)
                assert written.read_bytes() == path.read_bytes()
    wheel = build(archives.wheel.parents[1] / "environment" / "bin", tmp_path / "mine", "wheel")
    assert members(wheel) == members(archives.wheel)


def test_the_demo_is_swept_and_a_picture_is_restored(installed: Path, tmp_path: Path) -> None:
    code = "import distvae; print(distvae.__file__)"
    imported = run_outside(installed / "python", "-c", code, cwd=tmp_path)
    assert Path(imported).is_relative_to(installed.parent)
    demo = ("tune", "demo", "--trials", "2", "train.epochs=1")
    run_outside(installed / "distvae", *demo, cwd=tmp_path)
    assert "Sweep demo" in (tmp_path / "runs" / "demo" / "report.html").read_text()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noisy.png")
    restore = ("denoise", "noisy.png", "clean.png", "train.epochs=1")
    run_outside(installed / "distvae", *restore, cwd=tmp_path)
    with Image.open(tmp_path / "clean.png") as restored:
        assert restored.size == (24, 24)
