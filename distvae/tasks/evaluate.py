"""Evaluation of a trained run into one folder: scores, pictures, and a resynthesised recording."""

from collections.abc import Collection
from itertools import chain
from pathlib import Path

from distvae.data.family import recordings_of
from distvae.files.paths import prepare_folder
from distvae.tasks import pictures
from distvae.tasks.drawing import DrawingProcess
from distvae.tasks.evaluation import TABLES, Evaluation
from distvae.tasks.resynthesis import resynthesise, run_coder, write_sound
from distvae.tasks.run_pictures import DRAWN, draw_model, draw_training, pictures_of
from distvae.tasks.scoring import recordings_of_split, score_run
from distvae.tasks.waiting import announce
from distvae.train.run import Run
from distvae.train.session import run_arithmetic

SOUNDS = ("original", "reconstruction")
"""A recording and its resynthesis."""


def evaluate(
    run: Run,
    target: Path | None = None,
    split: str = "test",
    force: bool = False,
    progress: bool = True,
    with_pictures: bool = True,
) -> Evaluation:
    """Score a run on a split, and write tables, sounds and pictures.

    The files go into `evaluation/SPLIT` of the run folder unless another folder is given.
    """
    folder = target or run.path / "evaluation" / split
    prepare_folder(folder, force)
    evaluation = _score_into(folder, run, split, progress)
    if with_pictures:
        announce("drawing pictures", progress)
        write_pictures(run, split, folder)
    return evaluation


def evaluate_while_drawing(
    run: Run, folder: Path, split: str, drawing: DrawingProcess, progress: bool = True
) -> Evaluation:
    """Evaluate a run; another process draws the pictures while this one scores."""
    prepare_folder(folder, force=True)
    drawn = []
    with run_arithmetic(run.info):
        # the largest picture first, because its contents are known already
        for name, picture in chain(draw_training(run), draw_model(run, split)):
            drawn.append(f"{name}.png")
            drawing.draw(picture, folder / drawn[-1])
    evaluation = _score_into(folder, run, split, progress, drawn)
    drawing.finish()
    return evaluation


def _remove_earlier(folder: Path, kept: Collection[str]) -> None:
    """Remove the files of an evaluation of another run or other data, except the files in `kept`. A
    folder without a summary holds no evaluation, and keeps all files.
    """
    if not (folder / "summary.json").exists():
        return
    written = {*TABLES, *(f"{name}.wav" for name in SOUNDS), *(f"{name}.png" for name in DRAWN)}
    for name in written.difference(kept):
        (folder / name).unlink(missing_ok=True)


def _score_into(
    folder: Path, run: Run, split: str, progress: bool, drawn: Collection[str] = ()
) -> Evaluation:
    """Score a run on a split, and write tables and sounds. Remove the files of an earlier
    evaluation, except the pictures that are drawn for this evaluation.
    """
    with run_arithmetic(run.info):
        evaluation = score_run(run, split, progress)
        _remove_earlier(folder, drawn)
        evaluation.save(folder)
        write_sounds(run, split, folder)
    return evaluation


def write_sounds(run: Run, split: str, folder: Path) -> None:
    """Write the first recording of a split and its resynthesis, if the data are recordings."""
    data = recordings_of(run.config.data)
    if data is None:
        return
    root, chosen = recordings_of_split(data, split)
    signal = data.load(root / chosen[0].file)
    result = resynthesise(run_coder(run, run.config.eval.latent), signal, data)
    for name, sound in zip(SOUNDS, (signal, result.signal), strict=True):
        write_sound(folder / f"{name}.wav", sound, data.rate)


def write_pictures(run: Run, split: str, folder: Path) -> None:
    """Draw the pictures of a run into a folder."""
    with run_arithmetic(run.info):
        for name, drawing in pictures_of(run, split):
            pictures.draw_now(drawing, folder / f"{name}.png")
