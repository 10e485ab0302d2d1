"""What Ray Tune runs of a sweep: its trials, which ask and tell a study by way of Tune's
callbacks.

Ray's classes are made when they are used, so that nothing here imports Ray before.
"""

import os
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Any

from distvae.machines.placement import assigned_gpus
from distvae.track import Relay
from distvae.tune.display import SweepDisplay
from distvae.tune.optuna_study import OptunaStudy
from distvae.tune.trial import Report, Trials, run_trial

TOGETHER = 0.3  # seconds of epochs that are told together, for each telling takes some milliseconds
LIVES = 4
"""So many processes may a trial have, one after another that died; an error of its own ends it at
once.
"""


def trainable(shared: Trials) -> Any:
    """A process for one trial after the other."""
    from ray import tune

    class Process(tune.Trainable):  # type: ignore[misc]
        reports: Generator[Report, None, None] | None = None

        def setup(self, config: dict[str, Any]) -> None:
            self.here, self.gpus = here(), assigned_gpus()
            self.reset_config(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.cleanup()
            trials = replace(shared, place=self.here, gpus=self.gpus)
            self.reports = run_trial(trials, new_config["number"], new_config["values"])
            return True

        def step(self) -> dict[str, Any]:
            return told(self.reports or iter(())) | {"node": self.here["node"]}

        def cleanup(self) -> None:
            if self.reports:
                self.reports.close()

    return Process


def here() -> dict[str, str]:
    """The machine of Ray that this process runs on, and the GPUs that it may use."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    (name,) = (node["NodeName"] for node in ray.nodes() if node["NodeID"] == own)
    return {"node": name, "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", "")}


def told(reports: Iterator[Report]) -> dict[str, Any]:
    """Some epochs with their bounds, in pairs, for Tune takes dictionaries apart; or how a trial
    ended.
    """
    until, epochs = time.monotonic() + TOGETHER, list[tuple[int, float]]()
    for report in reports:
        if "epoch" in report:
            epochs.append((report["epoch"], report["bound"]))
        elif report:
            return {"epochs": epochs, "done": True} | report
        if time.monotonic() > until:
            break
    return {"epochs": epochs}


def asking(study: OptunaStudy, stop: Callable[[], object]) -> Any:
    """Gives Tune the study's trials, until asked to stop."""
    from ray.tune.search import Searcher

    class Asking(Searcher):  # type: ignore[misc]
        def suggest(self, trial_id: str) -> Any:
            setting = None if stop() else study.next()
            return Searcher.FINISHED if setting is None else setting._asdict()

        def on_trial_complete(
            self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
        ) -> None:
            """The listener hears of it."""

        def save(self, checkpoint_path: str) -> None:
            """The study is on disk."""

    return Asking()


def halting(study: OptunaStudy) -> Any:
    """Stops the trials that the study gives up."""
    from ray.tune.schedulers import FIFOScheduler, TrialScheduler

    class Halting(FIFOScheduler):  # type: ignore[misc]
        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            halts = study.halts(trial.config["number"], result["epochs"])
            return str(TrialScheduler.STOP if halts else TrialScheduler.CONTINUE)

    return Halting()


def listening(
    study: OptunaStudy,
    watch: SweepDisplay,
    relay: Relay,
    shared: Trials,
    stop: Callable[[], object],
) -> Any:
    """Tells the study how trials end, passes on what happens to what shows and what sends it, asks
    trials to stop.
    """
    from ray import tune

    from distvae.files.storage import Folder
    from distvae.machines.stop_files import request_stop

    class Listener(tune.Callback):  # type: ignore[misc]
        asked = False

        def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
            if stop() and not self.asked:
                request_stop(Folder(shared.folder), shared.owner)
                self.asked = True

        def on_trial_start(
            self, iteration: int, trials: list[Any], trial: Any, **info: Any
        ) -> None:
            if trial.config["number"] not in watch.results:  # else it goes on in another process
                watch.began(trial.config["number"], trial.config["values"])

        def on_trial_recover(
            self, iteration: int, trials: list[Any], trial: Any, **info: Any
        ) -> None:
            self.on_trial_start(iteration, trials, trial)
            watch.recovered(trial.config["number"])

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            for epoch, bound in result["epochs"]:
                watch.epoch(trial.config["number"], epoch, bound)
            relay.notify(shared.at(trial.config["number"]))

        def on_trial_complete(
            self, iteration: int, trials: list[Any], trial: Any, **info: Any
        ) -> None:
            number, last = trial.config["number"], trial.last_result
            watch.results[number].node = last.get("node", "")
            if "stopped" in last:
                watch.stopped(number)
                return
            if "figures" in last:
                watch.finished(number, last["figures"])
            elif "failure" in last:
                watch.failed(number, last["failure"])
            else:
                watch.halted(number)
            study.close(watch.results[number])

        def on_trial_error(
            self, iteration: int, trials: list[Any], trial: Any, **info: Any
        ) -> None:
            number = trial.config["number"]
            watch.failed(number, f"its process died {LIVES} times; too little memory?")
            study.close(watch.results[number])

        def __getstate__(self) -> dict[str, Any]:
            """Nothing: Tune pickles whom it calls back, never to read it."""
            return {}

    return Listener()
