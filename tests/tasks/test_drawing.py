"""A process of its own draws the pictures of a training, as this one would have drawn them."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from distvae.files.refusal import Refusal
from distvae.tasks import pictures
from distvae.tasks.drawing import DrawingProcess, drawing_process
from distvae.tasks.evaluate import evaluate, evaluate_while_drawing
from distvae.train.run import Run
from tests.laws.test_imports import in_a_new_process

pytestmark = pytest.mark.slow
DRAWING = partial(pictures.grid, np.linspace(0, 1, 5 * 9).reshape(5, 3, 3, 1), "a")


@pytest.fixture
def process() -> Iterator[DrawingProcess]:
    with drawing_process(wanted=True) as started:
        assert started is not None
        yield started


def contents(folder: Path) -> dict[str, bytes]:
    """Return the contents of the files of a folder."""
    found = {}
    for path in folder.iterdir():
        is_picture = path.suffix == ".png"
        found[path.name] = imread(path).tobytes() if is_picture else path.read_bytes()
    return found


def test_an_evaluation_is_the_same_with_and_without_it(
    bars_run: Run, process: DrawingProcess, tmp_path: Path
) -> None:
    alone = evaluate(bars_run, tmp_path / "alone")
    both = evaluate_while_drawing(bars_run, tmp_path / "both", "test", process)
    assert alone == both
    assert contents(tmp_path / "alone") == contents(tmp_path / "both")
    assert "learning.png" in contents(tmp_path / "both")


def test_what_it_cannot_draw_is_drawn_or_refused_here(
    process: DrawingProcess, tmp_path: Path
) -> None:
    process.draw(DRAWING, tmp_path / "first.png")
    process.draw(DRAWING, tmp_path / "absent" / "second.png")
    process.draw(DRAWING, tmp_path / "third.png")
    with pytest.raises(Refusal, match=r"second\.png"):
        process.finish()
    assert (tmp_path / "first.png").exists()


def test_if_it_dies_pictures_are_drawn_here(process: DrawingProcess, tmp_path: Path) -> None:
    process.process.kill()
    process.process.wait()
    for name in ("first.png", "second.png"):
        process.draw(DRAWING, tmp_path / name)
    process.finish()
    assert {path.name for path in tmp_path.iterdir()} == {"first.png", "second.png"}


def test_if_it_cannot_read_what_is_asked_pictures_are_drawn_here(
    process: DrawingProcess, tmp_path: Path
) -> None:
    process.connection.send_bytes(b"no pickle")
    process.draw(DRAWING, tmp_path / "first.png")
    process.finish()
    assert (tmp_path / "first.png").exists()


def test_it_ends_when_the_training_is_killed(process: DrawingProcess) -> None:
    process.connection.close()
    assert process.process.wait(timeout=60) == 0


def test_it_imports_neither_torch_nor_pandas() -> None:
    code = "import sys; from distvae.tasks import drawing; drawing._import_early();"
    assert in_a_new_process(f"{code} print({{'torch', 'pandas'}} & set(sys.modules))") == "set()\n"
