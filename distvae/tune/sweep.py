"""A sweep: Optuna chooses trials, and Ray Tune runs them in processes that are reused."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from distvae.config.recipes import refuse_place
from distvae.files.output import check_writable_folder
from distvae.files.plain import Plain
from distvae.machines.stop_files import STOP_FILE
from distvae.track import Sending, Status, Store, Tracker, refuse_missing_packages
from distvae.track.sending import recorded_folders
from distvae.train.progress import stop_signals
from distvae.tune.display import SweepDisplay
from distvae.tune.folder import locked_folder, prepare_sweep_folder, refuse_folder
from distvae.tune.optuna_study import OptunaStudy
from distvae.tune.pictures import draw_pictures, undrawn_runs
from distvae.tune.plan import Plan, plan_on_ray
from distvae.tune.preparation import DEFAULT_RESOURCES, open_data, prepare_space
from distvae.tune.recorder import Recorder, close_records
from distvae.tune.resources import TrialResources
from distvae.tune.results import Findings, Left, Result, rank, write_findings
from distvae.tune.same_data import refuse_other_data
from distvae.tune.scheduler_check import check_scheduler, refuse_workers
from distvae.tune.space import ROW, Space
from distvae.tune.summary import describe_findings
from distvae.tune.sweep_file import SWEEP_FILE, recorded_name, recorded_settings
from distvae.tune.trial import FAILURE, Trials

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
    """The place of the data; empty for that of the base recipe."""
    trials: int | None = None
    """None for as many as the space says; so is `concurrent`."""
    concurrent: int | None = None
    resume: bool = False
    force: bool = False
    """Replace an earlier sweep."""
    keep_tune: bool = False
    """Keep the experiment of Ray Tune in the folder of the sweep."""
    quiet: bool = False
    root: Path = Path("runs")
    """The folder of the MLflow records, where no server is set."""


DEFAULT_OPTIONS = SweepOptions()


def run_sweep(
    space: Space,
    out: Path,
    options: SweepOptions = DEFAULT_OPTIONS,
    resources: TrialResources = DEFAULT_RESOURCES,
) -> Findings:
    """Run the trials of a space into the folder `out`, and return what they found."""
    check_writable_folder(out)
    space = _prepared(space, out, options, resources)
    display = SweepDisplay(space, options.quiet)
    with (
        stop_signals() as stop,
        locked_folder(out),
        _plan(space, out, options, resources, stop, display) as plan,
    ):
        return _run_in_folder(plan, out, options, display, stop)


def _plan(
    space: Space,
    out: Path,
    options: SweepOptions,
    resources: TrialResources,
    stop: Callable[[], int],
    display: SweepDisplay,
) -> AbstractContextManager[Plan]:
    """Return where the trials run, as the options say; nowhere if all of them have ended."""
    if (out / SWEEP_FILE).is_file() and options.resume and OptunaStudy(space, out).is_done:
        return nullcontext(Plan(space, resources))
    display.ray_starts(resources.address)
    return plan_on_ray(space, resources, out, options.concurrent, stop, options.keep_tune)


def _run_in_folder(
    plan: Plan,
    out: Path,
    options: SweepOptions,
    display: SweepDisplay,
    stop: Callable[[], int],
) -> Findings:
    """Run the trials, and return what they found."""
    space = display.space = plan.space
    if plan.run is not None:
        prepare_sweep_folder(space, out, options.resume, plan.resources)
    study, sending = OptunaStudy(space, out), Sending(Store.find(options.root), out)
    record = _sweep_record(space, out, sending)
    record.begin()
    trials = Trials(space, out.absolute() / "trials", plan.resources.group)
    try:
        _run_trials(plan, Recorder(trials, study, display, sending, stop))
        ranked = rank(list(display.results.values()), space.metrics)
        runs = [] if stop() else undrawn_runs(trials, ranked)
        display.draws(len(runs))
        draw_pictures(runs, stop)
        if study.all_failed or (len(display.results) < space.count and not stop()):
            display.gave_up()
    finally:
        for folder in recorded_folders(trials.folder):  # also of processes that ended long ago
            sending.notify(folder)
        findings = _conclude(trials, study, display, record, stop())
    return findings


def _prepared(space: Space, out: Path, options: SweepOptions, resources: TrialResources) -> Space:
    """Return the space with all settings that are known before Ray starts.

    Refuse a folder in which they cannot be explored.
    """
    pinned = dict(options.assignments)
    if options.data:
        pinned["data.path"] = options.data
    path = pinned.get("data.path")
    refuse_place(space.base, str(path) if path else None)
    refuse_workers(space, resources.group is not None)
    if options.resume:
        pinned = recorded_settings(out) | pinned
        space = replace(space, name=recorded_name(out) or space.name)
    space = prepare_space(space, pinned, options.trials, options.concurrent, resources)
    refuse_missing_packages(space.base.train.sinks)
    check_scheduler(space)
    space, dataset = open_data(space, options.quiet, resources)
    refuse_folder(space, out, options.force, options.resume, resources)
    if options.resume:
        refuse_other_data(space, out, dataset)
    return space


def _sweep_record(space: Space, out: Path, sending: Sending) -> Tracker:
    """Return the record of a sweep in MLflow."""
    from distvae.files.provenance import commit

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


def _run_trials(plan: Plan, recorder: Recorder) -> None:
    """Run trials until all have ended or were asked to stop, and show how they go."""
    try:
        if plan.run is None:
            recorder.display.has_ended(recorder.study.results)
            return
        with recorder.display as display:
            display.ended_before(recorder.study.results)
            plan.run(recorder)
    finally:
        recorder.interrupted()
        _close_records(recorder.trials, recorder.display)


def _close_records(trials: Trials, display: SweepDisplay) -> None:
    """Close the records of trials that were stopped, or whose process died."""
    (trials.folder / STOP_FILE.format(trials.owner)).unlink(missing_ok=True)
    for number, result in display.results.items():
        if result.state == "training":
            result.state = "stopped"
        failed_itself = (trials.folder_of(number) / FAILURE).exists()
        if result.state not in STATUS_OF_TRIAL or failed_itself:
            continue
        close_records(trials, number, result.values, STATUS_OF_TRIAL[result.state])


def _left(trials: Trials, study: OptunaStudy, ranked: Sequence[Result]) -> Left:
    """Return what a sweep would do if it were resumed."""
    if not study.is_done:
        return "trials"
    return "pictures" if undrawn_runs(trials, ranked) else "nothing"


def _conclude(
    trials: Trials, study: OptunaStudy, display: SweepDisplay, record: Tracker, signal: int
) -> Findings:
    """Rank the trials, write the results, and close the record of the sweep."""
    space, out = trials.space, study.folder
    ranked = rank(list(display.results.values()), space.metrics)
    left = _left(trials, study, ranked)
    findings = Findings(out, space.metrics, ranked, record.viewer, signal, left)
    record.files([out / SWEEP_FILE, *write_findings(findings)], "results")
    best = next((result for result in ranked if result.state == "finished"), None)
    folder = trials.runs(best.number, best.values)[0].folder if best else None
    if best:
        record.figures(best.figures)
    record.findings(describe_findings(space, ranked), sorted(space.varied - {ROW}), space.metrics)
    if folder:
        record.best(folder, "" if space.rows else space.name)
    record.close(STATUS.get(findings.exit_code, "KILLED"))
    return findings
