"""Ray Tune's side of a sweep: a process for trials, and the hooks by which Tune asks and tells.

Optuna chooses the trials and keeps their results (`OptunaStudy`); Tune only runs them. This module
imports Ray, so it is imported where a sweep runs and nowhere else.
"""

import os
import shutil
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypedDict, cast

import ray
from ray import tune
from ray.tune.callback import Callback
from ray.tune.logger import JsonLoggerCallback
from ray.tune.schedulers.trial_scheduler import FIFOScheduler, TrialScheduler
from ray.tune.search.searcher import Searcher
from ray.tune.trainable.trainable import Trainable

from distvae.files.plain import Plain
from distvae.machines.worker import assigned_gpus
from distvae.tune.folder import new_experiment
from distvae.tune.optuna_study import OptunaStudy
from distvae.tune.recorder import MAX_PROCESSES, Recorder
from distvae.tune.results import REPORT_SECONDS, EndedEpoch
from distvae.tune.trial import Report, Trials, run_trial


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


class TuneMetadata(Protocol):
    """The part of Tune's facts about a trial that is used here."""

    num_failures: int
    """The processes that died, of which Tune allows some."""


class TuneTrial(Protocol):
    """The part of Tune's trial that is used here."""

    config: TrialConfig
    last_result: TuneReport
    run_metadata: TuneMetadata


def run_trials(recorder: Recorder, request: Mapping[str, float], kept: bool) -> None:
    """Run trials until all have ended or were asked to stop; each process has such resources.

    The experiment of Tune is deleted at the end, unless it is to be kept. A kept one has a result
    for each epoch.
    """
    trials, study = recorder.trials, recorder.study
    experiment = new_experiment(trials.folder.parent, trials.space, kept)
    tune_config = tune.TuneConfig(
        num_samples=-1,
        max_concurrent_trials=trials.space.concurrent,
        search_alg=StudySearcher(recorder),
        scheduler=EarlyStopping(study),
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
    process = tune.with_resources(
        trial_process(trials, 0.0 if kept else REPORT_SECONDS), dict(request)
    )
    try:
        tune.Tuner(process, tune_config=tune_config, run_config=run_config).fit()
    finally:
        if not kept:
            shutil.rmtree(experiment.parent, ignore_errors=True)


class TrialProcess(Trainable):
    """A process that runs one trial after the other."""

    trials: Trials
    report_seconds: float
    """Epochs within this time are reported together."""
    reports: Generator[Report, None, None] | None = None

    def setup(self, config: Mapping[str, object]) -> None:
        """Prepare the process, and its first trial."""
        self.place = place_of_process()
        self.trials = replace(self.trials, place=self.place, gpus=assigned_gpus())
        self.reset_config(config)

    def reset_config(self, new_config: Mapping[str, object]) -> bool:
        """Close the trial before, and open another."""
        self.cleanup()
        config = cast(TrialConfig, new_config)
        self.reports = run_trial(self.trials, config["number"], config["values"], config["until"])
        return True

    def step(self) -> dict[str, object]:
        """Train for a while."""
        found = collect_reports(self.reports or iter(()), self.report_seconds)
        return found | {"node": self.place["node"]}

    def cleanup(self) -> None:
        """Close the trial."""
        if self.reports:
            self.reports.close()


def trial_process(shared: Trials, seconds: float) -> type[TrialProcess]:
    """Return the process for the trials of a sweep, which report so often.

    It has the name of its base, by which `Tuner.restore` knows it.
    """

    class ProcessOfSweep(TrialProcess):
        trials = shared
        report_seconds = seconds

    ProcessOfSweep.__name__ = TrialProcess.__name__
    return ProcessOfSweep


def place_of_process() -> dict[str, str]:
    """Return the machine of Ray that this process runs on, and the GPUs that it may use."""
    node_id = ray.get_runtime_context().get_node_id()
    (name,) = (node["NodeName"] for node in ray.nodes() if node["NodeID"] == node_id)
    return {"node": name, "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", "")}


