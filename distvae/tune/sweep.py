"""A sweep: Optuna chooses trials, and Ray Tune runs them in processes that are reused."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from distvae.config.recipes import refuse_place
from distvae.files.paths import check_writable_folder
from distvae.files.refusal import Refusal, cause
from distvae.files.storage import Folder
from distvae.files.untrusted import Plain
from distvae.machines.cluster import MachineResources, check_cluster
from distvae.machines.driver import object_store_bytes, with_absolute_paths
from distvae.machines.session import ray_session
from distvae.machines.worker import STOP_FILE
from distvae.numerics.metrics import counted
from distvae.system import available_cores
from distvae.track import Sending, Status, Store, Tracker, refuse_missing_packages
from distvae.track.tracker import recorded_folders
from distvae.train.progress import stop_signals
from distvae.train.run_folder import check_storage
from distvae.tune.baselines import add_baseline, missing_baselines, read_baselines
from distvae.tune.folder import (
    DECIDED_BY_MACHINE,
    SWEEP_FILE,
    locked_folder,
    new_experiment,
    prepare_sweep_folder,
    recorded_facts,
    refuse_folder,
    refuse_other_data,
)
from distvae.tune.mirror import Mirror
from distvae.tune.population import open_study
from distvae.tune.recorder import Recorder, SweepDisplay
from distvae.tune.resources import TrialResources, wait_for_capacity
from distvae.tune.results import Findings, Left, describe_findings, rank, write_findings
from distvae.tune.space import Space
from distvae.tune.trial import FAILURE, Trials
from distvae.tune.validation import check_memory, check_ranking, check_scheduler

if TYPE_CHECKING:
    from distvae.data.dataset import Dataset

POPULATIONS = "population-"
"""The beginning of the names of files that only the process of a trial needs."""
STATUS: dict[int, Status] = {0: "FINISHED", 1: "FAILED"}
"""MLflow's status of a sweep by its exit code; any other code means that it was asked to stop."""
STATUS_OF_TRIAL: dict[str, Status] = {"failed": "FAILED", "stopped": "KILLED", "halted": "KILLED"}
"""MLflow's status of trials that could not record it themselves, by their state."""


@dataclass(frozen=True)
class SweepOptions:
    """Options of a sweep beside its space, its folder and its resources."""

    assignments: Mapping[str, Plain] = field(default_factory=dict)
    """Settings to pin, by dotted key."""
    data: str = ""
    """The place of the data; empty for the place in the base recipe."""
    trials: int | None = None
    """The number of trials; None for the number in the space."""
    concurrent: int | None = None
    """Trials side by side; None for the number in the space."""
    resume: bool = False
    force: bool = False
    """Replace an earlier sweep."""
    keep_tune: bool = False
    """Keep the experiment of Ray Tune in the folder of the sweep."""
    quiet: bool = False
    storage: str = field(default="", repr=False)
    """The URI of the folder of an object store that keeps the trials; empty for the sweep's own
    folder, which all machines must see.
    """
    root: Path = Path("runs")
    """The folder of the MLflow records, where no server is set."""


DEFAULT_OPTIONS = SweepOptions()
DEFAULT_RESOURCES = TrialResources()
"""Trials train in their own processes on this machine."""


