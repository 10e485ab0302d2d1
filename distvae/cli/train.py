"""`distvae train` trains a model into a run folder, records the run in MLflow, and evaluates it."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from distvae.cli.options import (
    RUNS,
    START,
    AsJson,
    Assignments,
    Data,
    Force,
    Quiet,
    Recipe,
    WorkerOptions,
    command,
    print_next,
    progress_style,
)
from distvae.config import IdxData, ImageData, RowsData
from distvae.config.recipes import STORED, load, parse_assignments, recipe_path, with_options
from distvae.files.paths import check_writable_folder, collect_from_now_on, collecting_later
from distvae.files.refusal import Refusal
from distvae.train.progress import Progress, Style, stop_signals

if TYPE_CHECKING:
    from distvae.config import Config, DataConfig
    from distvae.config.train import Scaling
    from distvae.data.dataset import Dataset
    from distvae.files.storage import Folder
    from distvae.machines.cluster import WorkerGroup
    from distvae.track import Tracker
    from distvae.train.loop import Epoch
    from distvae.train.team import Team

app = typer.Typer(rich_help_panel="Use a trained model")

COMPONENTS = 128
"""The principal components of which a frame takes the largest, beside sparse codes."""
IMAGES = "images"
"""The recipe whose size and kind of pictures are found in the data."""


@dataclass(frozen=True)
class TrainOptions:
    """The options of `distvae train`."""

    data: Data = None
    out: Annotated[Path | None, typer.Option("-o", "--out")] = None
    """Folder of the run; default runs/RECIPE."""
    resume: bool = False
    """Resume the run in that folder."""
    seed: int | None = None
    """Shorthand for train.seed=N."""
    force: Force = False
    quiet: Quiet = False
    json: AsJson = False
    evaluate: bool = True
    """Evaluate the trained model on the test split."""
    track: bool = True
    """Record the run in MLflow."""
    storage: Annotated[str | None, typer.Option(metavar="URI")] = None
    """Keep the run on storage that all machines share: a path or s3://bucket/runs."""
    previous: bool = False
    """Resume from the checkpoint before the last one, if the last one is damaged."""
    profile: bool = False
    """Write a trace of some steps into the run folder, for ui.perfetto.dev: profile.json."""

    @property
    def resumes(self) -> bool:
        """Return whether the run in the folder is resumed."""
        return self.resume or self.previous

    @property
    def style(self) -> Style:
        """Return how progress is reported."""
        return progress_style(self.quiet, self.json)


@command(app, "train speech --data ~/recordings", START)
def train(
    recipe: Recipe,
    assignments: Assignments = None,
    *,
    options: TrainOptions,
    workers: WorkerOptions,
) -> None:
    """Train a model into a run folder. Ctrl-C saves a checkpoint, from which --resume continues."""
    given = parse_assignments(assignments or [])
    about = None if "data.kind" in given else options.data
    with naming_a_command(lambda: load(recipe).data, about, "data."):
        found = found_settings(recipe, about) if recipe == IMAGES else []
        words = [word for word in found if word.partition("=")[0] not in given]
        config = configure(recipe, [*words, *(assignments or [])], options.data, options.seed)
    group = workers.group()
    if options.profile and (group or int(os.environ.get("WORLD_SIZE", "1")) > 1):
        raise Refusal("--profile: several workers; one process expected")
    name = run_name(recipe)
    local = options.out or default_folder(recipe, name, options.resumes)
    check_writable_folder(local)
    with collecting_later():
        train_configured(config, name, local, options, group)


def found_settings(recipe: str, data: str | None) -> list[str]:
    """Return the kind of pictures at a path, and the settings that they need."""
    from distvae.data.family import survey

    if data is None:
        return []
    found = survey(data)
    is_pictures = found.kind in (load(recipe).data.kind, IdxData.kind)
    return [f"data.kind={found.kind}", *found.settings] if is_pictures else []


