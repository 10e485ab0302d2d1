"""The wheel that travels with a model: pip installs it, and it imports without the checkout."""

import base64
import csv
import hashlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from distvae.share.wheel import build_wheel, write_wheel
from tests.laws.test_imports import PACKAGE

ROOT = PACKAGE.parent


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a model with the wheel and its requirements."""
    folder = tmp_path_factory.mktemp("model")
    write_wheel(folder)
    return folder


def run_python(*words: str | Path, path: str = "") -> str:
    """Run Python away from the checkout, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *words],
        cwd="/",
        env={**environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_pip_finds_it_through_the_requirements_and_it_imports(model: Path, tmp_path: Path) -> None:
    only_here = ("--quiet", "--no-index", "--no-deps", "--disable-pip-version-check")
    lines = (model / "requirements.txt").read_text().splitlines(keepends=True)
    (model / "first.txt").write_text("".join(lines[:2]))
    run_python("-m", "pip", "install", *only_here, "--target", tmp_path, "-r", model / "first.txt")
    code = (
        "import distvae; from distvae.files.checkout import CITATION, SPACES;"
        " print(distvae.__file__, distvae.__version__, CITATION.is_file(), SPACES.is_dir())"
    )
    expected = f"{tmp_path}/distvae/__init__.py {build_wheel().version} True True"
    assert run_python("-c", code, path=str(tmp_path)).strip() == expected


def test_it_lists_each_file_with_its_checksum() -> None:
    archive = ZipFile(io.BytesIO(build_wheel().content))
    (record,) = [name for name in archive.namelist() if name.endswith("/RECORD")]
    listed = {row[0]: row[1:] for row in csv.reader(archive.read(record).decode().splitlines())}
    assert listed.keys() == set(archive.namelist())
    for name, (checksum, size) in listed.items():
        if name != record:
            content = archive.read(name)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode()
            assert checksum == f"sha256={digest.rstrip('=')}"
            assert int(size) == len(content)


def test_equal_files_make_an_equal_wheel() -> None:
    assert build_wheel.__wrapped__() == build_wheel()


def test_each_requirement_is_locked_or_lies_beside_it(model: Path) -> None:
    lock = (ROOT / "requirements.lock").read_text().lower().splitlines()
    option, own, *others = (model / "requirements.txt").read_text().splitlines()
    assert option == "--find-links wheels"
    (wheel,) = (model / "wheels").iterdir()
    assert own.replace("==", "-") == wheel.name.removesuffix("-py3-none-any.whl")
    for line in others:
        plain = re.sub(r"\[.*\]", "", line).lower()
        assert plain in lock or plain.replace("-", "_") in lock