def collect_reports(reports: Iterator[Report], seconds: float) -> dict[str, object]:
    """Return the epochs reported within some seconds, or the trial's final result.

    The metrics of the last epoch and the figures of the trial are names of their own beside them.
    """
    deadline = time.monotonic() + seconds
    epochs: list[EndedEpoch] = []
    metrics: dict[str, float] = {}
    for report in reports:
        if "epoch" in report:
            epochs.append(EndedEpoch(report["epoch"], report["bound"], report["seed"]))
            metrics = report["metrics"]
        else:
            return {**report.get("figures", {}), "epochs": epochs, "done": True, **report}
        if time.monotonic() > deadline:
            break
    return {**metrics, "epochs": epochs}


class StudySearcher(Searcher):
    """Gives Tune the trials of the study, until asked to stop."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def suggest(self, trial_id: str) -> dict[str, object] | None:
        """Return the next trial, nothing where it is to be asked again, or say that it was all."""
        recorder = self.recorder
        stops = bool(recorder.stop())
        trial = None if stops else recorder.next_trial()
        if trial is None and recorder.study.waits and not stops:
            return None
        if trial is None:
            return cast(None, Searcher.FINISHED)  # a string, which Ray's annotation leaves out
        return trial._asdict()

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, object] | None = None, error: bool = False
    ) -> None:
        """Do nothing: `SweepCallback` records results."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the study is on disk."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the study is on disk."""


class EarlyStopping(FIFOScheduler):
    """Stops the trials that the study gives up."""

    def __init__(self, study: OptunaStudy) -> None:
        FIFOScheduler.__init__(self)
        self.study = study

    def on_trial_result(
        self, tune_controller: object, trial: TuneTrial, result: Mapping[str, object]
    ) -> str:
        """Decide whether a trial goes on after some epochs."""
        epochs = cast(TuneReport, result)["epochs"]
        if self.study.should_stop(trial.config["number"], epochs):
            return TrialScheduler.STOP
        return TrialScheduler.CONTINUE


class SweepCallback(Callback):
    """Records how trials end, shows and sends what happens, and asks trials to stop."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def on_step_begin(self, iteration: int, trials: Sequence[TuneTrial], **info: object) -> None:
        """Ask the trials to stop if the sweep was asked to."""
        self.recorder.pass_on_stop()

    def on_trial_start(
        self, iteration: int, trials: Sequence[TuneTrial], trial: TuneTrial, **info: object
    ) -> None:
        """Show a trial that starts for the first time."""
        self.recorder.started(trial.config["number"], trial.config["values"])

    def on_trial_recover(
        self, iteration: int, trials: Sequence[TuneTrial], trial: TuneTrial, **info: object
    ) -> None:
        """Show a trial that continues in another process."""
        self.recorder.recovered(trial.config["number"], trial.config["values"])

    def on_trial_result(
        self,
        iteration: int,
        trials: Sequence[TuneTrial],
        trial: TuneTrial,
        result: Mapping[str, object],
        **info: object,
    ) -> None:
        """Show epochs, and have MLflow told. Deaths before a new epoch no longer count."""
        if self.recorder.trained(trial.config["number"], cast(TuneReport, result)["epochs"]):
            trial.run_metadata.num_failures = 0

    def on_trial_complete(
        self, iteration: int, trials: Sequence[TuneTrial], trial: TuneTrial, **info: object
    ) -> None:
        """Record how a trial ended, unless it was asked to stop and can be resumed."""
        last = trial.last_result
        self.recorder.ended(trial.config["number"], last, last.get("node", ""))

    def on_trial_error(
        self, iteration: int, trials: Sequence[TuneTrial], trial: TuneTrial, **info: object
    ) -> None:
        """Record a trial whose last process died."""
        self.recorder.died(trial.config["number"])

    def __getstate__(self) -> dict[str, object]:
        """Leave everything out of the pickle that Tune writes and never reads."""
        return {}