def train_configured(
    config: "Config",
    name: str,
    local: Path,
    options: TrainOptions,
    group: "WorkerGroup | None",
) -> None:
    """Train into a run folder, record the run and evaluate it."""
    from distvae.machines.cluster import refuse_hidden_gpus
    from distvae.tasks.measures import refuse_impossible_measures
    from distvae.train.checkpoint import restore_previous
    from distvae.train.cost import memory_refused
    from distvae.train.loop import Diverged, Interrupted
    from distvae.train.run_folder import check_run_folder, has_begun, update_local_copy
    from distvae.train.team import ALONE, WorkerLost, join_team, select_device

    if group:
        refuse_hidden_gpus("--gpus-per-worker", group.gpus, config.train.device)
    # Workers under Ray choose their own devices.
    team = ALONE if group else join_team(select_device(config.train.device))
    is_chief = team.rank == 0
    style: Style = options.style if is_chief else "quiet"
    if options.evaluate:
        refuse_impossible_measures(config)
    with naming_a_command(lambda: config.data, options.data):
        dataset = open_once(config, team, quiet=style != "line")
    config = config.with_("data", path=dataset.origin)
    check_feasible(config, dataset, group, team, options)
    progress = Progress(style, dataset.unit)
    folder = state_folder_in_turn(local, options, team)
    if options.previous and is_chief:
        epoch = restore_previous(folder)
        progress.say(f"discarding the last checkpoint; back to epoch {epoch}")
    run = (config, dataset, folder, name, options.resumes, options.force)
    if team.size == 1:
        check_run_folder(*run)
    location = f", kept in {folder}" if folder.remote else ""
    progress.say(f"{name}: {describe_rows(dataset)}; into {local}{location}")
    if options.resumes and not has_begun(folder):
        progress.say(f"{folder}: contains no run to resume; starting a new one")
    if config.train.local_steps and (group or team.size > 1):
        progress.say("train.local_steps: inexact, the result depends on the number of workers")
    if advice := suggest_batch(config, group.max_workers if group else team.size):
        progress.say(advice)

    tracker = None
    if options.track and is_chief:
        from distvae.track import Tracker

        tracker = Tracker.open(config, name, local, name)
        tracker.state = folder
    with memory_refused(config, name), stop_signals() as stop:
        try:
            news = epochs_of(run, group, team, stop, local if options.profile else None)
            collect_from_now_on()
            follow(news, tracker, progress)
        except (Interrupted, Diverged, WorkerLost) as error:
            exit_early(error, stop(), local)
        finally:
            if is_chief:
                update_local_copy(folder, local)
            team.close()
    if options.profile:
        from distvae.train.profiling import FILE

        written = (local / FILE).is_file()
        progress.say(f"{local / FILE}: " + ("a trace" if written else "not written, too few steps"))
    if is_chief:
        figures = finish(local, options, tracker, progress)
        if options.style == "line":
            if baseline := baseline_of(figures, dataset):
                print(f"as many principal components: distvae baseline {baseline} {local}")
            print_next("distvae", *words_of_use(config, local))


def epochs_of(
    run: "tuple[Config, Dataset, Folder, str, bool, bool]",
    group: "WorkerGroup | None",
    team: "Team",
    stop: Callable[[], object],
    profiled: Path | None = None,
) -> "Iterator[Epoch | str]":
    """Train in this process, or in workers under Ray; yield epochs and messages as they come.

    `run` is the configuration, data, folder and recipe of a run, and whether the run is resumed or
    replaced. `profiled` is a folder for a profile of some steps.
    """
    from distvae.machines import driver
    from distvae.train.run_folder import open_folder
    from distvae.train.session import RunOptions, fit

    config, dataset, folder, name, resume, force = run
    if group is None:
        options = RunOptions(name, resume, force, stop)
        if profiled is not None:
            from distvae.train.profiling import Profiler

            options = replace(options, between=Profiler(profiled).between)
        return fit(config, dataset, folder, options, team=team)
    group = driver.limit_to_rows(config, len(dataset.splits["train"]), group)
    return driver.train_with_workers(config, name, folder, group, stop, partial(open_folder, *run))


def configure(
    recipe: str, assignments: list[str], data: str | None = None, seed: int | None = None
) -> "Config":
    """Return the configuration of a recipe with the settings of a command line."""
    options = {"--data": ("data.path", data), "--seed": ("train.seed", seed)}
    return load(recipe, with_options(parse_assignments(assignments), options))


