"""Processes that work beside a training: one records it in MLflow, one draws its pictures."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distvae.commands.options import RUNS

if TYPE_CHECKING:
    from distvae.tasks.drawing import DrawingProcess
    from distvae.track.process import SendingProcess


@dataclass(frozen=True)
class Helpers:
    """The processes beside a training. What one does is done here where it is None."""

    sending: "SendingProcess | None"
    drawing: "DrawingProcess | None"


@contextmanager
def helpers(folder: Path, recorded: bool, evaluated: bool) -> Iterator[Helpers]:
    """Start the processes that a training into a folder needs, and end them."""
    from distvae.tasks.drawing import drawing_process
    from distvae.track.process import sending_process

    with (
        sending_process(RUNS, folder, recorded) as sending,
        drawing_process(evaluated) as drawing,
    ):
        yield Helpers(sending, drawing)
