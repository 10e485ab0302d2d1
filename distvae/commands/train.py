"""`distvae train`: train a model into a run folder, record it in MLflow, and evaluate it."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from distvae.commands.configuration import configure_for, naming_a_command
from distvae.commands.following import evaluate_trained, exit_early, finish, follow
from distvae.commands.options import RUNS, WorkerOptions
from distvae.commands.stretching import suggest_batch
from distvae.commands.training import Training, TrainOptions
from distvae.config.recipes import STORED, recipe_path
from distvae.files.memory import collect_from_now_on, collecting_later
from distvae.files.output import check_writable_folder
from distvae.train.progress import Progress, Style, stop_signals

if TYPE_CHECKING:
    from distvae.config import Config
    from distvae.data.dataset import Dataset
    from distvae.files.storage import Folder
    from distvae.machines.worker_group import WorkerGroup
    from distvae.tasks.drawing import DrawingProcess
    from distvae.track import Tracker
    from distvae.train.team import Team


def train_recipe(
    recipe: str, assignments: list[str], options: TrainOptions, workers: WorkerOptions
) -> None:
    """Train a recipe into a run folder, record the run, and evaluate it."""
    from distvae.tasks.drawing import drawing_process

    config = configure_for(recipe, assignments, options.data, options.seed)
    group = workers.group()
    name = run_name(recipe)
    local = options.out or default_folder(recipe, name, options.resumes)
    check_writable_folder(local)
    is_first = os.environ.get("RANK", "0") == "0"
    with collecting_later(), drawing_process(options.evaluate and is_first) as drawing:
        train_configured(config, name, local, options, group, drawing)


def train_configured(
    config: "Config",
    name: str,
    local: Path,
    options: TrainOptions,
    group: "WorkerGroup | None",
    drawing: "DrawingProcess | None",
) -> None:
    """Train into a run folder, record the run and evaluate it, maybe with a process that draws."""
    from distvae.machines.worker_group import refuse_hidden_gpus
    from distvae.train.devices import select_device
    from distvae.train.team import ALONE, join_team

    refuse_hidden_gpus("--gpus-per-worker", group.gpus if group else None, config.train.device)
    # Workers under Ray choose their own devices.
    team = ALONE if group else join_team(select_device(config.train.device))
    is_chief = team.rank == 0
    style: Style = options.style if is_chief else "quiet"
    with naming_a_command(lambda: config.data, options.data):
        dataset = open_once(config, team, quiet=style != "line")
    config = config.with_("data", path=dataset.origin)
    check_feasible(config, dataset, group, team, options)
    progress = Progress(style, dataset.unit)
    folder = state_folder_in_turn(local, options, team)
    if options.previous and is_chief:
        go_back(folder, progress)
    training = Training(config, name, dataset, folder, group, team, options)
    if team.size == 1:
        training.check_folder()
    announce(training, local, progress)
    carry_out(training, local, drawing, progress)


def carry_out(
    training: Training, local: Path, drawing: "DrawingProcess | None", progress: Progress
) -> None:
    """Train, record the run and evaluate it."""
    from distvae.train.cost import memory_refused
    from distvae.train.local_copy import update_local_copy
    from distvae.train.stopping import Diverged, Interrupted
    from distvae.train.team import WorkerLost

    options, is_chief = training.options, training.team.rank == 0
    tracker = open_tracker(training, local) if options.track and is_chief else None
    with memory_refused(training.config, training.recipe), stop_signals() as stop:
        try:
            news = training.epochs(stop)
            collect_from_now_on()
            follow(news, tracker, progress)
        except (Interrupted, Diverged, WorkerLost) as error:
            exit_early(error, stop(), local)
        finally:
            if is_chief:
                update_local_copy(training.folder, local)
            training.team.close()
    if is_chief:
        judge = partial(evaluate_trained, local, drawing, options.style != "line")
        finish(local, tracker, progress, options.style, judge if options.evaluate else None)


def open_tracker(training: Training, local: Path) -> "Tracker":
    """Return the tracker of a run."""
    from distvae.track import Tracker

    tracker = Tracker.open(training.config, training.recipe, local, training.recipe)
    tracker.state = training.folder
    return tracker


def run_name(recipe: str) -> str:
    """Return the name of a run: its recipe's, or that of the run whose settings are the recipe."""
    folder = folder_of_settings(recipe)
    if folder is None:
        return Path(recipe).stem
    from distvae.train.run import read_info

    return str(read_info(folder)["recipe"]) or folder.name