@contextmanager
def naming_a_command(
    read: Callable[[], "DataConfig"], data: str | None, about: str = ""
) -> Iterator[None]:
    """Add to a refusal the command that trains on the data at a path, if the settings of the data
    are for another kind of data. Only a refusal that begins with `about` is changed.
    """
    try:
        yield
    except Refusal as refusal:
        from distvae.data.family import next_command, survey_of_another_kind
        from distvae.data.folders import is_remote

        if not data or is_remote(data) or not str(refusal).startswith(about):
            raise
        found = None
        with suppress(Refusal):
            found = survey_of_another_kind(data, read())
        if found is None:
            raise
        raise Refusal(f"{refusal}; for what is in {data}: {next_command(found)}") from refusal


def run_name(recipe: str) -> str:
    """Return the name of a run: the recipe's name. If the recipe is the folder of an earlier run,
    return the name of the earlier run.
    """
    folder = folder_of_settings(recipe)
    if folder is None:
        return Path(recipe).stem
    from distvae.train.run_folder import read_info

    return str(read_info(folder)["recipe"]) or folder.name


def default_folder(recipe: str, name: str, resumes: bool) -> Path:
    """Return the folder to train into. A run that serves as recipe is resumed in place."""
    folder = folder_of_settings(recipe) if resumes else None
    return folder or RUNS / name


def folder_of_settings(recipe: str) -> Path | None:
    """Return the folder of the run that a recipe names, or None."""
    path = recipe_path(recipe)
    return path.parent if path.name == STORED and (path.parent / "run.json").is_file() else None


def open_once(config: "Config", team: "Team", quiet: bool) -> "Dataset":
    """Open the data. Worker 0 of a team prepares the data first, then all workers open it."""
    from distvae.data import open_dataset

    if team.rank > 0:
        team.barrier()
    dataset = open_dataset(config.data, quiet=quiet)
    if team.rank == 0:
        team.barrier()
    return dataset


def state_folder_in_turn(local: Path, options: TrainOptions, team: "Team") -> "Folder":
    """Return the folder of the state. Worker 0 deletes a run that is replaced, then the first
    worker of each machine does the same, as each machine may have a separate folder.
    """
    from distvae.train.run_folder import state_folder

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
    """Refuse a training for which packages, labels or memory are missing."""
    from distvae.tasks.measures import refuse_missing_labels
    from distvae.train.cost import COPIES_OF_A_WORKER, DataSize, check_fits_in_memory

    if options.track:
        from distvae.track import refuse_missing_packages

        refuse_missing_packages(config.train.sinks)
    if options.evaluate:
        refuse_missing_labels(config)
    if group is None:
        check_fits_in_memory(config, DataSize.of(dataset), team.size)
    elif group.address is None:  # the memory of other machines is not known here
        check_fits_in_memory(config, DataSize.of(dataset), group.min_workers, COPIES_OF_A_WORKER)


def describe_rows(dataset: "Dataset") -> str:
    """Return the name of a dataset and the number of rows in each split, in words.

    Splits that share their rows are counted once: `60,000 train, 10,000 test and val images`.
    """
    from distvae.numerics.metrics import listed

    sharing: dict[int, list[str]] = {}
    for split, rows in dataset.splits.items():
        sharing.setdefault(id(rows), []).append(split)
    counts = ", ".join(
        f"{len(dataset.splits[names[0]]):,} {listed(names)}" for names in sharing.values()
    )
    has_note = ": " in dataset.name
    size = ""
    if dataset.shape:
        channels, height, width = dataset.shape
        size = f" of {height} x {width} pixels{', in colour' if channels == 3 else ''}"
    return f"{dataset.name}{';' if has_note else ','} {counts} {dataset.unit}s{size}"


ENOUGH = 32
"""Rows of a batch that each worker should have."""


class LargerBatch(NamedTuple):
    """The largest batch at which a model was measured to keep its quality."""

    times: int
    """The batch divided by the recipe's batch."""
    scaling: "Scaling"
    price: str
    """The quality that is lost."""


