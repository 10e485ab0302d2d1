"""What the commands do: each puts the parts together, and nothing more."""

import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from distvae.config import Config, SpeechData, from_dict, to_dict
from distvae.progress import Progress, Style, until_stopped
from distvae.recipes import load, override, parse_assignments, read_tree, recipe_names, recipe_path
from distvae.refusal import Refusal

if TYPE_CHECKING:
    from distvae.data.dataset import Dataset
    from distvae.storage import Folder
    from distvae.tasks.judgement import Judgement
    from distvae.track import Tracker
    from distvae.train.loop import Epoch
    from distvae.train.team import Team
    from distvae.train.worker import Group
    from distvae.tune.means import Means

ROOT = Path("runs")


def configured(recipe: str, assignments: list[str], data: str | None, seed: int | None) -> Config:
    """The configuration of a command line."""
    given = parse_assignments(assignments)
    given |= {} if data is None else {"data.path": data}
    given |= {} if seed is None else {"train.seed": seed}
    return load(recipe, given)


def title(recipe: str) -> str:
    """What a run is called after its recipe, or after that of the run whose stored configuration it starts from."""
    path = Path(recipe)
    if path.name == "config.yaml" and (path.parent / "run.json").is_file():
        from distvae.train.run import read_info

        return str(read_info(path.parent)["recipe"]) or path.stem
    return path.stem


def located(config: Config, dataset: "Dataset") -> Config:
    """The configuration with the place its data was found in, so that it means the same tomorrow."""
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
    group: "Group | None" = None,
    storage: str | None = None,
    previous: bool = False,
) -> None:
    """Train, record, judge."""
    from distvae.tasks.measuring import refuse_unlabelled
    from distvae.track import Tracker
    from distvae.train.loop import Diverged, Interrupted, device_of
    from distvae.train.mirror import bring, place
    from distvae.train.team import WorkerLost, of_environment

    folder = out or ROOT / recipe
    team = of_environment(device_of(config.train.device))
    chief = team.rank == 0
    style = style if chief else "quiet"
    dataset = opened(config, team, style)
    config = located(config, dataset)
    if judge:
        refuse_unlabelled(config)
    progress = Progress(style, dataset.unit)
    there = place(folder, storage, resume, force)
    if previous and chief:
        go_back(there, progress)
    progress.say(f"{recipe}: {rows(dataset)}; into {folder}" + (f", kept in {there}" if there.remote else ""))
    if config.train.local_steps and (group or team.size > 1):
        progress.say("train.local_steps: inexact, the result depends on the number of workers")
    tracker = Tracker.open(config, recipe, folder, recipe) if track and chief else None
    with until_stopped() as stop:
        try:
            for told in trained(config, dataset, there, recipe, resume, force, stop, team, group):
                if isinstance(told, str):
                    progress.say(told)
                    continue
                progress.epoch(told)
                if tracker:
                    tracker.epoch(told)
        except (Interrupted, Diverged, WorkerLost) as error:
            progress.end()
            if tracker:
                tracker.close("KILLED" if isinstance(error, Interrupted) else "FAILED")
            leave(error, stop(), folder)
        finally:
            if chief:
                bring(there, folder)
            team.close()
    progress.end()
    if chief:
        conclude(folder, tracker, progress, style, judge)


def group(workers: str, gpus: float, address: str | None, wait: float) -> "Group | None":
    """Who trains: nobody but this process where no workers are wanted."""
    from distvae.train.worker import Group

    return None if workers == "0" else Group.parse(workers, gpus, address, wait)


def go_back(folder: "Folder", progress: Progress) -> None:
    """Give the last checkpoint up for the one before it."""
    from distvae.train.checkpoint import revert

    progress.say(f"the last checkpoint is given up; back to epoch {revert(folder)}")


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
    group: "Group | None",
) -> "Iterator[Epoch | str]":
    """Epochs as they come, of a training in this process or in others, and what happens beside them."""
    from distvae.train import worker
    from distvae.train.folder import open_folder
    from distvae.train.session import fit

    if group is None:
        return fit(config, dataset, folder, recipe=recipe, resume=resume, force=force, stop=stop, team=team)
    open_folder(config, dataset, folder, recipe, resume, force)
    return worker.train(config, recipe, folder, group, stop)


def conclude(folder: Path, tracker: "Tracker | None", progress: Progress, style: Style, judge: bool) -> None:
    """Judge a finished run, and record that."""
    judgement = judged(folder, "test", folder / "evaluation" / "test", True, style != "line") if judge else None
    if tracker:
        if judgement:
            tracker.evaluation(judgement.summary, folder / "evaluation" / "test")
        tracker.model()
        tracker.close()
        if tracker.whole:
            progress.say(f"recorded; to look at it: {tracker.look}")
    if judgement:
        report(judgement, style)