def run_sweep(
    space: Space,
    out: Path,
    options: SweepOptions = DEFAULT_OPTIONS,
    resources: TrialResources = DEFAULT_RESOURCES,
) -> Findings:
    """Run the trials of a space into the folder `out`, and return their findings."""
    check_writable_folder(out)
    mirror = _open_mirror(space, out, options, resources)
    space = _settle(space, out, options, resources)
    display = SweepDisplay(space, options.quiet)
    with stop_signals() as stop, locked_folder(out):
        if options.resume and (out / SWEEP_FILE).is_file() and open_study(space, out).is_done:
            return _run_in_folder(space, out, options, resources, display, stop, mirror, None)
        where = f"joining the Ray at {resources.address}"
        display.say(where if resources.address else "starting Ray, which takes some seconds")
        device, threads = space.base.train.device, space.base.train.threads or 1
        wanted = space.concurrent or 1
        workers = available_cores() if resources.group else 0
        cores = workers or wanted * threads
        with ray_session(resources.address, cores, object_store_bytes(workers), stop) as ray:
            machines = wait_for_capacity(ray, resources, threads, stop, wanted, device)
            resources = resources.with_gpus(machines, device)
            space = limit_concurrency(space, resources, machines, options.concurrent)
            shared = mirror.there if mirror else Folder(out)
            check_cluster(ray, shared, "--out with a path on a shared disk, or s3://bucket/sweep")
            if mirror and not options.resume:
                mirror.there.remove()
            prepare_sweep_folder(space, out, options.resume, resources, mirror)
            if mirror:
                display.say(f"trials are kept in {mirror.there}, the sweep in {out}")
            request = resources.tune_request(machines, threads, space.concurrent or 1)
            experiment = new_experiment(out.absolute(), space, options.keep_tune)

            def run(recorder: Recorder) -> None:
                from distvae.tune.ray_tune import run_trials

                run_trials(recorder, experiment, request, options.keep_tune)

            return _run_in_folder(space, out, options, resources, display, stop, mirror, run)


def _open_mirror(
    space: Space, out: Path, options: SweepOptions, resources: TrialResources
) -> Mirror | None:
    """Return the copy of the sweep in an object store; None without one.

    A sweep that is resumed on a machine without its folder is copied from there.
    """
    recorded = recorded_facts(out).get("storage", "") if options.resume else ""
    if not options.storage:
        if recorded:
            raise Refusal(f"{out}: its trials are in {recorded}; -o with that place expected")
        return None
    folder = Folder(options.storage)
    if recorded not in ("", str(folder)):
        raise Refusal(f"{out}: its trials are in {recorded}, not in {folder}; the former expected")
    if resources.group or space.scheduler == "population":
        reason = "scheduler: population" if space.scheduler == "population" else "--workers"
        raise Refusal(f"{reason} with {folder}: -o with a folder that all machines share expected")
    check_storage("--out", folder)
    if not folder.has(SWEEP_FILE):
        if not (options.resume or folder.is_empty()):
            raise Refusal(f"{folder}: holds other files; an empty place expected")
    elif not (options.resume or options.force):
        raise Refusal(f"{folder}: holds a sweep; --resume continues it, --force replaces it")
    mirror = Mirror(out, folder, POPULATIONS)
    if options.resume:  # the study here may be newer than its copy; trials are newer there
        mirror.pull("trials" if (out / SWEEP_FILE).is_file() else "")
    return mirror


def _settle(space: Space, out: Path, options: SweepOptions, resources: TrialResources) -> Space:
    """Return the space with all settings that are known before Ray starts.

    Refuse a space that cannot be explored, or a folder in which it cannot be.
    """
    pinned = dict(options.assignments)
    if options.data:
        pinned["data.path"] = options.data
    path = pinned.get("data.path")
    refuse_place(space.base, str(path) if path else None)
    check_scheduler(space, workers=resources.group is not None)
    if options.resume:
        facts = recorded_facts(out)
        config = facts.get("config", {})
        pinned = {key: config[key] for key in DECIDED_BY_MACHINE if key in config} | pinned
        space = replace(space, name=facts.get("name", space.name))
    space = prepare_space(space, pinned, options.trials, options.concurrent, resources)
    refuse_missing_packages(space.base.train.sinks)
    check_scheduler(space)
    space, dataset = open_data(space, options.quiet, resources)
    refuse_folder(space, out, options.force, options.resume, resources)
    if options.resume:
        refuse_other_data(space, out, dataset)
    return space