MEASURED = {
    "tvae": LargerBatch(4, "root", "at most 0.3 dB on House"),
    "vae": LargerBatch(4, "linear", "0.4 nats on MNIST"),
    "vsc": LargerBatch(4, "linear", "0.7 nats on MNIST"),
}
"""By the kind of model, as measured (docs/scaling.md, "Batches that grow")."""


def suggest_batch(config: "Config", workers: int) -> str:
    """Return a line that suggests a larger batch. Return '' if each worker has enough rows, or if
    no larger batch was measured to keep the quality.
    """
    train, larger = config.train, MEASURED.get(config.model.kind)
    each = train.batch // max(workers, 1)
    if workers < 2 or each >= ENOUGH or larger is None:
        return ""
    base = train.base_batch or train.batch
    power_of_two = 1 << (ENOUGH * workers - 1).bit_length()
    batch = min(larger.times * base, power_of_two)
    if batch <= train.batch:
        return ""
    return (
        f"{workers} workers have {each} rows each of a batch of {train.batch};"
        f" train.batch={batch} train.scale_rate={larger.scaling} give them {batch // workers}"
        f" and cost {larger.price} in short trainings (docs/scaling.md)"
    )


def follow(news: "Iterator[Epoch | str]", tracker: "Tracker | None", progress: Progress) -> None:
    """Show and record the epochs and messages of a training, and say if training ended early."""
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
    if last and (left := last.details.get("cycles_left")):
        progress.say(
            f"model.cycles: {left:.0f} cycles were left at the end, so the dictionary is not"
            " finished; more train.epochs, or fewer model.cycles, advised"
        )


@contextmanager
def closed_on_failure(tracker: "Tracker | None", progress: Progress) -> Iterator[None]:
    """Close the record of a training that fails or is interrupted.

    A training that is refused before its first epoch has no record, although the folder may hold
    the record of an earlier run. A record that another training took over stays open.
    """
    from distvae.train.loop import Interrupted
    from distvae.train.run_folder import TakenOver

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
    folder: Path, options: TrainOptions, tracker: "Tracker | None", progress: Progress
) -> Mapping[str, float]:
    """Evaluate a trained run, unless the options forbid it, and complete the record of the run.
    Return the figures of the evaluation.
    """
    from distvae.cli.use import print_evaluation
    from distvae.tasks.evaluate import evaluate
    from distvae.train.run import Run

    evaluation = None
    with closed_on_failure(tracker, progress):
        if options.evaluate:
            target, is_shown = evaluation_folder(folder), options.style == "line"
            evaluation = evaluate(Run.open(folder), target, force=True, progress=is_shown)
        if tracker and evaluation:
            tracker.figures(evaluation.summary)
    if tracker:
        tracker.close()
        if tracker.complete:
            progress.say(f"recorded in MLflow; to view it: {tracker.viewer}")
    if evaluation:
        print_evaluation(evaluation, options.style)
    return evaluation.summary if evaluation else {}


def baseline_of(figures: Mapping[str, float], dataset: "Dataset") -> str:
    """Return the principal components to compare the codes of recordings with: as many as a code
    has values that are not zero; otherwise ''.
    """
    values = round(figures.get("active", 0))
    if not (dataset.recordings and values):
        return ""
    size = round(figures["live_atoms"] + figures["dead_atoms"])
    return f"pca-{values}" if values == size else f"pca-{values}-of-{max(values, COMPONENTS)}"


def words_of_use(config: "Config", run: Path) -> list[object]:
    """Return the words of a command that uses a trained run."""
    from distvae.data.speech import recordings_of
    from distvae.tasks.resynthesis import recordings_of_split

    if recordings := recordings_of(config.data):
        root, (recording, *_) = recordings_of_split(recordings, "all")
        return ["resynthesize", run, root / recording.file, run / "resynthesis.wav"]
    if isinstance(config.data, (RowsData, ImageData, IdxData)):
        return ["encode", run, config.data.path, "-o", run / "codes.parquet"]
    return ["sample", run, run / "samples.png"]


def evaluation_folder(folder: Path) -> Path:
    """Return the folder for the evaluation of a run on its test split."""
    return folder / "evaluation" / "test"
