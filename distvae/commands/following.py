"""Follow a training: show and record its epochs, evaluate its model, and complete its record."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from distvae.files.refusal import Refusal
from distvae.train.progress import Progress, Style

if TYPE_CHECKING:
    from distvae.tasks.drawing import DrawingProcess
    from distvae.tasks.evaluation import Evaluation
    from distvae.track import Tracker
    from distvae.train.epoch import Epoch


def follow(news: "Iterator[Epoch | str]", tracker: "Tracker | None", progress: Progress) -> None:
    """Show and record the epochs and messages of a training, and say if it ended early."""
    last = None
    with closed_on_failure(tracker, progress):
        try:
            for item in news:
                if isinstance(item, str):
                    progress.say(item)
                    continue
                progress.epoch(last := item)
                if tracker:
                    tracker.epoch(item)
        finally:
            progress.end()
    if last and last.epoch < last.epochs:
        rules = "train.patience, train.stop_at_noise or train.sigma"
        progress.say(f"ended early, after epoch {last.epoch} of {last.epochs} ({rules})")


@contextmanager
def closed_on_failure(tracker: "Tracker | None", progress: Progress) -> Iterator[None]:
    """Close the record of a training that fails or is interrupted.

    A training that is refused before its first epoch has no record yet; the folder may hold the
    record of an earlier run. A record that another training has taken over is left to that one.
    """
    from distvae.train.run_folder import TakenOver
    from distvae.train.stopping import Interrupted

    try:
        yield
    except BaseException as error:
        has_record = progress.has_shown or not isinstance(error, Refusal)
        if tracker and has_record and not isinstance(error, TakenOver):
            stopped = isinstance(error, (Interrupted, KeyboardInterrupt))
            tracker.close("KILLED" if stopped else "FAILED")
        raise


def exit_early(error: Exception, signal: int, folder: Path) -> None:
    """Exit from a training that did not reach its last epoch, and say where its state is."""
    text = str(error)
    if not text and (folder / "run.json").is_file():
        text = f"stopped; the state is in {folder}, --resume continues from it"
    elif not text:
        text = "stopped before the first epoch"
    print(f"distvae: {text}", file=sys.stderr)
    raise SystemExit(128 + signal if signal else 1)


def finish(
    folder: Path,
    tracker: "Tracker | None",
    progress: Progress,
    style: Style,
    judge: "Callable[[], Evaluation] | None",
) -> None:
    """Evaluate a trained run where wanted, and complete its record."""
    from distvae.commands.evaluate import print_judgement

    judgement = None
    with closed_on_failure(tracker, progress):
        if judge:
            judgement = judge()
        if tracker and judgement:
            tracker.figures(judgement.summary)
    if tracker:
        tracker.close()
        if tracker.complete:
            progress.say(f"recorded in MLflow; to view it: {tracker.viewer}")
    if judgement:
        print_judgement(judgement, style)


def evaluate_trained(folder: Path, drawing: "DrawingProcess | None", quiet: bool) -> "Evaluation":
    """Evaluate a run that was just trained, with pictures by another process if there is one."""
    from distvae.tasks.evaluate import evaluate, evaluate_while_drawing
    from distvae.train.run import Run

    run, target = Run.open(folder), judged_folder(folder)
    if drawing is None:
        return evaluate(run, target, force=True, progress=not quiet)
    return evaluate_while_drawing(run, target, "test", drawing, progress=not quiet)


def judged_folder(folder: Path) -> Path:
    """Return where the evaluation of a run on its test split is."""
    return folder / "evaluation" / "test"
