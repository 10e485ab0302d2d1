"""Ray Tune's side of a sweep: a process for trials, and the hooks that Tune calls.

Optuna chooses the trials and stores their results (`OptunaStudy`); Tune only runs them. This module
imports Ray, so it is imported where a sweep runs and nowhere else.
"""

import math
import os
import shutil
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict, cast

import ray
from ray import tune
from ray.tune.callback import Callback
from ray.tune.experiment import Trial
from ray.tune.logger import JsonLoggerCallback
from ray.tune.schedulers.trial_scheduler import FIFOScheduler, TrialScheduler
from ray.tune.search.searcher import Searcher
from ray.tune.trainable.trainable import Trainable

from distvae.files.untrusted import Plain
from distvae.machines.worker import assigned_gpus
from distvae.tune.mirror import Mirror
from distvae.tune.recorder import MAX_PROCESSES, Recorder
from distvae.tune.results import EndedEpoch
from distvae.tune.study import is_judged
from distvae.tune.trial import Report, Trials, run_trial

REPORT_SECONDS = 0.3
"""Epochs of this time are reported together, because each report takes some milliseconds."""
SEND_SECONDS = 30.0
"""Seconds between two copies of a trial to the object store that keeps it. A machine that is lost
takes the epochs since the last copy with it.
"""


class TrialConfig(TypedDict):
    """A trial to run, as Tune hands it on."""

    number: int
    values: Mapping[str, Plain]
    until: int | None


class TuneReport(Report, total=False):
    """A report of a trial's process to Tune."""

    epochs: list[EndedEpoch]
    """They are no dictionaries, which Tune would take apart."""
    done: bool
    node: str
    """The machine of Ray that the process runs on."""
    sent: bool
    """Whether the trial was copied to the object store that keeps it."""


def run_trials(
    recorder: Recorder, experiment: Path, request: Mapping[str, float], kept: bool
) -> None:
    """Run trials until all have ended or were asked to stop.

    Each process requests these resources. The folder of Tune's experiment is deleted at the end,
    unless it is kept; then it has a result for each epoch.
    """
    tune_config = tune.TuneConfig(
        num_samples=-1,
        max_concurrent_trials=recorder.trials.space.concurrent,
        search_alg=StudySearcher(recorder),
        scheduler=EarlyStopping(recorder),
        reuse_actors=True,
    )
    run_config = tune.RunConfig(
        name=experiment.name,
        storage_path=str(experiment.parent),
        verbose=0,
        callbacks=[SweepCallback(recorder), *([JsonLoggerCallback()] if kept else [])],
        failure_config=tune.FailureConfig(max_failures=MAX_PROCESSES - 1),
        # trials are runs, which have checkpoints of their own
        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
    )
    seconds = 0.0 if kept else REPORT_SECONDS
    process = tune.with_resources(
        tune.with_parameters(TrialProcess, trials=recorder.trials, report_seconds=seconds),
        dict(request),
    )
    try:
        tune.Tuner(process, tune_config=tune_config, run_config=run_config).fit()
    finally:
        if not kept:
            shutil.rmtree(experiment.parent, ignore_errors=True)


class TrialProcess(Trainable):
    """A process that runs one trial after another."""

    reports: Generator[Report, None, None] | None = None
    next_copy = math.inf
    mirror: Mirror | None = None
    """The copy of the trial in an object store, if one keeps the sweep."""

    def setup(
        self,
        config: Mapping[str, object],
        trials: Trials | None = None,
        report_seconds: float = 0.0,
    ) -> None:
        """Prepare the process and its first trial. The process reports every `report_seconds`."""
        assert trials is not None
        node_id = ray.get_runtime_context().get_node_id()
        (self.node,) = (node["NodeName"] for node in ray.nodes() if node["NodeID"] == node_id)
        place = {"node": self.node, "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", "")}
        self.trials = replace(trials, place=place, gpus=assigned_gpus())
        if trials.storage:
            here = Path(self.logdir) / "trials"
            self.trials = replace(self.trials, folder=here, home=trials.folder)
        self.report_seconds = report_seconds
        self.reset_config(config)

    def reset_config(self, new_config: Mapping[str, object]) -> bool:
        """Close the trial before, and open another."""
        self.cleanup()
        config = cast(TrialConfig, new_config)
        if self.trials.storage:
            number, here = config["number"], self.trials.folder_of(config["number"])
            shutil.rmtree(here, ignore_errors=True)
            self.mirror = Mirror(here, self.trials.shared.subfolder(str(number)))
            self.mirror.pull()
            self.next_copy = time.monotonic() + SEND_SECONDS
        self.reports = run_trial(self.trials, config["number"], config["values"], config["until"])
        return True

    def step(self) -> dict[str, object]:
        """Train for a while."""
        found = collect_reports(self.reports or iter(()), self.report_seconds)
        return found | {"node": self.node, "sent": self._send_if_due(cast(TuneReport, found))}

    def _send_if_due(self, found: TuneReport) -> bool:
        """Copy the trial to its object store now and then, and where the sweep has to see it."""
        judged = any(is_judged(self.trials.space, ended.epoch) for ended in found["epochs"])
        is_due = found.get("done") or judged or time.monotonic() > self.next_copy
        if self.mirror is None or not is_due:
            return False
        self.mirror.push()
        self.next_copy = time.monotonic() + SEND_SECONDS
        return True

    def cleanup(self) -> None:
        """Close the trial."""
        if self.reports:
            self.reports.close()
        if self.mirror:
            self.mirror.push()
            shutil.rmtree(self.mirror.here, ignore_errors=True)


