"""Weights & Biases: the figures of a run as files of its offline mode. Nothing is sent anywhere."""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from distvae.track.file_sink import FileSink

if TYPE_CHECKING:
    from wandb import Run


class WeightsAndBiases(FileSink):
    """Files in the folder `wandb` of a run, which `wandb sync` uploads. Each process writes some of
    its own, for one run in Weights & Biases.
    """

    name = "wandb"
    package = "wandb"
    _run: "Run | None" = None

    @property
    def run(self) -> "Run":
        """The open run."""
        if self._run is None:
            self._run = self._open()
        return self._run

    def _open(self) -> "Run":
        import wandb

        head = self.journal.head()
        identity = json.dumps([head["experiment"], head["name"], head["began"]])
        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        return wandb.init(
            mode="offline",
            dir=str(self.journal.folder),
            project=head["experiment"],
            name=head["name"],
            id=hashlib.sha256(identity.encode()).hexdigest()[:16],
            config=dict(head["params"]),
            resume="allow",
            reinit="create_new",
            settings=settings,
        )

    def write(self, figures: Mapping[str, float], epoch: int, when: float) -> None:
        """Write the figures of an epoch to the history, others to the summary."""
        if epoch:
            self.run.log(dict(figures), step=epoch)
        else:
            self.run.summary.update(figures)

    def flush(self) -> None:
        """Do nothing: a process of the package writes to the disk as it goes."""

    def close(self) -> None:
        """Close the run."""
        if self._run is not None:
            self._run.finish()
        self._run = None
