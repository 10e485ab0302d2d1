"""The data family that docs/extending.md shows works everywhere: in its own program, under the
laws, and in every command once its package names it as an entry point.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
LAWS = Path(__file__).parents[1] / "laws" / "data_laws.py"


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the program and the test of the page, installed as a package would be, after
    the program ran.
    """
    folder = tmp_path_factory.mktemp("letters")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (program,) = (block for block in blocks if "class LetterFamily" in block)
    (laws,) = (block for block in blocks if "test_letters_keep_the_law" in block)
    toml = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (points,) = (tomllib.loads(text) for text in toml if "letters" in text)
    (folder / "letters.py").write_text(program)
    (folder / "test_letters.py").write_text(laws)
    shutil.copy(LAWS, folder)
    package = folder / "letters-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: letters\nVersion: 1.0\n")
    ((group, modules),) = points["project"]["entry-points"].items()
    (package / "entry_points.txt").write_text(f"[{group}]\nletters = {modules['letters']}\n")
    printed = run(folder, "letters.py")
    (correct,) = re.findall(r"'probe_linear': ([\d.]+)", printed)
    assert float(correct) > 0.75
    return folder


def run(folder: Path, *words: str) -> str:
    """Run Python in a folder that it imports from; return what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != "DISTVAE_DATA"}
    environment |= {"DISTVAE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(folder), os.environ.get("PYTHONPATH")])
    )
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_family_of_another_package_keeps_the_laws(letters: Path) -> None:
    assert "10 passed" in run(letters, "-m", "pytest", "-p", "no:cacheprovider", "test_letters.py")


@pytest.mark.slow
def test_data_of_another_package_is_checked(letters: Path) -> None:
    found = json.loads(run(letters, "-m", "distvae", "data", "check", "texts", "--json"))
    assert found["kind"] == "letters"
    assert found["splits"]["val"]["lines"] > 100


@pytest.mark.slow
def test_data_of_another_package_is_trained_on_evaluated_and_encoded(letters: Path) -> None:
    words = ["mnist-vae", "data.kind=letters", "model.likelihood=gaussian", "train.epochs=1"]
    words += ["--data", "texts", "--out", "run", "--no-evaluate", "--quiet"]
    run(letters, "-m", "distvae", "train", *words)
    run(letters, "-m", "distvae", "evaluate", "run", "eval.metrics=[probe_linear]", "--quiet")
    summary = json.loads((letters / "run/evaluation/test/summary.json").read_text())
    assert "probe_linear" in json.dumps(summary)
    run(letters, "-m", "distvae", "encode", "run", "texts", "-o", "codes.parquet")

    import pyarrow.parquet as pq

    codes = pq.read_table(letters / "codes.parquet")
    assert {"split", "row", "label", "code"} <= set(codes.column_names)