def default_folder(recipe: str, name: str, resumes: bool) -> Path:
    """Return the folder to train into: that of the run that a recipe names, if it is resumed."""
    folder = folder_of_settings(recipe) if resumes else None
    return folder or RUNS / name


def folder_of_settings(recipe: str) -> Path | None:
    """Return the folder of the run whose settings a recipe is, or None."""
    path = recipe_path(recipe)
    return path.parent if path.name == STORED and (path.parent / "run.json").is_file() else None


def open_once(config: "Config", team: "Team", quiet: bool) -> "Dataset":
    """Open the data; one worker of a team prepares it, and the others then find it prepared."""
    from distvae.data import open_dataset

    if team.rank > 0:
        team.barrier()
    dataset = open_dataset(config.data, quiet=quiet)
    if team.rank == 0:
        team.barrier()
    return dataset


def state_folder_in_turn(local: Path, options: TrainOptions, team: "Team") -> "Folder":
    """Return the folder of the state. The first worker deletes what is replaced, then the first of
    each other machine does, if that has a folder of its own.
    """
    from distvae.train.local_copy import state_folder

    is_first_here = os.environ.get("LOCAL_RANK", "0") == "0"
    own_turn = (team.rank > 0) + (not is_first_here)
    for turn in range(3):
        if turn == own_turn:
            folder = state_folder(local, options.storage, options.resumes, options.force)
        team.barrier()
    return folder


def check_feasible(
    config: "Config",
    dataset: "Dataset",
    group: "WorkerGroup | None",
    team: "Team",
    options: TrainOptions,
) -> None:
    """Refuse a training that needs packages or labels that are missing, or more memory than there
    is.
    """
    from distvae.tasks.measures import refuse_missing_labels
    from distvae.track import refuse_missing_packages
    from distvae.train.cost import COPIES_OF_A_WORKER, DataSize, check_fits_in_memory

    if options.track:
        refuse_missing_packages(config.train.sinks)
    if options.evaluate:
        refuse_missing_labels(config)
    if group is None:
        check_fits_in_memory(config, DataSize.of(dataset), team.size)
    elif group.address is None:  # the memory of other machines is not known here
        check_fits_in_memory(config, DataSize.of(dataset), group.min_workers, COPIES_OF_A_WORKER)


def announce(training: Training, local: Path, progress: Progress) -> None:
    """Say what is trained, on what data, and into which folder."""
    from distvae.train.run_folder import has_begun

    folder, config = training.folder, training.config
    location = f", kept in {folder}" if folder.remote else ""
    progress.say(f"{training.recipe}: {describe_rows(training.dataset)}; into {local}{location}")
    if training.options.resumes and not has_begun(folder):
        progress.say(f"{folder}: contains no run to resume; starting a new one")
    if config.train.local_steps and (training.group or training.team.size > 1):
        progress.say("train.local_steps: inexact, the result depends on the number of workers")
    workers = training.group.max_workers if training.group else training.team.size
    if advice := suggest_batch(config, workers):
        progress.say(advice)


def describe_rows(dataset: "Dataset") -> str:
    """Return the name of a dataset and the number of rows in each split, in words. Splits that are
    the same rows are counted once: `60,000 train, 10,000 test and val images`.
    """
    from distvae.numerics.numbers import listed

    sharing: dict[int, list[str]] = {}
    for split, rows in dataset.splits.items():
        sharing.setdefault(id(rows), []).append(split)
    counts = ", ".join(
        f"{len(dataset.splits[names[0]]):,} {listed(names)}" for names in sharing.values()
    )
    has_note = ": " in dataset.name
    return f"{dataset.name}{';' if has_note else ','} {counts} {dataset.unit}s"


def go_back(folder: "Folder", progress: Progress) -> None:
    """Discard the last checkpoint in favour of the one before it."""
    from distvae.train.checkpoint import restore_previous

    progress.say(f"discarding the last checkpoint; back to epoch {restore_previous(folder)}")