def prepare_space(
    space: Space,
    pinned: Mapping[str, Plain],
    trials: int | None = None,
    concurrent: int | None = None,
    resources: TrialResources = DEFAULT_RESOURCES,
) -> Space:
    """Return the space to explore, with the pinned settings and the settings that trials share.

    Trials that are processes of this machine share its cores equally; a worker, or a process
    elsewhere, has one thread. All trials use the same library for matrix products. Refuse pinned
    settings with which trials have no figure to be ranked by.
    """
    from distvae.numerics.arithmetic import choose_library

    on_this_machine = resources.address is None and resources.group is None
    slots, threads = concurrent or space.concurrent, 1
    if on_this_machine:
        slots = slots or available_cores()
        threads = max(1, available_cores() // slots)
    common: dict[str, Plain] = {
        "train.threads": threads,
        "train.products": choose_library(space.base.train.products),
        "eval.processes": 1,
    }
    space = space.pinned(common | dict(pinned))
    if trials is None:  # a whole grid has a trial for each combination of what still varies
        trials = sum(1 for _ in space.combinations()) if space.whole_grid else space.trials
    space = _rank_without_pesq(replace(space, trials=trials, concurrent=slots))
    if pinned and not space.rows:  # rows have figures of their own
        check_ranking(space)
    return space


def _rank_without_pesq(space: Space) -> Space:
    """Replace PESQ by ESTOI among the metrics if the package pesq is not installed."""
    from distvae.tasks.scores import available_metrics

    measured = space.base.eval.metrics
    missing = [name for name in space.metrics if name in measured and not available_metrics([name])]
    if not missing:
        return space
    print(
        f"{', '.join(missing)}: the package pesq is not installed; ranked by estoi instead",
        file=sys.stderr,
    )
    metrics = {}
    for name, direction in space.metrics.items():
        metrics["estoi" if name in missing else name] = direction
    measurable = [*dict.fromkeys([*available_metrics(measured), "estoi"])]
    return replace(space.pinned({"eval.metrics": measurable}), metrics=metrics)


def open_data(space: Space, quiet: bool, resources: TrialResources) -> "tuple[Space, Dataset]":
    """Prepare the data of all trials. Return the space with its absolute path, and the data.

    Refuse a device, data, or a lack of memory that every trial would refuse.
    """
    from distvae.data import open_dataset
    from distvae.train.cost import COPIES_OF_A_WORKER, DataSize
    from distvae.train.team import select_device

    on_this_machine = resources.address is None
    resources.refuse_hidden_gpus(space.base.train.device)
    if on_this_machine:
        select_device(space.base.train.device)
    dataset = open_dataset(space.base.data, quiet=quiet)
    train, val, test = (dataset.splits[name] for name in ("train", "val", "test"))
    if not quiet and space.split == "val" and val is test and val is not train:
        hint = "; without validation rows, data.holdout=N takes N training rows for them"
        print(
            f"{dataset.name}: the same rows validate and test, so trials are chosen by the rows"
            f" that test them{hint if hasattr(space.base.data, 'holdout') else ''}",
            file=sys.stderr,
        )
    if on_this_machine and not any(key.startswith("data.") for key in space.varied):
        copies = 1 if resources.group is None else COPIES_OF_A_WORKER
        check_memory(space, DataSize.of(dataset), resources.max_workers, copies)
    if "data.path" in space.varied:
        return space, dataset
    config = with_absolute_paths(space.config({"data.path": dataset.origin}))
    return space.pinned({"data.path": config.data.path}), dataset


def limit_concurrency(
    space: Space, resources: TrialResources, machines: MachineResources, requested: int | None
) -> Space:
    """Return the space with the largest number of concurrent trials that it wants and that fits.

    Raise `Refusal` if more were requested than fit.
    """
    threads = space.base.train.threads or 1
    fitting = resources.max_concurrent(machines, threads)
    if requested and requested > fitting:
        shortage = resources.describe_shortage(machines, threads, requested)
        raise Refusal(f"--concurrent: {shortage}; at most {fitting} expected")
    return replace(space, concurrent=min(space.concurrent or fitting, fitting))


def _run_in_folder(
    space: Space,
    out: Path,
    options: SweepOptions,
    resources: TrialResources,
    display: SweepDisplay,
    stop: Callable[[], int],
    mirror: Mirror | None,
    run: Callable[[Recorder], None] | None,
) -> Findings:
    """Run the trials, draw the pictures of the report, and return the findings.

    `run` runs trials until all have ended or were asked to stop; it is None if all have ended.
    """
    display.space = space
    study, sending = open_study(space, out), Sending(Store.find(options.root), out)
    record = _sweep_record(space, out, sending)
    record.begin()
    trials = Trials(space, out.absolute() / "trials", resources.group, storage=options.storage)
    recorder = Recorder(trials, study, display, sending, stop, mirror)
    try:
        run_recorded(recorder, run)
        ranked = rank(list(display.results.values()), space.metrics)
        undrawn = [] if stop() else trials.undrawn(ranked)
        if undrawn:
            display.say(f"drawing pictures of {counted(len(undrawn), 'run')}, then the report")
        for trial_run in undrawn:
            if not stop():
                trial_run.draw()
        _add_baselines(recorder, stop)
        if study.all_failed or (len(display.results) < space.count and not stop()):
            display.gave_up()
    finally:
        for folder in recorded_folders(trials.folder):  # also of processes that ended long ago
            sending.notify(folder)
        findings = _conclude(recorder, record, stop())
        if mirror:
            mirror.push()
    return findings


def _add_baselines(recorder: Recorder, stop: Callable[[], int]) -> None:
    """Score the baselines that the sweep's folder lacks, unless no trial finished. A failure is
    printed; the trials stand.
    """
    space, out = recorder.trials.space, recorder.study.folder
    finished = any(result.state == "finished" for result in recorder.display.results.values())
    for name in missing_baselines(space, out) if finished else ():
        if not stop():
            recorder.display.say(f"scoring the baseline {name}")
            try:
                add_baseline(name, space, out)
            except Exception as error:
                print(f"{name}: the baseline could not be scored: {cause(error)}", file=sys.stderr)


def _sweep_record(space: Space, out: Path, sending: Sending) -> Tracker:
    """Return the record of a sweep in MLflow."""
    from distvae.files.program import commit

    counts = {"trials": space.trials, "concurrent": space.concurrent, "seed": space.seed}
    metrics = {f"metric.{name}": direction for name, direction in space.metrics.items()}
    axes = {f"axis.{axis.name}": axis.span for axis in space.axes}
    tags = {
        "kind": "sweep",
        "recipe": space.recipe,
        "folder": str(out.absolute()),
        "commit": str(commit()),
        "mlflow.note.content": space.about,
    }
    params = {**counts, **metrics, **axes}
    return Tracker(out, sending, space.name, out.name, params, tags)


def run_recorded(recorder: Recorder, run: Callable[[Recorder], None] | None) -> None:
    """Run trials and show them. In the end, close the records that their processes left open."""
    display, trials = recorder.display, recorder.trials
    display.take_in(recorder.study.results)
    ended = f"{counted(len(display.results), 'trial')} ended earlier"
    try:
        if run is None:
            display.say(f"{ended}; nothing is left to train")
            return
        with display:
            if display.results:
                display.say(ended)
            run(recorder)
    finally:
        recorder.interrupted()
        trials.shared.delete(STOP_FILE.format(trials.owner))
        for number, result in display.results.items():
            if result.state == "training":
                result.state = "stopped"
            status = STATUS_OF_TRIAL.get(result.state)
            if status and not (trials.folder_of(number) / FAILURE).exists():
                trials.close_records(number, result.values, status)


def _conclude(recorder: Recorder, record: Tracker, signal: int) -> Findings:
    """Rank the trials, write the results, and close the record of the sweep."""
    trials, study = recorder.trials, recorder.study
    space, out = trials.space, study.folder
    ranked = rank(list(recorder.display.results.values()), space.metrics)
    left: Left = "trials"
    if study.is_done:
        undone = [*trials.undrawn(ranked), *missing_baselines(space, out)]
        left = "pictures" if undone else "nothing"
    findings = Findings(
        out,
        space.metrics,
        ranked,
        record.viewer,
        signal,
        left,
        space.constant,
        read_baselines(out),
    )
    record.files([out / SWEEP_FILE, *write_findings(findings)], "results")
    best = next(iter(findings.finished), None)
    if best:
        record.figures(best.figures)
    record.findings(describe_findings(space, ranked))
    if best:
        folder = trials.runs(best.number, best.values)[0].folder
        record.best(folder, "" if space.rows else space.name)
    record.close(STATUS.get(findings.exit_code, "KILLED"))
    return findings
