"""Save the states of a run, from which it resumes."""

import time
from collections.abc import Callable, Iterable

from distvae.estep.store import PopulationFile
from distvae.files.refusal import Refusal
from distvae.files.storage import Folder
from distvae.interface import Persistent
from distvae.train import checkpoint
from distvae.train.documents import CheckpointFacts
from distvae.train.epoch import Epoch
from distvae.train.loop import Trainer
from distvae.train.run_folder import check_ownership

SEEN_WITHIN = 10.0
"""Seconds within which other machines must see a file after it was written."""


class Savings:
    """Saves the state of a run after epochs, with little overhead.

    Epochs that a crash loses are trained again, with the same result.
    """

    share = 0.05
    """The maximum share of the time that saving takes."""
    pause = 2.0
    """The minimum seconds between two saves."""

    def __init__(self, folder: Folder, trainer: Trainer, owner: str) -> None:
        self.folder, self.trainer, self.owner = folder, trainer, owner
        self.due = 0.0

    def after(self, epoch: Epoch, every: int = 0) -> None:
        """Save after the last epoch, after every `every`-th epoch, or if a save is due."""
        over = self.trainer.ending.is_reached(self.trainer.position)
        over = over or bool(every and epoch.epoch % every == 0)
        if over or self.trainer.team.gather(time.monotonic() >= self.due)[0]:
            self.save()

    def save(self) -> None:
        """Save the populations first, then the checkpoint that names them."""
        began, trainer, team = time.monotonic(), self.trainer, self.trainer.team
        tensors, position = trainer.state()
        team.barrier()  # worker 0 may still be deleting files that no checkpoint names
        generation = f"{position['epoch']:05}-{position['batch']:05}"
        files = []
        if isinstance(trainer.estep, Persistent):
            files = trainer.estep.save(self.folder.place, generation)
        saved = team.gather(files)
        if team.rank == 0:
            check_ownership(self.folder, self.owner)
            populations = [kept for worker in saved for kept in worker]
            _refuse_unseen(self.folder, populations)
            facts: CheckpointFacts = {
                "position": position,
                "populations": populations,
                "arithmetic": trainer.arithmetic.facts(),
            }
            checkpoint.save_last(self.folder, tensors, facts)
        now = time.monotonic()
        self.due = now + max(self.pause, (now - began) / self.share)


def _refuse_unseen(folder: Folder, populations: Iterable[PopulationFile]) -> None:
    """Refuse files that another worker saved but this worker cannot see. A checkpoint that names
    them could not be read.
    """
    deadline = time.monotonic() + SEEN_WITHIN
    for kept in populations:
        while folder.size(kept["file"]) != kept["bytes"]:
            if time.monotonic() > deadline:
                raise Refusal(
                    f"{folder}: {kept['file']} is not there, though another worker saved it; a"
                    " storage that all machines see expected (is it mounted on each of them?)"
                )
            time.sleep(0.1)


def save_when_asked(
    savings: Savings, must_save: Callable[[], bool], stop: Callable[[], object]
) -> Callable[[], object]:
    """Return a `stop` function for the trainer that also saves the state if `must_save()`."""

    def save_and_ask() -> object:
        if must_save():
            savings.save()
        return stop()

    return save_and_ask
