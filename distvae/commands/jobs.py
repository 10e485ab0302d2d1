"""What the commands do: each puts the parts together, and nothing more."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from distvae.config import Config, to_dict
from distvae.config.recipes import load, parse_assignments, read_tree, recipe_names, recipe_path
from distvae.files.output import check_writable_folder
from distvae.files.refusal import Refusal
from distvae.train.progress import Progress, Style, stop_signals

if TYPE_CHECKING:
    from distvae.data.dataset import Dataset
    from distvae.files.storage import Folder
    from distvae.machines.worker_group import WorkerGroup
    from distvae.track import Tracker
    from distvae.train.epoch import Epoch
    from distvae.train.team import Team
    from distvae.tune.resources import TrialResources

ROOT = Path("runs")


def run_folder(run: Path | str) -> Path:
    """Return the folder of a run: itself, or by its name or id in MLflow, or as
    best:METRIC@SWEEP_FILE.
    """
    if Path(run).is_dir():  # MLflow is not asked
        return Path(run)
    from distvae.track import Store
    from distvae.track.records import find_folder

    return find_folder(str(run), Store.find(ROOT))


def configured(recipe: str, assignments: list[str], data: str | None, seed: int | None) -> Config:
    """The configuration of a command line."""
    given = parse_assignments(assignments)
    given |= {} if data is None else {"data.path": data}
    given |= {} if seed is None else {"train.seed": seed}
    return load(recipe, given)


def title(recipe: str) -> str:
    """What a run is called after its recipe, or after that of the run whose stored configuration it
    starts from.
    """
    path = Path(recipe)
    if path.name == "config.yaml" and (path.parent / "run.json").is_file():
        from distvae.train.run import read_info

        return str(read_info(path.parent)["recipe"]) or path.stem
    return path.stem


def located(config: Config, dataset: "Dataset") -> Config:
    """The configuration with the place its data was found in, so that it means the same
    tomorrow.
    """
    return config.with_("data", path=dataset.origin)


def train(
    config: Config,
    recipe: str,
    out: Path | None,
    resume: bool,
    force: bool,
    style: Style,
    judge: bool,
    track: bool,
    group: "WorkerGroup | None" = None,
    storage: str | None = None,
    previous: bool = False,
) -> None:
    """Train, record, judge."""
    from distvae.machines.worker_group import refuse_hidden_gpus
    from distvae.tasks.measuring import refuse_unlabelled
    from distvae.track import Tracker
    from distvae.train.cost import DataSize, check_fits_in_memory
    from distvae.train.devices import select_device
    from distvae.train.local_copy import state_folder, update_local_copy
    from distvae.train.loop import Diverged, Interrupted
    from distvae.train.team import ALONE, WorkerLost, join_team

    folder = out or ROOT / recipe
    check_writable_folder(folder)
    refuse_hidden_gpus("--gpus-per-worker", group.gpus if group else None, config.train.device)
    team = (
        ALONE if group else join_team(select_device(config.train.device))
    )  # a group has devices of its own
    chief = team.rank == 0
    style = style if chief else "quiet"
    dataset = opened(config, team, style)
    config = located(config, dataset)
    if judge:
        refuse_unlabelled(config)
    if (
        group is None or group.address is None
    ):  # of the memory of other machines nothing is known here
        check_fits_in_memory(
            config,
            DataSize.of(dataset),
            group.min_workers if group else team.size,
            holds=group is None,
        )
    progress = Progress(style, dataset.unit)
    there = state_folder(folder, storage, resume, force)
    if previous and chief:
        go_back(there, progress)
    progress.say(
        f"{recipe}: {rows(dataset)}; into {folder}" + (f", kept in {there}" if there.remote else "")
    )
    if resume and not there.has("run.json"):
        progress.say(f"{there}: holds no run to go on with; one begins")
    if config.train.local_steps and (group or team.size > 1):
        progress.say("train.local_steps: inexact, the result depends on the number of workers")
    tracker = Tracker.open(config, recipe, folder, recipe) if track and chief else None
    with stop_signals() as stop:
        try:
            follow(
                trained(config, dataset, there, recipe, resume, force, stop, team, group),
                tracker,
                progress,
            )
        except (Interrupted, Diverged, WorkerLost) as error:
            leave(error, stop(), folder)
        finally:
            if chief:
                update_local_copy(there, folder)
            team.close()
    if chief:
        conclude(folder, tracker, progress, style, judge)


def follow(told: "Iterator[Epoch | str]", tracker: "Tracker | None", progress: Progress) -> None:
    """Show and record what training tells."""
    with recorded(tracker, progress):
        try:
            for news in told:
                if isinstance(news, str):
                    progress.say(news)
                    continue
                progress.epoch(news)
                if tracker:
                    tracker.epoch(news)
        finally:
            progress.end()


@contextmanager
def recorded(tracker: "Tracker | None", progress: Progress) -> Iterator[None]:
    """Close the record of what ends early, however it does.

    What is refused before its first epoch has begun no record, and there may be that of an earlier
    run in the folder; what another training goes on with is that one's to close.
    """
    from distvae.train.loop import Interrupted
    from distvae.train.run_folder import TakenOver

    try:
        yield
    except BaseException as error:
        begun = progress.seen or not isinstance(error, Refusal)
        if tracker and begun and not isinstance(error, TakenOver):
            tracker.close(
                "KILLED" if isinstance(error, (Interrupted, KeyboardInterrupt)) else "FAILED"
            )
        raise


def group(
    workers: str, gpus: float | None, address: str | None, wait: float
) -> "WorkerGroup | None":
    """Who trains: nobody but this process where no workers are wanted."""
    from distvae.machines.worker_group import WorkerGroup

    if workers != "0":
        return WorkerGroup.parse(workers, gpus, address, wait)
    if gpus:
        raise Refusal("--gpus-per-worker: there are no workers; --workers N expected")
    return None


def go_back(folder: "Folder", progress: Progress) -> None:
    """Give the last checkpoint up for the one before it."""
    from distvae.train.checkpoint import restore_previous

    progress.say(f"the last checkpoint is given up; back to epoch {restore_previous(folder)}")


def opened(config: Config, team: "Team", style: Style) -> "Dataset":
    """The data; one worker prepares it, the others then find it prepared."""
    from distvae.data import open_dataset

    if team.rank > 0:
        team.barrier()
    dataset = open_dataset(config.data, quiet=style != "line")
    if team.rank == 0:
        team.barrier()
    return dataset


def trained(
    config: Config,
    dataset: "Dataset",
    folder: "Folder",
    recipe: str,
    resume: bool,
    force: bool,
    stop: Callable[[], object],
    team: "Team",
    group: "WorkerGroup | None",
) -> "Iterator[Epoch | str]":
    """Epochs as they come, of a training in this process or in others, and what happens beside
    them.
    """
    from distvae.machines import driver
    from distvae.train.run_folder import check_run_folder, open_folder
    from distvae.train.session import fit

    if group is None:
        return fit(
            config, dataset, folder, recipe=recipe, resume=resume, force=force, stop=stop, team=team
        )
    check_run_folder(config, dataset, folder, recipe, resume, force)
    group = driver.limit_to_rows(config, len(dataset.splits["train"]), group)
    begin = partial(open_folder, config, dataset, folder, recipe, resume, force)
    return driver.train_with_workers(config, recipe, folder, group, stop, begin)


def conclude(
    folder: Path, tracker: "Tracker | None", progress: Progress, style: Style, judge: bool
) -> None:
    """Judge a finished run, and record that."""
    from distvae.commands.evaluation import judged, report

    with recorded(tracker, progress):
        judgement = (
            judged(folder, "test", folder / "evaluation" / "test", True, style != "line")
            if judge
            else None
        )
        if tracker and judgement:
            tracker.evaluation(judgement.summary, folder / "evaluation" / "test")
    if tracker:
        tracker.model()
        tracker.close()
        if tracker.complete:
            progress.say(f"recorded; to look at it: {tracker.viewer}")
    if judgement:
        report(judgement, style)


def rows(dataset: "Dataset") -> str:
    """How much data there is."""
    counts = ", ".join(f"{len(x):,} {split}" for split, x in dataset.splits.items())
    return f"{dataset.name}, {counts} {dataset.unit}s"


def leave(error: Exception, signal: int, folder: Path) -> None:
    """End a training that did not reach its end."""
    begun = (folder / "run.json").is_file()
    stopped = (
        f"stopped; the state is in {folder}, --resume goes on from it"
        if begun
        else "stopped before it began"
    )
    text = str(error) or stopped
    print(f"distvae: {text}", file=sys.stderr)
    raise SystemExit(128 + signal if signal else 1)


def recipes(name: str | None) -> None:
    """Print the list of recipes, or one of them as written and as resolved."""
    import yaml

    if name is None:
        for known in recipe_names():
            print(f"{known:18}{read_tree(recipe_path(known)).get('about', '')}")
        return
    print(recipe_path(name).read_text().rstrip())
    print("\n# which resolves to:")
    print(yaml.safe_dump(to_dict(load(name)), sort_keys=False).rstrip())


def trial_resources(
    workers: str,
    gpus_per_worker: float | None,
    gpus_per_trial: float | None,
    address: str | None,
    wait: float,
) -> "TrialResources":
    """What the trials of a sweep run on."""
    from distvae.tune.resources import TrialResources

    return TrialResources.parse(workers, gpus_per_worker, gpus_per_trial, address, wait)


def tune(
    space: str,
    assignments: list[str],
    data: str | None,
    out: Path | None,
    trials: int | None,
    concurrent: int | None,
    resume: bool,
    force: bool,
    quiet: bool,
    resources: "TrialResources",
) -> None:
    """Sweep a space, and print what was found."""
    from distvae.report.logged import write_and_log
    from distvae.tune.space_files import load_space
    from distvae.tune.sweep import run_sweep
    from distvae.tune.table import show

    explored = load_space(space)
    given = parse_assignments(assignments)
    folder = out or ROOT / explored.name
    findings = run_sweep(
        explored,
        folder,
        given,
        trials,
        concurrent,
        data or "",
        quiet,
        force,
        resume,
        resources=resources,
    )
    if not quiet:
        show(findings)
    write_and_log(findings.folder, ROOT, quiet)
    raise SystemExit(findings.exit_code)


def page(source: Path, out: Path | None, force: bool, against: Path | None, public: bool) -> None:
    """Write the page of a sweep or a run, and record the one that belongs to its folder."""
    from distvae.report import write
    from distvae.report.logged import log

    written = write(source, out, force, against, public)
    print(written)
    if out is None and not public:
        log(source, written, ROOT)