def collect_reports(reports: Iterator[Report], seconds: float) -> dict[str, object]:
    """Return the epochs reported within some seconds, or the trial's final result.

    The metrics of the last epoch, and the figures of the trial, are also plain names beside them.
    """
    deadline = time.monotonic() + seconds
    epochs: list[EndedEpoch] = []
    metrics: dict[str, float] = {}
    for report in reports:
        if "epoch" not in report:
            return {**report.get("figures", {}), "epochs": epochs, "done": True, **report}
        epochs.append(EndedEpoch(report["epoch"], report["bound"], report["seed"]))
        metrics = report["metrics"]
        if time.monotonic() > deadline:
            break
    return {**metrics, "epochs": epochs}


class StudySearcher(Searcher):
    """Gives Tune the trials of the study, until the sweep is asked to stop.

    Ray's `OptunaSearch` would store a trial that a scheduler stopped as complete.
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def suggest(self, trial_id: str) -> dict[str, object] | None:
        """Return the next trial, None if Tune shall ask again, or that all trials have begun."""
        stops = bool(self.recorder.stop())
        trial = None if stops else self.recorder.next_trial()
        if trial is not None:
            return trial._asdict()
        if self.recorder.study.waits and not stops:
            return None
        return cast(None, Searcher.FINISHED)  # a string, which Ray's annotation leaves out

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, object] | None = None, error: bool = False
    ) -> None:
        """Do nothing: `SweepCallback` records results."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the study is on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the study is on disk."""


class EarlyStopping(FIFOScheduler):
    """Stops the poor trials of the study. Tune's own schedulers lose their state at a resume."""

    def __init__(self, recorder: Recorder) -> None:
        FIFOScheduler.__init__(self)
        self.recorder = recorder

    def on_trial_result(
        self, tune_controller: object, trial: Trial, result: Mapping[str, object]
    ) -> str:
        """Decide whether a trial goes on after some epochs."""
        report = cast(TuneReport, result)
        epochs, sent = report["epochs"], report.get("sent", False)
        if self.recorder.should_stop(trial.config["number"], epochs, sent):
            return TrialScheduler.STOP
        return TrialScheduler.CONTINUE


class SweepCallback(Callback):
    """Passes on to the recorder how trials start, train and end."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def on_step_begin(self, iteration: int, trials: Sequence[Trial], **info: object) -> None:
        """Ask the trials to stop if the sweep was asked to."""
        self.recorder.pass_on_stop()

    def on_trial_start(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: object
    ) -> None:
        """Show a trial that starts for the first time."""
        self.recorder.started(trial.config["number"], trial.config["values"])

    def on_trial_recover(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: object
    ) -> None:
        """Show a trial that continues in another process."""
        self.recorder.recovered(trial.config["number"], trial.config["values"])

    def on_trial_result(
        self,
        iteration: int,
        trials: Sequence[Trial],
        trial: Trial,
        result: Mapping[str, object],
        **info: object,
    ) -> None:
        """Show epochs. After a new epoch, earlier deaths of processes no longer count."""
        if self.recorder.trained(trial.config["number"], cast(TuneReport, result)["epochs"]):
            trial.run_metadata.num_failures = 0

    def on_trial_complete(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: object
    ) -> None:
        """Record how a trial ended."""
        last = trial.last_result
        self.recorder.ended(trial.config["number"], last, last.get("node", ""))

    def on_trial_error(
        self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: object
    ) -> None:
        """Record a trial whose last process died."""
        self.recorder.died(trial.config["number"])