def rows(dataset: "Dataset") -> str:
    """How much data there is."""
    counts = ", ".join(f"{len(x):,} {split}" for split, x in dataset.splits.items())
    return f"{dataset.name}, {counts} {dataset.unit}s"


def leave(error: Exception, signal: int, folder: Path) -> None:
    """End a training that did not reach its end."""
    text = str(error) or f"stopped; the state is in {folder}, --resume goes on from it"
    print(f"distvae: {text}", file=sys.stderr)
    raise SystemExit(128 + signal if signal else 1)


def judged(run: Path, split: str, target: Path, force: bool, quiet: bool, config: Config | None = None) -> "Judgement":
    """The judgement of a run, written into a folder."""
    from distvae.tasks.evaluate import evaluate
    from distvae.train.run import Run

    opened = Run.open(run)
    opened.config = config or opened.config
    return evaluate(opened, target, split, force, progress=not quiet)


def report(judgement: "Judgement", style: Style) -> None:
    """Print the figures, and what was refused."""
    tell(judgement.summary, style)
    if style != "line":
        return
    for refused in judgement.refused:
        print(f"{refused.file}: no {refused.metric}: {refused.reason}")
    for note in judgement.notes:
        print(note)


def tell(summary: dict[str, float], style: Style) -> None:
    """Print figures."""
    if style == "json":
        print(json.dumps({"summary": summary}))
    if style != "line":
        return
    for name, value in summary.items():
        if not name.endswith(("_std", "_refused")):
            spread = summary.get(f"{name}_std", math.nan)
            print(f"{name:20}{value:10.3f}" + (f"   +- {spread:.3f} over speakers" if spread > 0 else ""))


def evaluate(
    run: Path, assignments: list[str], data: str | None, split: str, out: Path | None, force: bool, quiet: bool
) -> None:
    """Judge a run on its own data or on other data."""
    from distvae.train.run import read_config, read_info

    given = parse_assignments(assignments)
    for key in given:
        if not key.startswith(("eval.", "data.")):
            raise Refusal(f"{key}: the run is trained; only eval. and data. keys can be set here")
    config = from_dict(override(to_dict(read_config(run, read_info(run))), given))
    config = config if data is None else elsewhere(config, data)
    judgement = judged(run, split, out or run / "evaluation" / split, force, quiet, config)
    report(judgement, "quiet" if quiet else "line")


def elsewhere(config: Config, path: str) -> Config:
    """The same configuration for other data, which needs no split if it comes without one."""
    here = config.data.path
    if isinstance(config.data, SpeechData) and path != here and Path(path).absolute() != Path(here):
        return config.with_("data", path=path, split="loose")
    return config.with_("data", path=path)


def encode(run: Path, data: str, out: Path, split: str, force: bool) -> None:
    """Write codes."""
    from distvae.tasks import codes
    from distvae.train.run import Run

    opened = Run.open(run)
    count = codes.encode(opened, elsewhere(opened.config, data).data, out, split, force)
    print(f"{out}: {count:,} codes of {opened.model.states} values")


def check(run: Path, exact: bool, rows: int) -> None:
    """Read every file of a run, and compare its bound with the enumeration of all states."""
    from distvae.tasks.exactness import compare
    from distvae.train.run import Run

    Run.open(run)
    last = Run.left(run)
    print(f"{run}: whole")
    if exact:
        for name, value in compare(last, rows).items():
            print(f"{name:20}{value:12.4f}")


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


def means(
    workers: str, gpus_per_worker: float, gpus_per_trial: float | None, address: str | None, wait: float
) -> "Means":
    """What the trials of a sweep run on."""
    from distvae.tune.means import Means

    return Means.parse(workers, gpus_per_worker, gpus_per_trial, address, wait)


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
    means: "Means",
) -> None:
    """Sweep a space, and print what was found."""
    from distvae.report.keeping import reported
    from distvae.tune.reading import load_space
    from distvae.tune.study import sweep
    from distvae.tune.table import show

    explored = load_space(space)
    given = parse_assignments(assignments)
    folder = out or ROOT / explored.name
    findings = sweep(explored, folder, given, trials, concurrent, data or "", quiet, force, resume, means=means)
    if not quiet:
        show(findings)
    reported(findings.folder, ROOT, quiet)
    raise SystemExit(findings.exit_code)


def page(source: Path, out: Path | None, force: bool, against: Path | None, public: bool) -> None:
    """Write the page of a sweep or a run, and record the one that belongs to its folder."""
    from distvae.report import write
    from distvae.report.keeping import keep

    written = write(source, out, force, against, public)
    print(written)
    if out is None and not public:
        keep(source, written, ROOT)
