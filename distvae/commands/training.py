"""A training that `distvae train` starts: options, settings, data, folder and workers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distvae.commands.options import AsJson, Data, Force, Quiet, progress_style
from distvae.train.progress import Style

if TYPE_CHECKING:
    from distvae.config import Config
    from distvae.data.dataset import Dataset
    from distvae.files.storage import Folder
    from distvae.machines.worker_group import WorkerGroup
    from distvae.train.epoch import Epoch
    from distvae.train.team import Team


@dataclass(frozen=True)
class TrainOptions:
    """The options of `distvae train`."""

    data: Data = None
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder of the run; default runs/RECIPE.")
    ] = None
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in that folder.")] = False
    seed: Annotated[int | None, typer.Option(help="Shorthand for train.seed=N.")] = None
    force: Force = False
    quiet: Quiet = False
    json: AsJson = False
    evaluate: Annotated[
        bool, typer.Option(help="Evaluate the trained model on the test split.")
    ] = True
    track: Annotated[bool, typer.Option(help="Record the run in MLflow.")] = True
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Keep the run on storage that all machines share: a path or s3://bucket/runs.",
        ),
    ] = None
    previous: Annotated[
        bool,
        typer.Option(
            "--previous",
            help="Resume from the checkpoint before the last one, if the last one is damaged.",
        ),
    ] = False

    @property
    def resumes(self) -> bool:
        """Return whether an earlier run in the folder is to be resumed."""
        return self.resume or self.previous

    @property
    def style(self) -> Style:
        """Return how progress is reported."""
        return progress_style(self.quiet, self.json)


@dataclass(frozen=True)
class Training:
    """A training that is about to start: its settings, its data, its folder and its workers."""

    config: "Config"
    recipe: str
    dataset: "Dataset"
    folder: "Folder"
    """Keeps the state; its place may be remote."""
    group: "WorkerGroup | None"
    team: "Team"
    options: TrainOptions

    @property
    def run(self) -> "tuple[Config, Dataset, Folder, str, bool, bool]":
        """Return what the folder of the run is opened with."""
        resume, force = self.options.resumes, self.options.force
        return self.config, self.dataset, self.folder, self.recipe, resume, force

    def check_folder(self) -> None:
        """Refuse a folder in which the run can neither start nor resume. Change nothing."""
        from distvae.train.run_folder import check_run_folder

        check_run_folder(*self.run)

    def epochs(self, stop: Callable[[], object]) -> "Iterator[Epoch | str]":
        """Train, here or in workers under Ray, and yield epochs and messages as they come."""
        from distvae.machines import driver
        from distvae.train.run_folder import open_folder
        from distvae.train.session import fit

        config, dataset, folder, recipe, resume, force = self.run
        if self.group is None:
            return fit(
                config,
                dataset,
                folder,
                recipe=recipe,
                resume=resume,
                force=force,
                stop=stop,
                team=self.team,
            )
        group = driver.limit_to_rows(config, len(dataset.splits["train"]), self.group)
        open_run = partial(open_folder, *self.run)
        return driver.train_with_workers(config, recipe, folder, group, stop, open_run)
